"""Number words: of num2words by any name of a language, of our own tables, and what is not known refused."""

from __future__ import annotations

import pytest

from colabkit.pipelines.asr.text.number_words import number_words

LARGEST = "doqquz yüz doxsan doqquz"


@pytest.mark.parametrize(
    "language, number, kind, wanted",
    [
        ("en", 21, "ordinal", "twenty-first"),
        ("en", 1999, "year", "nineteen ninety-nine"),
        ("en", -5, "cardinal", "minus five"),
        ("pt-BR", 21, "cardinal", "vinte e um"),
        ("pt_br", 100, "cardinal", "cem"),
        ("nb", 21, "cardinal", "tjueen"),
        ("iw", 1, "cardinal", "אחת"),
        ("sv", 1000, "cardinal", "ettusen"),
        ("tr", 0, "cardinal", "sıfır"),
        ("tr", 1100, "cardinal", "bin yüz"),
        ("uz", 1100, "cardinal", "bir ming bir yuz"),
        ("kaa", 2_000_001, "cardinal", "eki million bir"),
        ("az", 999_999_999_999, "cardinal", f"{LARGEST} milyard {LARGEST} milyon {LARGEST} min {LARGEST}"),
    ],
)
def test_words_of_a_language(language, number, kind, wanted):
    assert number_words(language)(number, kind) == wanted


@pytest.mark.parametrize("language", ["hi", "xx", ""])
def test_a_language_nobody_counts_in_is_none(language):
    assert number_words(language) is None


@pytest.mark.parametrize(
    "language, number, kind",
    [
        ("kaa", 3, "ordinal"),
        ("uz", -1, "cardinal"),
        ("tr", 10**12, "cardinal"),
        ("en", -1, "ordinal"),
        ("kk", 3, "ordinal"),
    ],
)
def test_what_has_no_words_is_a_value_error_that_names_the_kind(language, number, kind):
    with pytest.raises(ValueError, match=f"{kind} words are not known"):
        number_words(language)(number, kind)
