"""Phonemes of several languages with the punctuation of their scripts."""

from __future__ import annotations

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.voices.phonemes import phonemize


def test_english_and_its_marks():
    assert phonemize(["Hello, world!", "Well-known — it's 3.5?", ""], "en-us") == [
        "həlˈoʊ, wˈɜːld!",
        "wˈɛlnˈoʊn — ɪts θɹˈiː pɔɪnt fˈaɪv?",
        "",
    ]


@pytest.mark.parametrize(
    "language, text, marks",
    [
        ("ar", "مرحبا، كيف حالك؟ نعم؛ شكرا.", "،؟؛."),
        ("fa", "سلام، خوبی؟ می\u200cروم.", "،؟."),
        ("he", "שלום, מה שלומך?", ",?"),
        ("ar", "قال: «نعم»", ":«»"),
        ("de", "„Ja“, sagt er …", "„“,…"),
    ],
)
def test_marks_stay_where_they_stand_and_letters_become_sounds(language, text, marks):
    [said] = phonemize([text], language)
    assert [c for c in said if c in "،؟؛.:«»,?„“…"] == list(marks)
    assert not any("\u0590" <= c <= "\u06ff" and c not in "،؟؛" for c in said) and len(said) > len(text) / 2


def test_digits_of_any_script_are_read_out():
    assert phonemize(["عندي ٣ كتب"], "ar") == phonemize(["عندي 3 كتب"], "ar") != phonemize(["عندي كتب"], "ar")


def test_words_of_another_language_leave_no_marks():
    [said] = phonemize(["أنا أحب Google جدا"], "ar")
    assert "(" not in said and ")" not in said


def test_order_of_calls_changes_nothing_and_a_language_that_is_none_is_told():
    texts = ["one two three", "four."]
    assert phonemize(texts, "en-us") == [phonemize([t], "en-us")[0] for t in texts]
    with pytest.raises(UsageError, match="no such language"):
        phonemize(["x"], "zz-zz")
    assert phonemize([], "zz-zz") == []
