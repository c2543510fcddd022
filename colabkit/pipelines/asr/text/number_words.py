"""Number words of a language: by num2words, and own tables where it lacks the language or writes all as one word."""

from __future__ import annotations

from collections.abc import Callable

# Regular languages: units, tens, hundred, thousand, million, milliard.
_TABLES = {
    "tr": (
        "sıfır bir iki üç dört beş altı yedi sekiz dokuz",
        "on yirmi otuz kırk elli altmış yetmiş seksen doksan",
        "yüz bin milyon milyar",
    ),
    "az": (
        "sıfır bir iki üç dörd beş altı yeddi səkkiz doqquz",
        "on iyirmi otuz qırx əlli altmış yetmiş səksən doxsan",
        "yüz min milyon milyard",
    ),
    "kaa": (
        "nol bir eki úsh tórt bes altı jeti segiz toǵız",
        "on jigirma otız qırıq eliw alpıs jetpis seksen toqsan",
        "júz mıń million milliard",
    ),
    "uz": (
        "nol bir ikki uch toʻrt besh olti yetti sakkiz toʻqqiz",
        "oʻn yigirma oʻttiz qirq ellik oltmish yetmish sakson toʻqson",
        "yuz ming million milliard",
    ),
}
_ONE_FIRST = {"uz"}  # "bir yuz", where the others say "hundred"
_NAMES = {"kk": "kz", "nb": "no", "nn": "no", "iw": "he"}  # what num2words calls them


def base_language(language: str) -> str:
    """Return the language of a code without region or script: "pt" of "pt-BR" or "pt_br"."""
    return language.replace("_", "-").partition("-")[0].lower()


def number_words(language: str) -> Callable[[int, str], str] | None:
    """Return words(number, kind), kind "cardinal", "ordinal" or "year", for a language as in "en" or "pt-BR", or None.

    The function raises ValueError for a kind or number that the language's words are not known for.
    """
    base = base_language(language)
    if base in _TABLES:
        return lambda number, kind: _regular(base, number, kind)
    from num2words import CONVERTER_CLASSES, num2words

    known = {name.lower(): name for name in CONVERTER_CLASSES}
    name = known.get(language.replace("-", "_").lower()) or known.get(base) or known.get(_NAMES.get(base, ""))
    if name is None:
        return None

    def words(number: int, kind: str) -> str:
        try:
            found = num2words(number, lang=name, to=kind)
        except (
            NotImplementedError,
            ValueError,
            IndexError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
        ) as error:
            # its converters raise all these
            raise ValueError(f"it holds a number whose {kind} words are not known") from error
        if not found.strip():
            raise ValueError(f"it holds a number whose {kind} words are not known")
        return found.replace(",", "").replace("etttusen", "ettusen")

    return words


def _regular(language: str, number: int, kind: str) -> str:
    """Count as the Turkic languages do: largest first, every word apart."""
    if kind == "ordinal" or number < 0 or number >= 10**12:
        raise ValueError(f"it holds a number whose {kind} words are not known")
    units, tens, large = (words.split() for words in _TABLES[language])
    if number == 0:
        return units[0]
    words = []
    for size, name in ((10**9, large[3]), (10**6, large[2]), (1000, large[1])):
        count, number = divmod(number, size)
        if count:
            bare = count == 1 and size == 1000 and language not in _ONE_FIRST
            words += [name] if bare else [_regular(language, count, kind), name]
    hundreds, number = divmod(number, 100)
    if hundreds:
        words += [large[0]] if hundreds == 1 and language not in _ONE_FIRST else [units[hundreds], large[0]]
    words += [tens[number // 10 - 1]] if number >= 10 else []
    words += [units[number % 10]] if number % 10 else []
    return " ".join(words)
