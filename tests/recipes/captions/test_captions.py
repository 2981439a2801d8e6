"""NeuralTalk and what it says: the network, decoding, scores."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU
from torch import nn
from torch.nn import functional as F

import redense
from redense.prunable import prunable
from redense.recipes.captions import nearest, scores
from redense.recipes.captions.decoding import beam_search, greedy
from redense.recipes.captions.models import STOP, NeuralTalk, neuraltalk, next_words

SENTENCES = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), max_size=7).map(" ".join)


def a_model(seed=0, vocabulary=7, features=5, hidden=6, dropout=0.0, spread=1.5):
    torch.manual_seed(seed)
    model = NeuralTalk(vocabulary, features, hidden, dropout).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, spread)
    return model


def some_captions(many=6, longest=5, vocabulary=7, features=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(longest + 1, (many,), generator=generator)
    lengths[0] = longest
    words = torch.randint(1, vocabulary, (many, longest), generator=generator)
    return torch.randn(many, features, generator=generator, dtype=torch.double), words, lengths


# the network


def test_the_parameters_have_neuraltalks_shapes():
    shapes = {name: tuple(p.shape) for name, p in neuraltalk(vocabulary=2539).named_parameters()}
    assert shapes["image_encoder.weight"] == (256, 4096)
    assert shapes["word_encoder.weight"] == (2539, 256)
    assert shapes["decoder.weight"] == (2539, 256)
    assert shapes["lstm.weight_ih_l0"] == shapes["lstm.weight_hh_l0"] == (1024, 256)
    assert shapes["lstm.bias_ih_l0"] == (1024,)
    torchs_second_bias = 1024
    papers = 4097 * 256 + 2539 * 256 + 513 * 1024 + 257 * 2539
    assert sum(math.prod(shape) for shape in shapes.values()) == papers + torchs_second_bias


def test_all_matrices_are_pruned_but_the_word_embedding():
    model = neuraltalk(vocabulary=40)
    assert set(prunable(model)) == {
        *("image_encoder.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "decoder.weight"),
    }
    optimizer = torch.optim.RMSprop(model.parameters(), alpha=0.999)
    with redense.sparse(model, optimizer, 0.8):
        words, lengths = torch.randint(1, 40, (4, 6)), torch.tensor([6, 2, 3, 1])
        F.cross_entropy(
            model(torch.randn(4, 4096), words, lengths), next_words(words, lengths)
        ).backward()
        optimizer.step()
        for name, weight in prunable(model).items():
            assert int((weight == 0).sum()) == round(0.8 * weight.numel()), name
        assert bool((model.word_encoder.weight != 0).all())


def test_weights_start_uniform_and_biases_at_zero_as_in_neuraltalk():
    for name, parameter in neuraltalk(vocabulary=100).named_parameters():
        assert bool((parameter.abs() <= 0.1).all())
        assert bool((parameter == 0).all()) == ("bias" in name)


def plain_loss(model, features, words, lengths):
    """One caption at a time, one step at a time: image, START, words; the mean over all next
    words."""
    losses = []
    for image, caption, length in zip(features, words, lengths, strict=True):
        state = model.lstm(model.image_encoder(image).view(1, 1, -1))[1]
        caption = caption[:length].tolist()
        for word, following in zip([STOP, *caption], [*caption, STOP], strict=True):
            output, state = model.lstm(model.word_encoder(torch.tensor([[word]])), state)
            losses.append(F.cross_entropy(model.decoder(output[0]), torch.tensor([following])))
    return torch.stack(losses).mean()


def test_the_packed_loss_and_its_gradients_equal_a_plain_loop():
    model, (features, words, lengths) = a_model(), some_captions()
    loss = F.cross_entropy(model(features, words, lengths), next_words(words, lengths))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    plain = plain_loss(model, features, words, lengths)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradients, torch.autograd.grad(plain, list(model.parameters())))


@pytest.mark.parametrize("training", [False, True])
def test_padding_never_changes_a_result(training):
    model, (features, words, lengths) = a_model(dropout=0.5).train(training), some_captions()
    outcomes = []
    for extra, fill in ((0, 0), (3, 0), (3, 6)):
        padded = F.pad(words, (0, extra))
        padded[torch.arange(padded.shape[1]) >= lengths.unsqueeze(1)] = fill
        torch.manual_seed(1)
        outcomes.append((model(features, padded, lengths), next_words(padded, lengths)))
    for logits, targets in outcomes[1:]:
        assert torch.equal(logits, outcomes[0][0])
        assert torch.equal(targets, outcomes[0][1])


def test_features_that_all_point_one_way_are_told_apart():
    features = 50 + torch.rand(8, 12, generator=torch.Generator().manual_seed(0))
    features[:, 3] = 1.0
    model = NeuralTalk(9, 12, 16, 0.0)
    model.standardise(features)
    seen = []
    model.image_encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.look(features)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[0].square().mean(), torch.ones(()))
    assert bool((seen[0][:, 3] == 0).all())
    model.standardise(torch.ones(8, 12))
    assert all(bool(state.isfinite().all()) for state in model.look(torch.ones(2, 12)))


def test_dropout_acts_on_both_encodings_and_on_the_decoders_input():
    model, seen = a_model(dropout=0.5).train(), []
    model.dropout.register_forward_hook(
        lambda module, inputs, output: seen.append(tuple(output.shape))
    )
    features, words, lengths = some_captions()
    model(features, words, lengths)
    steps = int(lengths.sum()) + len(lengths)
    assert seen == [(steps + len(lengths), 6), (steps, 6)]


# decoding


def plain_greedy(model, features, most):
    said = []
    for image in features:
        state, word, sentence = model.look(image.unsqueeze(0)), STOP, []
        while len(sentence) < most:
            logits, state = model.say(torch.tensor([word]), state)
            word = int(logits.argmax())
            if word == STOP:
                break
            sentence.append(word)
        said.append(sentence)
    return said


def plain_beam(model, image, width, penalty, most):
    """Sentences as lists, one network call each; the best by log-probability / steps ** penalty."""

    def rank(sentence):
        return sentence[0] / max(len(sentence[1]), 1) ** penalty

    beam = [(0.0, [], model.look(image.unsqueeze(0)))]
    for _ in range(most):
        grown = []
        for total, said, state in beam:
            if said and said[-1] == STOP:
                grown.append((total, said, state))
                continue
            logits, after = model.say(torch.tensor([said[-1] if said else STOP]), state)
            further = logits[0].log_softmax(0).tolist()
            grown += [(total + step, [*said, word], after) for word, step in enumerate(further)]
        beam = sorted(grown, key=rank, reverse=True)[:width]
    best = max(beam, key=rank)[1]
    return best[:-1] if best and best[-1] == STOP else best


MODELS = {"seed": st.integers(0, 10_000), "images": st.integers(1, 5), "most": st.integers(1, 8)}


@settings(max_examples=60, deadline=None)
@given(**MODELS)
@torch.no_grad()
def test_greedy_equals_one_image_and_one_word_at_a_time(seed, images, most):
    model, features = a_model(seed), torch.randn(images, 5, dtype=torch.double)
    assert greedy(model, features, most) == plain_greedy(model, features, most)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 9), penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0]), **MODELS)
@torch.no_grad()
def test_a_batched_beam_equals_a_plain_one_for_each_image(seed, images, most, width, penalty):
    model, features = a_model(seed), torch.randn(images, 5, dtype=torch.double)
    plain = [plain_beam(model, image, width, penalty, most) for image in features]
    assert beam_search(model, features, width, penalty, most) == plain


@settings(max_examples=60, deadline=None)
@given(penalty=st.sampled_from([0.0, 1.0]), **MODELS)
def test_a_beam_of_width_one_is_greedy(seed, images, most, penalty):
    model, features = a_model(seed), torch.randn(images, 5, dtype=torch.double)
    assert beam_search(model, features, 1, penalty, most) == greedy(model, features, most)


def test_captions_have_twenty_words_at_most():
    model = a_model()
    with torch.no_grad():
        model.decoder.bias[STOP] = -1e9
    features = torch.randn(3, 5, dtype=torch.double)
    for said in (greedy(model, features), beam_search(model, features, 4)):
        assert [len(sentence) for sentence in said] == [20, 20, 20]


def test_a_length_penalty_makes_captions_longer():
    torch.manual_seed(0)
    features = torch.randn(200, 5, dtype=torch.double)
    lengths = [
        sum(map(len, beam_search(a_model(3, spread=0.7), features, 5, p))) for p in (0.0, 1.0)
    ]
    assert lengths[0] < lengths[1]


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": 2, "most": 0}])
def test_a_beam_without_room_is_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        beam_search(a_model(), torch.randn(1, 5, dtype=torch.double), **wrong)


# scores


def files(folder, captions, references):
    """The files that sacrebleu's own command reads; where an image has fewer references its first
    one stands again."""
    (folder / "captions").write_text("".join(f"{line}\n" for line in captions))
    most = max(map(len, references))
    for n in range(most):
        column = (right[n] if n < len(right) else right[0] for right in references)
        (folder / f"references{n}").write_text("".join(f"{line}\n" for line in column))
    return [folder / f"references{n}" for n in range(most)]


def corpus(seed, images=40):
    noise = np.random.default_rng(seed)
    words = np.array(
        [
            "a",
            "the",
            "man",
            "woman",
            "dog",
            "cat",
            "with",
            "on",
            "runs",
            "sits",
            "red",
            "skin",
            "tone",
        ]
    )

    def sentence(most=9):
        return " ".join(noise.choice(words, noise.integers(1, most)))

    references = [[sentence() for _ in range(noise.integers(1, 6))] for _ in range(images)]
    captions = [right[0] if noise.random() < 0.3 else sentence() for right in references]
    return captions, references


@pytest.mark.parametrize("seed", range(3))
def test_bleu_equals_sacrebleus_own_on_the_same_files(seed, tmp_path):
    captions, references = corpus(seed)
    columns = files(tmp_path, captions, references)
    found = scores.bleu(captions, references) | scores.more(captions, references)
    asked = [*map(str, columns), "-i", str(tmp_path / "captions"), "-b", "-w", "12", "-tok", "none"]
    said = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *asked], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == f"{found['bleu4']:.12f}"
    read = [column.read_text().splitlines() for column in columns]
    for n in (1, 2, 3):  # its command has no flag for the order
        metric = BLEU(tokenize="none", max_ngram_order=n)
        assert (
            metric.corpus_score((tmp_path / "captions").read_text().splitlines(), read).score
            == found[f"bleu{n}"]
        )


def test_the_papers_variant_is_bleu_without_the_penalty_for_brevity():
    references = [["a man with a red dog on the left"]] * 3
    short = ["a man with a red dog"] * 3
    found = scores.bleu(short, references) | scores.more(short, references)
    assert found["brevity"] == pytest.approx(100 * math.exp(1 - 9 / 6))
    for n in (1, 2, 3, 4):
        assert found[f"bleu{n}_without_penalty"] == pytest.approx(100)
        assert found[f"bleu{n}"] == pytest.approx(found["brevity"])


def test_cider_d_is_ten_for_the_references_themselves_and_zero_for_nothing_in_common():
    references = [
        ["a man on the left side"],
        ["two dogs run very fast"],
        ["red flag of one country"],
    ]
    assert scores.cider_d([right[0] for right in references], references) == pytest.approx(10)
    assert scores.cider_d(["x y z"] * 3, references) == 0


def test_exact_counts_any_of_the_references():
    assert scores.exact(["a", "b", "c", "d"], [["x", "a"], ["b"], ["c d"], [""]]) == 50


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(SENTENCES, st.lists(SENTENCES.filter(bool), min_size=1, max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_scores_are_finite_for_any_captions_empty_ones_too(pairs):
    captions, references = [c for c, _ in pairs], [r for _, r in pairs]
    found = {**scores.bleu(captions, references), **scores.more(captions, references)}
    found["exact"] = scores.exact(captions, references)
    bounded = {name: value for name, value in found.items() if name != "cider_d"}
    assert all(0 <= value <= 100 + 1e-9 for value in bounded.values()), found
    assert 0 <= found["cider_d"] <= 10 + 1e-9


def test_each_caption_is_scored_by_itself():
    metric = BLEU(tokenize="none", effective_order=True)
    captions, references = corpus(0)
    assert scores.each(captions, references) == [
        metric.sentence_score(one, right).score
        for one, right in zip(captions, references, strict=True)
    ]
    assert scores.each(["a man", ""], [["a man"], ["a man"]]) == [pytest.approx(100), 0]


def test_the_nearest_training_picture_s_caption_is_said(monkeypatch):
    monkeypatch.setattr(nearest, "_MOST", 4)  # two rows at a time
    generator = torch.Generator().manual_seed(0)
    train, asked = torch.tensor([[1.0, 0, 0], [-1, 0, 0]]), torch.randn(5, 3, generator=generator)
    said = nearest.nearest_captions(train, asked, [["a cat", "one cat"], ["a dog"]])
    apart = [[float((one - other).norm()) for other in train] for one in asked]
    assert said == [("a cat", "a dog")[distances[1] < distances[0]] for distances in apart]
    assert len(set(said)) == 2


def test_the_constant_caption_is_the_best_of_trains():
    references = [["woman golfing dark skin tone"], ["man golfing dark skin tone"], ["inbox tray"]]
    assert scores.constant_caption(references) == "woman golfing dark skin tone"


def test_the_signature_states_the_tokenisation():
    assert "tok:none" in scores.signature()
    assert "version:" in scores.signature()
