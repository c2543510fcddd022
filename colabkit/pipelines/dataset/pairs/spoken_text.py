"""Transcripts made fit for training in any script, right-to-left included: by what Unicode says of each character."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_TATWEEL = "\N{ARABIC TATWEEL}"  # stretches a word on paper and has no sound
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # part of how Persian and Indic words are written
_ADDRESS = re.compile(r"https?://|www\.|\S+@\S+\.\w", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
# Sentence_Terminal of Unicode's PropList.txt, of the scripts in use, and the ellipsis.
SENTENCE_ENDS = frozenset(".!?…؟۔؝؞։።፧।॥။।។៕‼‽⁇⁈⁉。！？｡．꓿߹׃")
_CLOSING = ("Pe", "Pf", "Pi", "Po")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRules:
    """Which transcripts are used.

    diacritics "remove": vowel signs of Arabic and Hebrew go; Latin accents are letters and stay.
    digits "leave_out": texts with digits of any script are left aside, as they may be spoken in several ways.
    """

    diacritics: str = "keep"  # or "remove"
    digits: str = "keep"  # or "leave_out"
    needs_sentence_end: bool = False
    fewest_letters: int = 1


def clean_text(text: str, rules: TextRules = TextRules()) -> tuple[str, str]:
    """Return the text and "", or "" and why it is not used.

    Composed (NFC); without direction marks and other invisible characters, tatweel and line breaks. Punctuation of any
    script stays.
    """
    text = unicodedata.normalize("NFC", text).replace(_TATWEEL, "")
    if rules.diacritics == "remove":
        text = _without_vowel_signs(text)
    unseen = {
        ord(c): " " if c.isspace() else None
        for c in set(text)
        if unicodedata.category(c) in ("Cf", "Cc", "Zl", "Zp") and c not in _JOINERS
    }
    text = _SPACES.sub(" ", text.translate(unseen)).strip().strip(_JOINERS)
    if not text:
        return "", "no text"
    kinds = {c: unicodedata.category(c) for c in set(text)}
    if "�" in text or not {"Co", "Cn", "Cs"}.isdisjoint(kinds.values()):
        return "", "characters that are none"
    if _ADDRESS.search(text):
        return "", "an address of the internet"
    if sum(kinds[c][0] == "L" for c in text) < rules.fewest_letters:
        return "", "too few letters"
    if not {"So", "Sk"}.isdisjoint(kinds.values()):
        return "", "symbols that nobody speaks"
    if rules.digits == "leave_out" and any(kind[0] == "N" for kind in kinds.values()):
        return "", "digits"
    if rules.needs_sentence_end and not ends_sentence(text):
        return "", "no end of a sentence"
    return text, ""


def ends_sentence(text: str) -> bool:
    """Tell whether a text ends as a sentence does in its script; quotes and brackets may follow."""
    for c in reversed(text):
        if c in SENTENCE_ENDS:
            return True
        if unicodedata.category(c) not in _CLOSING:
            return False
    return False


def _without_vowel_signs(text: str) -> str:
    """Return a text without the marks Arabic and Hebrew set above and below letters; the letters' own dots stay."""

    def is_sign(c: str) -> bool:
        return unicodedata.category(c) == "Mn" and (unicodedata.name(c, "").startswith(("ARABIC", "HEBREW")))

    return "".join(c for c in text if not is_sign(c))
