"""Clean transcripts: one form a character, languages' case rules, marks dropped or kept, the rest refused."""

from __future__ import annotations

import pickle
import random
import unicodedata

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.voices.sentences import SENTENCES
from colabkit.pipelines.asr.config import TextConfig
from colabkit.pipelines.asr.text.cleaner import Cleaner, UnusableTextError


@pytest.mark.parametrize(
    "raw, language, wanted",
    [
        ("  Hello,\tWORLD! \n", "en", "hello world"),
        ("“Don’t”, he said… ‘Yes’", "en", "don't he said yes"),
        ("rock ʼnʼ roll, rock'n'roll, dogs' 'tis", "en", "rock n roll rock'n'roll dogs tis"),
        ("it 's what we 've got, do n't", "en", "it's what we've got don't"),
        ("ﬁne Ｆｕｌｌ ｗｉｄｔｈ ﬄ", "en", "fine full width ffl"),
        ("co\u00adoperate zero\u200bwidth \ufeffmark \u202eturned", "en", "cooperate zerowidth mark turned"),
        ("a well-known — and – dashed − thing_here|there", "en", "a well known and dashed thing here there"),
        ("AT&amp;T &lt;3", "en", "at and t three"),
        ("cafe\u0301 naïve", "fr", "café naïve"),
        ("l´eau aujourd’hui qu`il", "fr", "l'eau aujourd'hui qu'il"),
        ("IŞIK İstanbul DIŞ", "tr", "ışık istanbul dış"),
        ("İzmir ISI", "az", "izmir ısı"),
        ("İzmir ISI", "en", "izmir isi"),
        ("Straße GROẞ", "de", "straße groß"),
        ("ΟΔΟΣ ΣΟΦΌΣ οδοσ", "el", "οδος σοφός οδος"),
        ("O'zbekiston g‘alaba ma’no toʻgʻri o`g`il", "uz", "oʻzbekiston gʻalaba maʼno toʻgʻri oʻgʻil"),
        ("a'la o'zi g‘arrı", "kaa", "aʼla oʻzi gʻarrı"),
        ("Hawai'i ‘ōlelo", "haw", "hawaiʻi ʻōlelo"),
        ("п’ять ПʼЯТЬ", "uk", "п'ять п'ять"),
        ("العَرَبِيَّةُ ـــ كـتـاب ﻻ؟", "ar", "العَرَبِيَّةُ كتاب لا"),
        ("می\u200cخواهم \u200cرفتن\u200c", "fa", "می\u200cخواهم رفتن"),
        ("می\u200cخواهم", "ar", "میخواهم"),
        ("हिन्दी में, क्षत्रिय।", "hi", "हिन्दी में क्षत्रिय"),
        ("น้ำใจ กำ ที่", "th", "น้ำใจ กำ ที่"),
        ("ｶﾞｷﾞ 〜。漢字、カナー", "ja", "ガギ 漢字 カナー"),
        ("ㄱ 한국어!", "ko", "ㄱ 한국어"),
        ("col·lecció", "ca", "col·lecció"),
        ("👍🏽 great\ufe0f", "en", "great"),
        ("\u0301accent first", "en", "accent first"),
    ],
)
def test_characters_have_one_form_and_marks_stay_with_their_letters(clean, raw, language, wanted):
    assert clean(raw, language=language) == unicodedata.normalize("NFC", wanted)


@pytest.mark.parametrize(
    "raw, language, wanted",
    [
        ("Straße", "de", "STRAẞE"),
        ("ışık istanbul", "tr", "IŞIK İSTANBUL"),
        ("σοφός", "el", "ΣΟΦΌΣ"),
        ("ქართული", "ka", "ქართული"),
        ("हिन्दी", "hi", "हिन्दी"),
        ("don’t", "en", "DON'T"),
        ("ǰ", "en", "J̌"),
    ],
)
def test_upper_case_can_be_read_back(clean, raw, language, wanted):
    upper = clean(raw, language=language, case="upper")
    assert upper == unicodedata.normalize("NFC", wanted)
    assert clean(upper, language=language) == clean(raw, language=language)


def test_a_language_without_number_words_says_so():
    cleaner = Cleaner(TextConfig(language="hi"))
    assert [c[:2] for c in cleaner.choices] == [("text.digits", "refuse")] and "'hi'" in cleaner.choices[0][2]
    assert Cleaner(TextConfig(language="en")).choices == [] == Cleaner(TextConfig(language="hi", digits="keep")).choices
    assert cleaner.clean("शब्द") == "शब्द"


def test_digits_are_kept_or_refused_where_that_is_asked_for(clean):
    assert clean("1,234.5 km, ١٢.", digits="keep") == "1234.5 km 12"
    assert clean("1.234,5 km", language="de", digits="keep") == "1234,5 km"
    with pytest.raises(UnusableTextError, match="digits"):
        clean("Route 66", digits="refuse")


@pytest.mark.parametrize(
    "raw", ["", "   ", "...", "[noise]", "<unk>", "\u200b", "ignore_time_segment_in_scoring", "— !", "'"]
)
def test_nothing_left_is_told(clean, raw):
    with pytest.raises(UnusableTextError) as caught:
        clean(raw)
    again = pickle.loads(pickle.dumps(caught.value))
    assert "transcript" in again.reason and type(again) is UnusableTextError


def test_punctuation_and_further_characters_are_kept_where_asked_for(clean):
    assert clean("“Well”, said Ann — ‘Yes’…", punctuation="keep", case="keep") == "\"Well\", said Ann - 'Yes'..."
    assert clean("well-known e-mail? yes!", keep="-") == "well-known e-mail yes"
    with pytest.raises(UsageError):
        Cleaner(TextConfig(keep="|"))


def random_texts(number: int):
    draw = random.Random(0)
    pools = [
        "abcXYZ '’-.,",
        "0123456789.,:/%$€£-",
        '<>[](){}&;|_"“”…',
        "ıİiIßẞσςΣÅǅŉǰ½²™ﬁ\u0345\u0387",
        "\u200c\u200d\u200b\u0640\u0301\u0300\u00ad",
        "हिन्दीक्षสำนี้العَرَبِيّةעִברִית",
        "ʻʼ‘’`´oOgG",
        "  \n\t\u00a0\u202f",
        "ガカ゛ｶﾞ漢한ㄱ",
        "&amp; <noise> (laughs) 1st 3. 's n't",
    ]
    for _ in range(number):
        yield "".join(
            draw.choice(draw.choice(pools)) if draw.random() < 0.95 else chr(draw.randrange(1, 0x2FFFF))
            for _ in range(draw.randint(1, 24))
        )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"case": "upper"},
        {"case": "keep", "punctuation": "keep", "digits": "keep"},
        {"language": "tr"},
        {"language": "de", "case": "upper"},
        {"language": "uz"},
        {"language": "fa", "digits": "keep"},
        {"language": "haw", "punctuation": "keep"},
        {"language": "hi", "digits": "refuse"},
        {"language": "en", "digits": "keep", "case": "upper"},
        {"language": "el"},
        {"language": "si"},
        {"keep": "-.'", "language": "ca"},
    ],
)
def test_what_is_clean_stays_as_it_is(settings):
    cleaner, num_kept = Cleaner(TextConfig(**settings)), 0
    for raw in random_texts(1500):
        try:
            once = cleaner.clean(raw)
        except UnusableTextError:
            continue
        num_kept += 1
        assert cleaner.clean(once) == once, ascii(raw)
        assert once == unicodedata.normalize("NFC", " ".join(once.split()))
        if not settings.get("keep"):
            assert "|" not in once and (settings.get("punctuation") == "keep" or '"' not in once)
        assert unicodedata.category(once[0])[0] != "M"
    assert num_kept > 300


def test_everyday_sentences_lose_no_letter():
    for language, sentences in SENTENCES.items():
        cleaner = Cleaner(TextConfig(language=language))
        for sentence in sentences:
            letters = [c for c in unicodedata.normalize("NFC", sentence).lower() if c.isalpha()]
            assert [c for c in cleaner.clean(sentence) if c.isalpha()] == letters
