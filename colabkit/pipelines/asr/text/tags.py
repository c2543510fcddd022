"""Marks of transcribers in transcripts: noises, laughter, what could not be understood; they are not speech and go."""

from __future__ import annotations

import re

_PUNCTUATION = {"comma": ",", "period": ".", "questionmark": "?", "exclamationpoint": "!"}  # as GigaSpeech writes them
_LETTER = r"[^\W\d_]"
_ANGLED = re.compile(rf"</?{_LETTER}[^<>]{{0,60}}>")  # <noise>, <unk>, </s>, <i>
_LAUGHED = re.compile(r"\[laughter-([^\]\s]+)\]", re.IGNORECASE)  # of Switchboard: a word that was said laughing
_SQUARE = re.compile(r"\[[^\[\]]{1,60}\]|\{[^{}]{1,60}\}")
_SPOKEN_OF = (
    "inaudible unintelligible indistinct incomprehensible crosstalk laughs laughing laughter laugh chuckles applause "
    "music noise cough coughs coughing sigh sighs sighing breath breathing breathes silence pause sniffs clears throat "
    "background foreign language speaking speaks in overlapping unclear unverständlich lachen inaudibile inaudibles "
    "rires неразборчиво смех"
).split()
_ROUND = re.compile(rf"\((?:{'|'.join(_SPOKEN_OF)})(?:[ _-](?:{'|'.join(_SPOKEN_OF)}))*\)", re.IGNORECASE)
_DOUBLE = re.compile(r"\(\(([^()]*)\)\)")  # of the LDC: what the transcriber was not sure to hear
_VARIANT = re.compile(rf"(?<={_LETTER})\(\d+\)")  # word(2): which pronunciation, in Sphinx
_PERCENT = re.compile(rf"(?<!\S)%{_LETTER}+")  # %hesitation
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&#39;": "'", "&nbsp;": " "}
_ENTITY = re.compile("|".join(_ENTITIES))
_IGNORED = "ignore_time_segment_in_scoring"  # of TED-LIUM: nobody wrote down what is said there


def drop_tags(text: str) -> str:
    """Return the text without transcribers' marks; entities of HTML become their characters."""
    if text.isalpha():
        return text
    if "&" in text:
        text = _ENTITY.sub(lambda m: _ENTITIES[m[0]], text)
    if "<" in text:
        text = _ANGLED.sub(lambda m: _PUNCTUATION.get(m[0].strip("<>").lower(), " "), text)
    if "[" in text or "{" in text:
        text = _SQUARE.sub(" ", _LAUGHED.sub(r"\1", text))
    if "(" in text:
        text = _VARIANT.sub("", _DOUBLE.sub(r" \1 ", _ROUND.sub(" ", text)))
    if "%" in text:
        text = _PERCENT.sub(" ", text)
    return text.replace(_IGNORED, " ")
