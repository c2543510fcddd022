"""Write text as phonemes (IPA with stress) with espeak-ng, keeping the punctuation of any script where it stands."""

from __future__ import annotations

import ctypes
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from colabkit.core.errors import UsageError
from colabkit.io.voices.espeak import espeak_library

_CHARS_UTF8, _IPA = 1, 0x02
_OTHER_LANGUAGE = re.compile(r"\([a-z][a-z-]*\)")  # espeak-ng marks words that it reads in another language
_MAYBE_MARKS, _DIGITS = re.compile(r"[^\w\s]|_"), re.compile(r"\d")
_INSIDE_WORDS = frozenset("'’‘ʼ-‐‑_״׳")  # apostrophes, hyphens and the Hebrew marks of abbreviations


def phonemize(texts: Sequence[str], language: str) -> list[str]:
    """Return the phonemes of each text, words apart by spaces, punctuation as in the text.

    `language` is espeak-ng's, as in "en-us", "ar", "fa", "he". Digits of any script are read out as numbers.
    Raises: UsageError for a language that espeak-ng does not have; StateError where its library is missing.
    """
    if not texts:
        return []
    with espeak_library() as library:
        if library.espeak_SetVoiceByName(language.encode("utf-8")) != 0:
            raise UsageError(
                "espeak-ng has no such language",
                got=language,
                expected="a code as en-us, ar, fa, he",
                where="pairs.language",
                fix="take a code of colabkit.io.voices.espeak.list_languages()",
            )
        speak = library.espeak_TextToPhonemes
        speak.restype = ctypes.c_char_p
        speak.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
        return [_phonemes(text, speak) for text in texts]


def _phonemes(text: str, speak: Any) -> str:
    parts = []
    for piece, is_marks in _pieces(_with_common_digits(text)):
        parts.append(piece if is_marks else _spoken(piece, speak))
    return re.sub(r"\s+", " ", "".join(parts)).strip()


def _spoken(piece: str, speak: Any) -> str:
    """Return the phonemes of words without punctuation, with the spaces around them."""
    body = piece.strip()
    if not body:
        return " "
    before, after = " " * (piece[0].isspace()), " " * (piece[-1].isspace())
    buffer = ctypes.create_string_buffer(body.encode("utf-8"))
    place = ctypes.c_void_p(ctypes.addressof(buffer))
    clauses = []
    while place.value:  # it moves on by a clause at a time
        found = speak(ctypes.byref(place), _CHARS_UTF8, _IPA)
        clauses.append((found or b"").decode("utf-8", "replace").strip())
    said = _OTHER_LANGUAGE.sub("", " ".join(clause for clause in clauses if clause))
    return before + said.strip() + after


def _pieces(text: str) -> list[tuple[str, bool]]:
    """Cut a text into words and runs of punctuation; marks between two letters or digits belong to their word."""
    pieces: list[tuple[str, bool]] = []
    start = 0
    for found in _MAYBE_MARKS.finditer(text):
        i = found.start()
        if not _is_mark(text, i):
            continue
        if start < i:
            pieces.append((text[start:i], False))
        if pieces and pieces[-1][1]:
            pieces[-1] = (pieces[-1][0] + text[i], True)
        else:
            pieces.append((text[i], True))
        start = i + 1
    return [*pieces, (text[start:], False)] if start < len(text) else pieces


def _is_mark(text: str, i: int) -> bool:
    """Tell whether a character is punctuation that stands between words."""
    c = text[i]
    if unicodedata.category(c)[0] != "P":
        return False
    inside = 0 < i < len(text) - 1 and text[i - 1].isalnum() and text[i + 1].isalnum()
    is_decimal = c in ".,٫٬" and inside and text[i - 1].isdigit() and text[i + 1].isdigit()
    return not (inside and c in _INSIDE_WORDS or is_decimal)


def _with_common_digits(text: str) -> str:
    """Return a text with the digits of all scripts as 0 to 9."""
    return _DIGITS.sub(lambda found: str(unicodedata.digit(found[0])), text)
