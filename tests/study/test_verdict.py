"""The sentences, read against the numbers they word."""

import numpy as np
import pytest
from test_compare import METHODS, null_study, study

from redense.study.compare import compare
from redense.study.verdict import best_method, verdict

EPOCHS = {"dense": 30, "longer": 70, "lower_lr": 70, "random_dsd": 70, "dsd": 70}


def judged(scores, method="dsd", epochs=EPOCHS, metric="accuracy", **options):
    baseline = "dense" if "dense" in scores else "lower_lr"
    comparison = compare(scores, control="lower_lr", baseline=baseline, **options)
    return verdict(comparison, method, epochs=epochs, metric=metric)


def exact(differences, control=90.0):
    """A study of two methods with exactly these differences."""
    seeds = range(len(differences))
    return {
        "lower_lr": dict.fromkeys(seeds, control),
        "dsd": {s: control + differences[s] for s in seeds},
    }


def test_help_says_by_how_much_how_sure_and_at_what_cost():
    found = judged(exact([0.3, 0.5, 0.4, 0.6, 0.2, 0.4, 0.5, 0.3]))
    assert (found.outcome, found.cost, found.least_seeds) == ("helps", 1.0, 6)
    assert found.sentence == (
        "Dense-sparse-dense (dsd) helps: over 8 seeds its mean accuracy is 0.40 points higher than "
        "the matched control’s (lower_lr; 95 % interval 0.29 to 0.51 points higher; p = 0.0078), "
        "at the same 70 epochs."
    )


def test_the_answer_names_the_question_and_the_method():
    found = judged(exact([0.3, -0.2, 0.1, -0.1, 0.2, -0.3, 0.2, 0.0]))
    assert found.answer.startswith(
        "Does dense-sparse-dense (dsd) help here? Not measurably: over 8 seeds its mean accuracy"
    )


def test_lower_is_better_helps_by_falling():
    found = judged(
        exact([-0.3, -0.5, -0.4, -0.6, -0.2, -0.4, -0.5, -0.3]),
        metric="WER",
        higher_is_better=False,
    )
    assert found.sentence.startswith(
        "Dense-sparse-dense (dsd) helps: over 8 seeds its mean WER is 0.40 points lower than"
    )
    assert "(lower_lr; 95 % interval 0.29 to 0.51 points lower;" in found.sentence
    assert found.contrast.difference.mean == pytest.approx(0.4)


def test_harm_names_the_higher_cost():
    found = judged(
        exact([-0.3, -0.5, -0.4, -0.6, -0.2, -0.4, -0.5, -0.3]), epochs={"lower_lr": 70, "dsd": 98}
    )
    assert found.cost == pytest.approx(1.4)
    assert found.sentence.startswith(
        "Dense-sparse-dense (dsd) hurts: over 8 seeds its mean accuracy is 0.40 points lower than"
    )
    assert found.sentence.endswith(", at 1.4 times its epochs (98 against 70).")


def test_no_difference_says_what_is_still_possible_and_how_many_seeds_it_would_take():
    found = judged(exact([0.3, -0.2, 0.1, -0.1, 0.2, -0.3, 0.2, 0.0]))
    assert found.sentence == (
        "Dense-sparse-dense (dsd) makes no measurable difference: over 8 seeds its mean accuracy "
        "is 0.03 points higher than the matched control’s (lower_lr), but anything from "
        "0.15 points lower to 0.20 points higher fits these runs "
        "(95 % interval; p = 0.88), at the same 70 epochs. Were 0.03 points the true difference, a "
        "single comparison "
        "would need about 570 seeds to show it four times in five."
    )
    assert 565 <= found.contrast.difference.seeds_needed < 575


def test_a_difference_that_rounds_to_zero_asks_for_no_number_of_seeds():
    found = judged(exact([0.3, -0.2, 0.1, -0.1, 0.2, -0.3, 0.0, 0.02]))
    assert found.contrast.difference.seeds_needed > 10_000
    assert "would need about" not in found.sentence


def test_the_control_stands_beside_a_gain_over_dense():
    scores = study({"dense": -0.8, "lower_lr": 0, "dsd": 0.0})
    found = judged(scores)
    assert found.outcome == "no measurable difference"
    gain = compare(scores, control="lower_lr", baseline="dense").to_baseline
    own, control = (f"{gain[name].difference.mean:.2f}" for name in ("dsd", "lower_lr"))
    assert (
        f"Against dense training (dense), at 2.3 times its epochs (70 against 30), "
        f"it is {own} points higher (95 %" in found.sentence
    )
    assert found.sentence.endswith(
        f"; the matched control (lower_lr) alone is {control} points higher."
    )
    assert "Against dense" not in judged(scores, "dense").sentence


def test_too_few_seeds_refuse_a_verdict_and_say_how_many_to_run():
    found = judged(
        study({"dense": -0.8, "longer": 0, "lower_lr": 0, "random_dsd": 0, "dsd": 9}, seeds=3)
    )
    assert (found.outcome, found.least_seeds) == ("too few seeds", 8)
    assert found.sentence.startswith(
        "Too few seeds (3) for a verdict on dense-sparse-dense (dsd): even if every seed agreed, p "
        "could not fall below 0.25, or 1 with Holm's correction for 4 comparisons; run at least 8 "
        "seeds. So far, over 3 seeds its mean accuracy is "
    )


def test_five_seeds_can_never_reach_five_percent():
    found = judged(exact([0.3, 0.5, 0.4, 0.6, 0.2]))
    assert "Too few seeds (5)" in found.sentence
    assert "p could not fall below 0.062; run at least 6 seeds." in found.sentence


def test_doubts_are_voiced():
    same = judged(exact([0.5] * 8))
    assert same.sentence.endswith(
        "Every seed shows exactly the same difference: check that seed and method reach the run."
    )
    nothing = judged(exact([0.0] * 8))
    assert (
        nothing.outcome,
        "is equal to the matched control’s (lower_lr)" in nothing.sentence,
    ) == (
        "no measurable difference",
        True,
    )
    outlier = judged(exact([0.11, 0.12, 0.11, 0.13, 0.12, 0.11, 0.12, 9.0]))
    assert outlier.outcome == "helps"
    assert "1 of 8 differences lies far from the others" in outlier.sentence
    scores = exact([0.1, 0.3, 0.2, -0.04, 0.3, 0.2, 0.1, 0.2]) | {
        f"m{i}": dict.fromkeys(range(8), 90.0) for i in range(5)
    }
    borderline = judged(scores)
    assert borderline.sentence.startswith(
        "Dense-sparse-dense (dsd) may help, which these runs do not settle: "
    )
    assert borderline.short_answer.endswith("? Unclear so far")
    assert borderline.sentence.endswith(
        "but the corrected p does not pass: more seeds may settle it."
    )
    scores = exact([0.3, 0.5, 0.4, 0.6, 0.2, 0.4, 0.5, 0.3])
    del scores["dsd"][2]
    assert judged(scores).sentence.endswith("Left out, as only one of the two has them: seeds 2.")


def test_a_difference_of_which_only_the_corrected_p_fails_is_not_called_unmeasurable():
    scores = exact([0.1, 0.3, 0.2, -0.04, 0.3, 0.2, 0.1, 0.2]) | {
        f"m{i}": dict.fromkeys(range(8), 90.0) for i in range(5)
    }
    low, _ = judged(scores).contrast.difference.interval
    assert low > 0
    assert judged(scores).contrast.holm_p > 0.05
    assert "no measurable difference" not in judged(scores).sentence
    assert "Not measurably" not in judged(scores).answer


def test_a_method_of_the_users_own_goes_by_its_name():
    scores = exact([0.3, 0.5, 0.4, 0.6, 0.2, 0.4, 0.5, 0.3])
    scores["mine"] = scores.pop("dsd")
    found = judged(scores, "mine", epochs={"lower_lr": 70, "mine": 70})
    assert found.sentence.startswith("mine helps: ")
    assert found.short_answer == "Does mine help here? Yes"


def test_a_baseline_without_any_training_costs_nothing():
    scores = exact([0.3, 0.5, 0.4, 0.6, 0.2, 0.4, 0.5, 0.3]) | {
        "dense": dict.fromkeys(range(8), 89.0)
    }
    free = {"dense": 0, "lower_lr": 16, "dsd": 16}
    assert "Against dense training (dense), which trains no further, at 16 epochs" in (
        judged(scores, epochs=free).sentence
    )


def test_a_score_without_unit_reads_well():
    comparison = compare(
        exact([0.003] * 4 + [0.004] * 4, 0.5), control="lower_lr", baseline="lower_lr"
    )
    sentence = verdict(comparison, "dsd", epochs=EPOCHS, metric="BLEU", unit="").sentence
    assert (
        "its mean BLEU is 0.0035 higher than the matched control’s (lower_lr; 95 % interval "
        "0.0031 to 0.0039 higher;" in sentence
    )


def test_a_null_study_says_no_measurable_difference_and_picks_the_simplest():
    rng = np.random.default_rng(7)
    silent = simplest = 0
    for _ in range(200):
        scores = null_study(rng)
        silent += judged(scores).outcome not in ("helps", "hurts")
        simplest += best_method(scores, simplest_first=METHODS, epochs=EPOCHS).method == "dense"
    assert silent / 200 >= 0.95
    assert simplest / 200 >= 0.95


def chosen(effects, seeds=8, higher_is_better=True, metric="accuracy"):
    scores = study(effects, seeds)
    order = [method for method in METHODS if method in effects]
    return best_method(
        scores,
        simplest_first=order,
        epochs=EPOCHS,
        higher_is_better=higher_is_better,
        metric=metric,
    )


def test_a_clear_winner_is_picked():
    choice = chosen({"dense": -0.8, "lower_lr": 0, "dsd": 0.6})
    assert (choice.method, choice.candidates) == ("dsd", ("dsd",))
    assert choice.sentence.startswith(
        "Pick dense-sparse-dense (dsd), at 70 epochs: it has the highest mean accuracy, 93."
    )
    assert choice.sentence.endswith(
        ", and each of the other 2 is measurably worse "
        "(paired over the 8 seeds that all have, Holm's correction for 2 comparisons)."
    )


def test_where_the_best_mean_is_shared_the_simplest_is_picked():
    scores = exact([0.1, -0.1, 0.2, -0.05, 0.1, 0.0, -0.1, 0.1]) | {
        "dense": dict.fromkeys(range(8), 88.0)
    }
    choice = best_method(scores, simplest_first=("dense", "lower_lr", "dsd"), epochs=EPOCHS)
    assert (choice.method, choice.best_mean, choice.candidates) == (
        "lower_lr",
        "dsd",
        ("lower_lr", "dsd"),
    )
    assert choice.sentence.startswith(
        "Pick the matched control (lower_lr), at 70 epochs: dense-sparse-dense (dsd) has the "
        "highest mean accuracy, 90.03, but cannot be told from lower_lr (90.00), and "
        "lower_lr is the simplest of them"
    )
    reverse = best_method(scores, simplest_first=("dsd", "dense", "lower_lr"), epochs=EPOCHS)
    assert (reverse.method, reverse.candidates) == ("dsd", ("dsd", "lower_lr"))
    assert (
        "is simpler than what cannot be told from it, lower_lr (90.00) (paired" in reverse.sentence
    )


def test_the_lowest_is_best_where_lower_is_better():
    choice = chosen(
        {"dense": -0.8, "lower_lr": 0, "dsd": 0.6}, higher_is_better=False, metric="WER"
    )
    assert choice.method == "dense"
    assert "it has the lowest mean WER" in choice.sentence


def test_too_few_seeds_refuse_a_choice():
    choice = chosen({"dense": -0.8, "lower_lr": 0, "dsd": 3}, seeds=4)
    assert choice.method is None
    assert choice.sentence.startswith(
        "Too few seeds (4) to choose among 3 methods; run at least 7. So far "
        "dense-sparse-dense (dsd) has the"
    )
    assert choice.sentence.endswith(", which may be luck.")


def test_a_choice_uses_only_seeds_that_all_have():
    scores = study({"dense": 0, "lower_lr": 0, "dsd": 0}, seeds=9)
    scores["dsd"] |= {8: 1000.0}
    del scores["dense"][8]
    assert (
        "over the 8 seeds"
        in best_method(scores, simplest_first=("dense", "lower_lr", "dsd"), epochs=EPOCHS).sentence
    )


def test_the_true_best_of_equals_is_seldom_shut_out():
    rng = np.random.default_rng(8)
    out = 0
    for _ in range(200):
        scores = study({"dense": -2.0, "lower_lr": 0.0, "dsd": 0.0}, rng=rng)
        candidates = best_method(
            scores, simplest_first=("dense", "lower_lr", "dsd"), epochs=EPOCHS
        ).candidates
        assert "dense" not in candidates
        out += "dsd" not in candidates
    assert out / 200 <= 0.05


def test_errors_name_value_and_remedy():
    scores = exact([0.1, 0.2, 0.3])
    comparison = compare(scores, control="lower_lr", baseline="lower_lr")
    with pytest.raises(ValueError, match="no verdict on 'lower_lr': choose one of dsd"):
        verdict(comparison, "lower_lr", epochs=EPOCHS)
    with pytest.raises(
        ValueError, match=r"epochs\['dsd'\] must be at least 0, got None; a verdict names its cost"
    ):
        verdict(comparison, "dsd", epochs={"lower_lr": 70})
    with pytest.raises(
        ValueError, match="simplest_first must name lower_lr, dsd once each, got dsd"
    ):
        best_method(scores, simplest_first=["dsd"], epochs=EPOCHS)
    apart = {"a": {0: 1.0, 1: 2.0}, "b": {1: 1.0, 2: 2.0}}
    with pytest.raises(ValueError, match="all methods together share 1 seed,"):
        best_method(apart, simplest_first=["a", "b"], epochs={"a": 1, "b": 1})
