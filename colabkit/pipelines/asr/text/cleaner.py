"""Clean transcripts: one form of each character, one case, no marks that nobody speaks, numbers as words.

A text that is clean stays as it is: clean(clean(x)) == clean(x). What cannot be brought to what was spoken is refused
with a reason rather than guessed. Unicode: https://www.unicode.org/reports/tr15 (normal forms), SpecialCasing.txt
(case).
"""

from __future__ import annotations

import re
import unicodedata

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.asr.config import TextConfig
from colabkit.pipelines.asr.text.number_words import base_language
from colabkit.pipelines.asr.text.spoken import Speller
from colabkit.pipelines.asr.text.tags import drop_tags

_DOTTED_I = {"tr", "az", "kk", "kaa", "tt", "crh", "gag"}  # whose Latin script tells i from ı
_JOINERS = {"fa": "\u200c", "si": "\u200d"}  # which joiner is part of the spelling
_TURNED, _MODIFIER = "\u02bb", "\u02bc"  # ʻ and ʼ
_LETTER_APOSTROPHES = {"uz", "kaa"}  # oʻ, gʻ and maʼno: the mark is a letter of the alphabet
_OKINA = {"haw", "sm", "to", "ty"}
_APOSTROPHES = "'’‘‛ʼʻʽʹˈ′`´＇ʾʿꞌ᾽᾿׳"
_DOUBLE_QUOTES = "“”„‟«»″〝〞＂״"
_DASHES = "‐‑‒–—―−﹘﹣－⁃־〜～"
_SLASHES = "⁄∕／"
_INNER_DOTS = {"ca": "·"}  # Catalan col·lecció
_NO_CAPITALS = range(0x10D0, 0x1100)  # Georgian has capitals in Unicode, but not in sentences
_MARKS_APART = "\u0e33\u0eb3"  # Thai and Lao am: their compatibility form is not how they are written
_POINTS = {".": "\ue000", ",": "\ue001"}  # stand for those inside numbers while others are dropped
_BACK = {ord(held): point for point, held in _POINTS.items()}
_DIGIT = re.compile(
    "[\\d\u1369-\u1371\u19da\u24f5-\u24ff\u2776-\u2793\U00010a40-\U00010a43\U00010e60-\U00010e68"
    # with those that have no decimal place, as in Ethiopic
    "\U00011052-\U0001105a\U0001f10b\U0001f10c]"
)
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_EDGE_APOSTROPHE = re.compile(r"(?<![A-Za-z0-9])'|'(?![A-Za-z0-9])")
_MOST_PASSES = 6


class UnusableTextError(DataError):
    """A transcript that cannot be used.

    `reason` is the same for all transcripts of its kind, `got` is what this one said.
    """

    def __init__(
        self,
        reason: str,
        *,
        got: object = None,
        expected: str = "",
        where: object = "",
        fix: str = "correct the transcript; while it stays so, the sample is left aside",
    ):
        super().__init__(reason, got=got, expected=expected, where=where, fix=fix)
        self.reason = reason


class Cleaner:
    """Cleans transcripts as a TextConfig says.

    Safe for many threads. Raises: UsageError for characters that cannot be kept.
    """

    def __init__(self, config: TextConfig):
        if "|" in config.keep or any(c.isspace() for c in config.keep):
            raise UsageError(
                "This character cannot be kept",
                got=config.keep,
                expected="neither | nor white space",
                where="text.keep",
                fix="leave it out: | stands between words in the vocabulary",
            )
        self.config = config
        self.speller = Speller(config.language)
        self.language = base_language(config.language)
        self.joiner = _JOINERS.get(self.language, "")
        modifiers = _TURNED + _MODIFIER if self.language in _LETTER_APOSTROPHES | _OKINA else ""
        keep = unicodedata.normalize("NFC", config.keep)
        self._unify = _Unified(keep + self.joiner + modifiers)
        self._drop = _Dropped(keep + self.joiner + _INNER_DOTS.get(self.language, "") + "'" + "".join(_POINTS.values()))
        # A text of these alone is clean, whatever the language: no look at its single characters is needed.
        letters = {"lower": "a-z", "upper": "A-Z", "keep": "A-Za-z"}[config.case]
        word = rf"[{letters}]+(?:'[{letters}]+)*"
        special = self.language in _DOTTED_I | _LETTER_APOSTROPHES | _OKINA
        apart = r"(?!.*\bn't\b)" if self.language == "en" else ""
        self._plain = re.compile(rf"[{letters}]+(?: [{letters}]+)*" if special else rf"{apart}{word}(?: {word})*")

    @property
    def choices(self) -> list[tuple[str, object, str]]:
        """Return what was chosen without being asked for, as (name, value, reason)."""
        if self.config.digits == "spell" and not self.speller.knows_numbers:
            return [
                (
                    "text.digits",
                    "refuse",
                    f"no number words are known for the language {self.config.language!r}: samples "
                    "with digits are left aside",
                )
            ]
        return []

    def clean(self, raw: str) -> str:
        """Return the clean text.

        Raises: UnusableTextError where nothing is left, or nobody can tell what was spoken.
        """
        text = raw
        for _ in range(_MOST_PASSES):
            if self._plain.fullmatch(text):
                return text
            cleaned = self._pass(text)
            if cleaned == text:
                return text
            text = cleaned
        raise UnusableTextError("cleaning its transcript comes to no end", got=raw)

    def _pass(self, text: str) -> str:
        if not text.strip():
            raise UnusableTextError("its transcript is empty")
        text = drop_tags(unicodedata.normalize("NFC", text))
        text = self.speller.join_groups(text)  # while no-break spaces can still be told from others
        text = unicodedata.normalize("NFC", self._letter_apostrophes(text).translate(self._unify))
        text = self._case(self._numbers(text))
        if self.config.punctuation == "drop":
            text = self._without_punctuation(text)
        if not text.replace(" ", "").replace("'", "").isalpha():  # no mark is a letter
            text = self._without_stray_marks(text)
        text = " ".join(text.split())
        if not _LETTER_OR_DIGIT.search(text):
            raise UnusableTextError("nothing is left of its transcript after cleaning")
        return text

    def _letter_apostrophes(self, text: str) -> str:
        """Give the apostrophe one form where it is a letter of the language, whichever of its many forms was typed."""
        if self.language in _OKINA:
            return re.sub(rf"[{_APOSTROPHES}](?=[^\W\d_])", _TURNED, text)
        if self.language in _LETTER_APOSTROPHES:
            text = re.sub(rf"(?<=[oOgG])[{_APOSTROPHES}]", _TURNED, text)
            return re.sub(rf"(?<=[^\W\d_])[{_APOSTROPHES.replace(_TURNED, '')}](?=[^\W\d_])", _MODIFIER, text)
        return text

    def _numbers(self, text: str) -> str:
        text = self.speller.spell_and(text)
        has_digits = _DIGIT.search(text) is not None
        if has_digits and self.config.digits == "keep":
            return self.speller.normalise(text)
        if has_digits and self.config.digits == "refuse":
            raise UnusableTextError("its transcript holds digits", got=text)
        if has_digits and not self.speller.knows_numbers:
            raise UnusableTextError(
                f"its transcript holds digits, and no number words are known for {self.config.language!r}", got=text
            )
        try:
            return self.speller.spell(text) if has_digits else text
        except ValueError as error:
            raise UnusableTextError(str(error), got=text) from error

    def _case(self, text: str) -> str:
        dotted = self.language in _DOTTED_I
        if self.config.case == "lower":
            text = (text.replace("I", "ı") if dotted else text).replace("İ", "i").lower()
            if "σ" in text or "ς" in text:
                text = re.sub(r"(?<=\w)σ(?!['\u0300-\u036f]*\w)", "ς", text.replace("ς", "σ"))
        elif self.config.case == "upper":
            text = (text.replace("i", "İ") if dotted else text).replace("ß", "ẞ")  # not SS, which cannot be read back
            text = (
                "".join(c if ord(c) in _NO_CAPITALS else c.upper() for c in text)
                if not text.isascii()
                else text.upper()
            )
        return unicodedata.normalize("NFC", text)

    def _without_punctuation(self, text: str) -> str:
        text = re.sub(r"(?<=\d)[.,](?=\d)", lambda m: _POINTS[m[0]], text)
        text = text.translate(self._drop)
        if "'" in text and "'" not in self.config.keep:
            if self.language == "en":  # as in "it 's" of some corpora
                text = re.sub(r"(?<=[a-z]) +(?=(?:'(?:s|t|re|ve|ll|d|m)|n't)\b)", "", text, flags=re.IGNORECASE)
            text = re.sub("'{2,}", " ", text)
            text = (
                _EDGE_APOSTROPHE.sub("", text)
                if text.isascii()
                else "".join(c for i, c in enumerate(text) if c != "'" or _is_inside(text, i))
            )
        return text.translate(_BACK)

    def _without_stray_marks(self, text: str) -> str:
        """Drop combining marks with no letter below them, and joiners that join nothing."""
        text = "".join(
            c for i, c in enumerate(text) if unicodedata.category(c)[0] != "M" or (i and _is_letter(text[i - 1]))
        )
        if self.joiner:
            text = re.sub(f"{self.joiner}+", self.joiner, text)
            text = "".join(c for i, c in enumerate(text) if c != self.joiner or _is_inside(text, i))
        return text


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" or character in "\u200c\u200d"


def _is_inside(text: str, i: int) -> bool:
    """Say whether a letter stands on both sides."""
    if not 0 < i < len(text) - 1:
        return False
    return unicodedata.category(text[i - 1])[0] in "LMN" and unicodedata.category(text[i + 1])[0] in "LN"


class _Table(dict):
    """What becomes of each character, found out when it is first met; for str.translate."""

    def __init__(self, keep: str):
        super().__init__()
        self.keep = keep

    def __missing__(self, code: int) -> str:
        self[code] = found = self.find(chr(code))
        return found


class _Unified(_Table):
    """One form for each character. What nobody sees goes."""

    def find(self, character: str) -> str:
        if character in self.keep:
            return character
        for forms, one in ((_APOSTROPHES, "'"), (_DOUBLE_QUOTES, '"'), (_DASHES, "-"), (_SLASHES, "/"), ("|_", " ")):
            if character in forms:
                return one
        if character.isdecimal():
            return str(unicodedata.decimal(character))
        folded = _fold(character)
        if folded != character:
            return "".join(self[ord(c)] for c in folded)
        kind = unicodedata.category(character)
        if kind in ("Cc", "Zs", "Zl", "Zp"):
            return " "
        invisible = kind[0] == "C" or kind in ("Me", "Sk") or 0xFE00 <= ord(character) <= 0xFE0F
        return "" if invisible or character == "\u0640" else character  # tatweel only stretches a line of Arabic


class _Dropped(_Table):
    """A space for each mark and sign that nobody speaks; after _Unified."""

    def find(self, character: str) -> str:
        return character if character in self.keep or unicodedata.category(character)[0] in "LMN" else " "


def _fold(character: str) -> str:
    """Return the usual form of a full-width letter, ligature, presentation form, superscript or fraction."""
    if not unicodedata.decomposition(character).startswith("<") or character in _MARKS_APART:
        return character
    if 0x3131 <= ord(character) <= 0x318E:  # single Korean letters, which would become parts of syllables
        return character
    folded = unicodedata.normalize("NFKC", character)
    return " " if folded.startswith(" ") else folded  # a spacing accent stands for no letter
