"""Digits and signs as they are spoken: years, decimals, ordinals, percent and money.

What has several readings is refused.
"""

from __future__ import annotations

import re

from colabkit.pipelines.asr.text.number_words import base_language, number_words

# 3.14 and 1,000; others 3,14 and 1.000
_POINT_FIRST = {"en", "ja", "ko", "zh", "th", "te", "kn", "bn", "he", "hi", "cy", "am"}
_LAKHS = {"hi", "bn", "te", "kn"}  # 1,00,000
_POINT_WORDS = {
    "en": "point",
    "de": "Komma",
    "fr": "virgule",
    "es": "coma",
    "it": "virgola",
    "pt": "vírgula",
    "nl": "komma",
    "sv": "komma",
    "da": "komma",
    "no": "komma",
    "fi": "pilkku",
    "tr": "virgül",
    "az": "vergül",
    "ca": "coma",
    "ro": "virgulă",
    "id": "koma",
}
_AND = {
    "en": "and",
    "de": "und",
    "fr": "et",
    "es": "y",
    "it": "e",
    "pt": "e",
    "nl": "en",
    "tr": "ve",
    "ru": "и",
    "sv": "och",
    "da": "og",
    "no": "og",
    "fi": "ja",
    "ca": "i",
    "pl": "i",
    "cs": "a",
    "ro": "și",
}
_PERCENT = {
    "en": "percent",
    "de": "Prozent",
    "fr": "pour cent",
    "es": "por ciento",
    "it": "per cento",
    "pt": "por cento",
    "nl": "procent",
    "sv": "procent",
    "da": "procent",
    "no": "prosent",
    "ca": "per cent",
}
_PERCENT_FIRST = {"tr": "yüzde"}
_MONEY = {
    "en": {"$": ("dollar", "dollars"), "€": ("euro", "euros"), "£": ("pound", "pounds")},
    "de": {"$": ("Dollar", "Dollar"), "€": ("Euro", "Euro"), "£": ("Pfund", "Pfund")},
    "fr": {"$": ("dollar", "dollars"), "€": ("euro", "euros"), "£": ("livre", "livres")},
    "es": {"$": ("dólar", "dólares"), "€": ("euro", "euros"), "£": ("libra", "libras")},
    "it": {"$": ("dollaro", "dollari"), "€": ("euro", "euro"), "£": ("sterlina", "sterline")},
    "pt": {"$": ("dólar", "dólares"), "€": ("euro", "euros"), "£": ("libra", "libras")},
    "nl": {"$": ("dollar", "dollar"), "€": ("euro", "euro"), "£": ("pond", "pond")},
}
_LARGE = r"(?: (?:hundred|thousand|million|billion|trillion))?"  # $3 million: the name of the money comes behind it
_ORDINALS = {
    "en": r"st|nd|rd|th",
    "fr": r"ers?|[eè]res?|res?|[eè]mes?|es?|nde?s?",
    "es": r"o|a|er|ro|ra|do|da|to|ta|mo|ma|vo|va|no|na",
    "it": r"o|a",
    "pt": r"o|a",
    "nl": r"de|ste|e",
    "sv": r":[ae]",
}
_POINTED_ORDINALS = {"tr", "az", "pl", "cs", "sk", "sl", "hr", "sr", "et", "lv", "lt", "hu", "fi", "is", "no", "da"}
_HYPHENED_ORDINALS = {"ru", "uk", "be", "bg"}
_INFLECTED = "it holds an ordinal in digits, whose form depends on the sentence"
_MONTHS = r"Jan|Feb|März|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez"
_GERMAN = re.compile(rf"(\w+ )?\b(\d{{1,2}})\. ?(?={_MONTHS}|[a-zäöü])")
_TO_THE = {"am", "vom", "zum", "dem", "den", "des", "im", "beim"}
_YEARS = {"en", "de", "nl"}  # that read 1999 otherwise than 999
_NUMBER = re.compile(r"(?P<before>[$€£])? ?(?P<minus>(?<![^\s$€£])-)?(?P<number>\d(?:[\d/:.,'-]*\d)?)")
_MOST_DIGITS = 9  # longer ones are read digit by digit, as telephone numbers are


class Speller:
    """Writes numbers of one language as words."""

    def __init__(self, language: str):
        base = base_language(language)
        self.language = "no" if base in ("nb", "nn") else base
        self._words = number_words(language)
        point_first = self.language in _POINT_FIRST
        self._group, self._point = (",", ".") if point_first else (".", ",")
        inner = r"(?:,\d{2,3})*,\d{3}" if self.language in _LAKHS else rf"(?:[{self._group}']\d{{3}})+"
        self._grouped = re.compile(rf"(?<![\d.,])[1-9]\d{{0,2}}{inner}(?!\d)")

    @property
    def knows_numbers(self) -> bool:
        return self._words is not None

    def join_groups(self, text: str) -> str:
        """Take no-break spaces out of numbers, as in 1 000."""
        return re.sub("(?<=\\d)[\u00a0\u202f\u2009](?=\\d{3}(?!\\d))", "", text)

    def normalise(self, text: str) -> str:
        """Return the text with digits, without what groups them: 1,000 is 1000."""
        return self._grouped.sub(lambda m: re.sub(r"\D", "", m[0]), text)

    def spell_and(self, text: str) -> str:
        """Return the text with the word for &, where the language's is known."""
        return text.replace("&", f" {_AND[self.language]} ") if "&" in text and self.language in _AND else text

    def spell(self, text: str) -> str:
        """Return the text with numbers and their signs as words. Raises: ValueError with why they cannot be known."""
        text = self._ordinals_with_points(self.normalise(text))
        done, place = [], 0
        for match in _NUMBER.finditer(text):
            if match.start() < place:  # what follows a number was taken with it
                continue
            stop, words = self._read(text, match)
            start = match.start(next(name for name in ("before", "minus", "number") if match[name]))
            done += [
                text[place:start],
                " " if start and text[start - 1].isalnum() else "",
                words,
                " " if stop < len(text) and text[stop].isalnum() else "",
            ]
            place = stop
        spelled = "".join([*done, text[place:]])
        if any(c.isdigit() for c in spelled):
            raise ValueError("it holds digits of a kind that cannot be spelt out")
        return spelled

    def _read(self, text: str, match: re.Match) -> tuple[int, str]:
        """Return where the number with all that belongs to it ends, and its words."""
        number, stop = match["number"], match.end()
        whole, point, part = number.partition(self._point)
        if time := re.fullmatch(r"(\d{1,2}):(\d\d)", number):
            return stop, self._time(int(time[1]), time[2])
        if not whole.isdigit() or (point and not part.isdigit()):
            raise ValueError("it holds numbers joined by a sign, which may be read in several ways")
        if not point:
            if decade := re.compile(r"s\b").match(text, stop):
                if self.language == "en" and number.endswith("0"):
                    return decade.end(), self._decade(int(number))
            if ordinal := self._ordinal_suffix(text, stop, number):
                return ordinal
        words = self._cardinal(whole)
        if point:
            words = f"{words} {self._point_word()} {self._single(part)}"
        if match["minus"]:
            words = f"{self._words(-1, 'cardinal').split()[0]} {words}"
        return self._with_sign(text, stop, words, match["before"], number)

    def _with_sign(self, text: str, stop: int, words: str, before: str | None, number: str) -> tuple[int, str]:
        after = re.compile(r" ?([%$€£])").match(text, stop)
        sign = before or (after and after[1])
        if not sign:
            return stop, words
        stop = after.end() if after and not before else stop
        if sign == "%" and self.language in _PERCENT_FIRST:
            return stop, f"{_PERCENT_FIRST[self.language]} {words}"
        if sign == "%" and self.language in _PERCENT:
            return stop, f"{words} {_PERCENT[self.language]}"
        names = _MONEY.get(self.language, {}).get(sign)
        large = re.compile(_LARGE).match(text, stop) if self.language == "en" else None
        if names is None or (not number.isdigit() and not (large and large[0])):
            raise ValueError(f"it holds a sign whose spoken form is not known: {sign}")
        if large and large[0]:
            return large.end(), f"{words}{large[0]} {names[1]}"
        return stop, f"{words} {names[0] if number == '1' else names[1]}"

    def _cardinal(self, digits: str) -> str:
        if len(digits) > _MOST_DIGITS or (digits[0] == "0" and len(digits) > 1):
            return self._single(digits)
        number = int(digits)
        if self.language in _YEARS and len(digits) == 4 and (1100 <= number < 2000 or 2010 <= number < 2100):
            return self._words(number, "year")
        return self._words(number, "cardinal")

    def _single(self, digits: str) -> str:
        return " ".join(self._words(int(d), "cardinal") for d in digits)

    def _point_word(self) -> str:
        if self.language not in _POINT_WORDS:
            raise ValueError("it holds a decimal number, whose reading is not known in this language")
        return _POINT_WORDS[self.language]

    def _time(self, hours: int, minutes: str) -> str:
        if self.language != "en" or hours > 24 or int(minutes) > 59:
            raise ValueError("it holds a time of day in digits, which may be read in several ways")
        hour, minute = (self._words(int(number), "cardinal") for number in (hours, minutes))
        if minutes == "00":
            return f"{hour} o'clock"
        return f"{hour} oh {minute}" if minutes[0] == "0" else f"{hour} {minute}"

    def _decade(self, number: int) -> str:
        words = self._words(number, "year" if 1100 <= number < 2100 else "cardinal")
        return words[:-1] + "ies" if words.endswith("y") else words + "s"

    def _ordinal_suffix(self, text: str, stop: int, number: str) -> tuple[int, str] | None:
        if self.language in _HYPHENED_ORDINALS and re.compile(r"-\w{1,3}\b").match(text, stop):
            raise ValueError(_INFLECTED)
        if (
            self.language in _POINTED_ORDINALS
            and (found := re.compile(r"\. ?(\w)").match(text, stop))
            and found[1].islower()
        ):
            raise ValueError(_INFLECTED)
        suffix = (
            re.compile(rf"({_ORDINALS[self.language]})\b").match(text, stop) if self.language in _ORDINALS else None
        )
        if suffix is None:
            return None
        words = self._words(int(number), "ordinal")
        ending = suffix[1]
        if self.language == "fr" and number == "1" and ending.rstrip("s").endswith("re"):
            words = "première"
        elif self.language in ("es", "it", "pt") and ending.endswith("a"):
            words = " ".join(w[:-1] + "a" if w.endswith("o") else w for w in words.split())
        elif self.language == "es" and ending == "er":
            words = words.removesuffix("o")
        return suffix.end(), words

    def _ordinals_with_points(self, text: str) -> str:
        """German: am 3. Mai is am dritten Mai."""
        if self.language != "de":
            return text

        def read(match: re.Match) -> str:
            before = match[1] or ""
            ending = "n" if before.strip().lower() in _TO_THE else ""
            return f"{before}{self._words(int(match[2]), 'ordinal')}{ending} "

        return _GERMAN.sub(read, text)
