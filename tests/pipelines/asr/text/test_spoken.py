"""Digits and signs as they are spoken, by language; those with several readings are refused."""

from __future__ import annotations

import pytest

from colabkit.pipelines.asr.text.cleaner import UnusableTextError


@pytest.mark.parametrize(
    "raw, language, wanted",
    [
        ("in 1999 and 2005, 2024", "en", "in nineteen ninety nine and two thousand and five twenty twenty four"),
        ("the 21st of May, the 2nd", "en", "the twenty first of may the second"),
        ("the 1990s and the '80s", "en", "the nineteen nineties and the eighties"),
        ("pi is 3.14", "en", "pi is three point one four"),
        (
            "1,000 people; 12,345,678",
            "en",
            "one thousand people twelve million three hundred and forty five thousand six hundred and seventy eight",
        ),
        (
            "50% of $5, £1 and $3.5 million",
            "en",
            "fifty percent of five dollars one pound and three point five million dollars",
        ),
        ("at 10:30, 9:05 and 12:00", "en", "at ten thirty nine oh five and twelve o'clock"),
        ("agent 007, 5km, A4", "en", "agent zero zero seven five km a four"),
        ("minus -5 degrees", "en", "minus minus five degrees"),
        ("١٢ و २३ ４", "en", "twelve و twenty three four"),
        ("call 0123456789", "en", "call zero one two three four five six seven eight nine"),
        ("1.000 Leute, 3,5 %", "de", "eintausend leute drei komma fünf prozent"),
        ("am 3. Mai, der 3. Mai 1999", "de", "am dritten mai der dritte mai neunzehnhundertneunundneunzig"),
        ("Er wurde 5. Dann", "de", "er wurde fünf dann"),
        ("1 000 000 et 1er, 1re, 2e", "fr", "un million et premier première deuxième"),
        ("La 1ª vez, el 2º; 1.234,5", "es", "la primera vez el segundo mil doscientos treinta y cuatro coma cinco"),
        ("1990'da %5 oldu, 21", "tr", "bin dokuz yüz doksan'da beş oldu yirmi bir"),
        ("1234 hám 11", "kaa", "mıń eki júz otız tórt hám on bir"),
        ("1045", "uz", "bir ming qirq besh"),
        ("२३ १,००,०००", "bn", None),
        ("12", "kk", "он екі"),
        ("25", "nb", "tjuefem"),
    ],
)
def test_numbers_are_spelt_as_they_are_spoken(clean, raw, language, wanted):
    if wanted is None:
        assert not any(c.isdigit() for c in clean(raw, language=language))
    else:
        assert clean(raw.replace("1 000 000", "1\u202f000\u00a0000"), language=language) == wanted


@pytest.mark.parametrize(
    "raw, language",
    [
        ("on 12/05/2020", "en"),
        ("a range 5-10", "en"),
        ("½ cup", "en"),
        ("1/2 cup", "en"),
        ("5€ 3", "ru"),
        ("um 10:30", "de"),
        ("5-го мая", "ru"),
        ("3. gün", "tr"),
        ("version 1.2.3", "en"),
        ("$2.50", "en"),
        ("3,5", "ja"),
        ("12 शब्द", "hi"),
    ],
)
def test_numbers_with_several_readings_are_refused_not_guessed(clean, raw, language):
    with pytest.raises(UnusableTextError) as caught:
        clean(raw, language=language)
    assert caught.value.reason and not any(c.isdigit() for c in caught.value.reason) and caught.value.fix
