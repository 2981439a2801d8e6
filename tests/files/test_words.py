"""Words as people write them: tags, punctuation, quotation marks, apostrophes, joiners, forms."""

import unicodedata

import pytest

from redense.files.words import words
from redense.recipes.speech.alphabet import find_alphabet, normalize

PLAIN = {
    "एक कुत्ता दौड़ रहा है।": "एक कुत्ता दौड़ रहा है",
    "একটি কুকুর দৌড়াচ্ছে।": "একটি কুকুর দৌড়াচ্ছে",
    "كلب يركض، في الحديقة؟": "كلب يركض في الحديقة",
    "Ein „Hund“ läuft … ‚weg‘": "Ein Hund läuft weg",
    "¡Mira! ¿Un perro?": "Mira Un perro",
    "A dog runs… – fast": "A dog runs fast",
    "a man holds a ‘stop’ sign": "a man holds a stop sign",
    "say 'yes' or ``no''": "say yes or no",
    "he said 'go on, then' twice": "he said go on then twice",
    "ένας σκύλος· τρέχει;": "ένας σκύλος τρέχει",
    "«Un chien», dit-il ; ‹ami›": "Un chien dit-il ami",
    "「犬」が走る。": "犬 が走る",
    "an emoji 👨‍👩‍👧 is no word": "an emoji is no word",
    "$5 & 50% _off_ #1": "5 50 off 1",
}


@pytest.mark.parametrize("text", PLAIN)
def test_punctuation_of_every_script_is_no_word(text):
    assert words(text) == PLAIN[text].lower().split()


@pytest.mark.parametrize(
    "text",
    [
        "yes [noise] please",
        "yes <unk> please",
        "<SIL> yes please [background noise]",
        "yes {breath} please",
        "<b>yes</b> please",
    ],
)
def test_a_tag_is_no_word(text):
    assert words(text) == ["yes", "please"]


def test_less_than_is_no_tag():
    assert words("a < b and c > d") == ["a", "b", "and", "c", "d"]


@pytest.mark.parametrize("sign", "'’‘`´ʼʻ＇‛′ʹ")
def test_every_apostrophe_is_one(sign):
    assert words(f"don{sign}t") == ["don't"]


def test_one_word_in_three_spellings_has_one_alphabet():
    assert find_alphabet([normalize(text) for text in ("п'ять", "п’ять", "пʼять")]) == " 'птья"


@pytest.mark.parametrize(
    "text",
    [
        "'tis the dogs' bone",
        "'cause i'm smokin' now",
        "rock 'n' roll",
        "'t is zo'n ding",
        "the dogs' owner said 'tis so",
        "jack-o'-lantern",
    ],
)
def test_an_apostrophe_before_or_after_a_word_is_no_quotation(text):
    assert words(text) == text.split()
    assert words(text.replace("'", "’")) == text.split()


JOINED = {
    "\u0dc1\u0dca\u200d\u0dbb\u0dd3": "\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala: sri
    "\u0915\u094d\u200d\u0937": "\u0915\u094d\u200d\u0937",  # Devanagari: ksha
    "\u0d05\u0d35\u0d28\u0d4d\u200d": "\u0d05\u0d35\u0d28\u0d4d\u200d",  # Malayalam: a chillu
    "\u0645\u06cc\u200c\u0631\u0648\u062f": "\u0645\u06cc\u200c\u0631\u0648\u062f",  # Persian
    "\u0645\u06cc\u200c": "\u0645\u06cc",  # nothing is joined at the end
    "co\u00adoperate": "cooperate",
    "data\u2060base": "database",
    "data\ufeffbase": "database",
    "auf\u200clage": "auflage",
    "\u200ehello\u200f": "hello",
    "\u0643\u0640\u0640\u0644\u0628": "\u0643\u0644\u0628",  # Arabic, stretched
    "col·lecció": "col·lecció",
    "t\u2011shirt": "t-shirt",
}


@pytest.mark.parametrize("word", JOINED, ids=ascii)
def test_a_character_without_width_cuts_no_word(word):
    assert words(f"a {word} b") == ["a", JOINED[word], "b"]


def test_a_joiner_that_a_script_needs_is_in_its_alphabet():
    text = normalize("\u0dc1\u0dca\u200d\u0dbb\u0dd3")
    assert set(text) <= set(find_alphabet([text]))


@pytest.mark.parametrize(
    "text",
    [
        "con chó đang chạy trên bãi cỏ ướt",
        "un café près de la forêt",
        "EIN BÄR LÄUFT",
        "개가 달린다",
        "J\u030c",  # composed only when small
        "İstanbul",
    ],
)
def test_the_two_forms_of_a_letter_are_one(text):
    composed, apart = (words(unicodedata.normalize(form, text)) for form in ("NFC", "NFD"))
    assert composed == apart
    assert words(text.lower()) == composed


def test_what_is_normal_stays_as_it_is():
    for text in (*PLAIN, *JOINED, "it's 'tis", "a ‘b c’ d", "well-known"):
        assert normalize(normalize(text)) == normalize(text)


def test_a_compound_is_said_as_its_words():
    assert words("A well-known T-shirt -- thi-") == ["a", "well-known", "t-shirt", "thi"]
    assert normalize("A well-known T-shirt -- thi-") == "a well known t shirt thi"
