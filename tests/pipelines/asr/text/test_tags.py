"""Marks of transcribers: they go, the words between them stay."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "raw, wanted",
    [
        ("hello [laughter] <noise> there (unintelligible)", "hello there"),
        ("[laughter-really] yes", "really yes"),
        ("WELL <COMMA> YES <PERIOD>", "well yes"),
        ("<unk> word(2) %hesitation on", "word on"),
        ("((maybe)) so", "maybe so"),
        ("(he left) early", "he left early"),
        ("<i>so</i> {breath}", "so"),
        ("a < b > c", "a b c"),
        ("CHAPTER ONE", "chapter one"),
    ],
)
def test_transcribers_marks_go_and_words_stay(clean, raw, wanted):
    assert clean(raw) == wanted
