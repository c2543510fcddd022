"""Texts of many scripts: what is cleaned, what stays, what is left aside and why."""

from __future__ import annotations

import pytest

from colabkit.pipelines.dataset.pairs.spoken_text import TextRules, clean_text, ends_sentence


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("  two   words\n next ", "two words next"),
        ("مرحـــبا، كيف حالك؟", "مرحبا، كيف حالك؟"),
        ("قال\u200f: «نعم»\u202c؛", "قال: «نعم»؛"),
        ("می\u200cروم", "می\u200cروم"),
        ("\u202bשלום\u202c, עולם!", "שלום, עולם!"),
        ("e\u0301te\u0301", "été"),
        ("a\u00adb\ufeff", "ab"),
        ("עו״ד כהן׳", "עו״ד כהן׳"),
        ("٣ كتب", "٣ كتب"),
        ("x\u00a0y", "x y"),
    ],
)
def test_what_is_cleaned(text, wanted):
    assert clean_text(text) == (wanted, "")


def test_vowel_signs_are_removed_where_wished_and_letters_stay():
    rules = TextRules(diacritics="remove")
    assert clean_text("كَتَبَ", rules)[0] == "كتب" and clean_text("שָׁלוֹם", rules)[0] == "שלום"
    assert clean_text("été naïve", rules)[0] == "été naïve" and clean_text("أَنا آخر", rules)[0] == "أنا آخر"
    assert clean_text("كَتَبَ")[0] == "كَتَبَ"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no text"),
        (" \u200f \u0640 ", "no text"),
        ("123", "too few letters"),
        ("…؟", "too few letters"),
        ("see https://a.b", "internet"),
        ("me@example.org", "internet"),
        ("a \N{BEAMED EIGHTH NOTES} b", "symbols"),
        ("\N{GRINNING FACE} hello", "symbols"),
        ("bro\ufffdken", "characters"),
        ("a\ue000", "characters"),
    ],
)
def test_what_is_left_aside(text, reason):
    cleaned, why = clean_text(text)
    assert cleaned == "" and reason in why


@pytest.mark.parametrize("text", ["١٢ كتابا", "5 books", "۴ نفر", "½ cup"])
def test_digits_of_every_script(text):
    assert clean_text(text)[1] == "" and clean_text(text, TextRules(digits="leave_out"))[1] == "digits"


@pytest.mark.parametrize(
    "text, ends",
    [
        ("نعم؟", True),
        ("خوب است.", True),
        ("ٹھیک ہے۔", True),
        ("(yes!)", True),
        ("«نعم.»", True),
        ("你好。", True),
        ("नमस्ते।", True),
        ("well…", True),
        ("no end", False),
        ("نعم،", False),
        ("نعم؛", False),
        ("", False),
    ],
)
def test_ends_of_sentences(text, ends):
    assert ends_sentence(text) == ends
    assert (clean_text(text, TextRules(needs_sentence_end=True))[1] == "") == ends
