"""Facts from a few hundred bytes: the same as reading the whole; what is broken is told."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import soundfile

from colabkit.core.errors import ColabkitError, DataError
from colabkit.pipelines.dataset.profile.headers import inspect
from colabkit.pipelines.dataset.segments.npz import read_npz, write_npz
from colabkit.pipelines.dataset.segments.segment import Segment
from tests.io.reads import Reads
from tests.pipelines.dataset.segments.archives import pickled, savez, wave_of

LONG = wave_of(num_samples=100_000)


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("order", ["audio first", "audio last", "audio amid"])
@pytest.mark.parametrize("codes", [False, True])
def test_headers_say_what_reading_says(deflate, order, codes):
    values = {
        "sr": 24_000,
        "speaker": "سارة",
        "text": "x" * 900,
        "metadata": json.dumps({"channel": "C", "y": "z" * 3_000}),
    }
    arrays = {"audio": LONG, **values} if order == "audio first" else {**values, "audio": LONG}
    if order == "audio amid":
        arrays = {"sr": 24_000, "audio": LONG, "text": "x", "speaker": "سارة", "channel": "C"}
    if codes:
        arrays["codes"] = np.zeros((8, 4_000), np.uint16)
    payload = savez(deflate=deflate, **arrays)
    reads = Reads(payload)
    facts, whole = inspect(reads, "D/1.npz", len(payload)), read_npz(payload, "D/1.npz")
    assert not facts.fault and facts.num_samples == len(whole.wave) and facts.rate_hz == whole.rate_hz == 24_000
    assert (facts.speaker, facts.channel, facts.has_text, facts.has_codes) == ("سارة", "C", True, codes)
    assert facts.dtype == "float32" and facts.seconds() == pytest.approx(whole.seconds)
    assert sum(stop - start for start, stop in reads.ranges) < 60_000


def test_two_reads_are_enough_for_what_is_usual():
    payload = write_npz(Segment(key="a", wave=LONG, rate_hz=24_000, speaker="s", text="hello", metadata={"a": "b"}))
    reads = Reads(payload)
    assert inspect(reads, "a_1.npz", len(payload)).has_text
    assert len(reads.ranges) == 2 and sum(stop - start for start, stop in reads.ranges) < 6_000


def test_small_files_are_read_once():
    payload = savez(audio=wave_of(num_samples=100), sr=8_000)
    reads = Reads(payload)
    assert inspect(reads, "a.npz", len(payload)).num_samples == 100 and len(reads.ranges) == 1


@pytest.mark.parametrize("number", [60, 400])
def test_many_members_reach_further_back(number):
    payload = savez(audio=LONG, sr=24_000, **{f"a{'x' * 60}{i}": i for i in range(number)})
    facts = inspect(Reads(payload), "a.npz", len(payload))
    assert not facts.fault and facts.num_samples == len(LONG)


def test_the_same_audio_has_the_same_content():
    one, two, other = (
        savez(audio=wave, sr=24_000, text=text) for wave, text in ((LONG, "a"), (LONG, "bcd"), (LONG[::-1].copy(), "a"))
    )
    found = [inspect(Reads(p), "a.npz", len(p)).content for p in (one, two, other)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickled(), "pickled"),
        (b"PK" + bytes(5_000), "whole npz"),
        (savez(audio=LONG, sr=24_000)[:50_000], "whole npz"),
        (savez(text="x", sr=24_000), "no audio"),
        (savez(audio=np.array("x"), sr=1), "type|rate"),
        (savez(audio=LONG, sr=7), "rate"),
        (savez(audio=np.zeros(0), sr=24_000), "no samples"),
        (savez(audio=np.zeros(9, bool), sr=24_000), "type"),
    ],
)
def test_what_is_broken_is_told(content, said):
    import re

    facts = inspect(Reads(content), "X_1.npz", len(content))
    assert re.search(said, facts.fault) and facts.channel == "X" and facts.seconds() is None


def test_without_a_rate_the_length_is_not_known():
    payload = savez(audio=LONG)
    facts = inspect(Reads(payload), "a.npz", len(payload))
    assert not facts.fault and facts.seconds() is None and facts.seconds(10_000) == 10.0


@pytest.mark.parametrize("how", [{"format": "WAV"}, {"format": "FLAC"}, {"format": "OGG", "subtype": "VORBIS"}])
def test_audio_files(how):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([LONG, LONG], 1), 48_000, **how)
    payload = buffer.getvalue()
    reads = Reads(payload)
    facts = inspect(reads, "C/a." + how["format"].lower(), len(payload))
    assert (facts.num_samples, facts.rate_hz, facts.num_channels, facts.channel) == (100_000, 48_000, 2, "C")
    assert facts.dtype == how["format"].lower()
    # whose length stands at its end
    assert how["format"] == "OGG" or sum(b - a for a, b in reads.ranges) < 0.8 * len(payload)
    assert inspect(Reads(payload[:50]), "a.wav", 50).fault


class Gone(ColabkitError):
    """What a store raises when it does not answer."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["a.npz", "a.wav"])
def test_a_store_that_does_not_answer_is_not_a_broken_file(name):
    def read(start, stop):
        raise Gone("no answer", fix="try again")

    with pytest.raises(Gone):
        inspect(read, name, 100_000)
    assert not issubclass(Gone, DataError)
