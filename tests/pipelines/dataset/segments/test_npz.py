"""npz files of every kind people write are read; nothing is unpickled; faults are told; ours are always the same."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.dataset.segments.npz import (
    AUDIO_NAMES,
    RATE_NAMES,
    read_header,
    read_npz,
    require_rate,
    sort_values,
    write_npz,
)
from colabkit.pipelines.dataset.segments.segment import Segment
from tests.pipelines.dataset.segments.archives import Bomb, pickled, savez, wave_of

WAVE = wave_of()


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("audio", AUDIO_NAMES)
@pytest.mark.parametrize("rate", RATE_NAMES)
def test_the_usual_names_are_found(audio, rate, deflate):
    segment = read_npz(savez(deflate=deflate, **{rate: 24_000, "other": np.arange(99), audio: WAVE}), "Atheer/1.npz")
    assert np.array_equal(segment.wave, WAVE) and segment.rate_hz == 24_000
    assert segment.key == "Atheer/1" and segment.channel == "Atheer" and segment.codes is None


def test_the_only_series_is_the_audio_and_two_are_too_many():
    assert np.array_equal(read_npz(savez(x=WAVE, sr=16_000, note="n"), "a.npz").wave, WAVE)
    with pytest.raises(DataError, match="not clear"):
        read_npz(savez(x=WAVE, y=WAVE, sr=16_000), "a.npz")
    with pytest.raises(DataError, match="no audio"):
        read_npz(savez(sr=16_000, text="x"), "a.npz")


TEXT = "مرحبا بالعالم، كيف الحال؟"


@pytest.mark.parametrize("how", ["arrays", "bytes", "json", "json bytes", "lists"])
def test_what_is_known_is_read_however_it_is_written(how):
    values = {"speaker": "سارة", "channel": "ZadTVchannel", "text": TEXT, "start": 1.5, "index": 7}
    if how.startswith("json"):
        text = json.dumps(values, ensure_ascii=how == "json")
        arrays = {"metadata": text.encode() if "bytes" in how else text, "sr": 24_000}
    elif how == "bytes":
        arrays = {k: v.encode() if isinstance(v, str) else v for k, v in values.items()} | {"sr": np.float32(24_000)}
    else:
        arrays = {k: [v] if how == "lists" else v for k, v in values.items()} | {"sr": np.array([24_000])}
    segment = read_npz(savez(audio=WAVE, **arrays), "x/1.npz")
    assert (segment.speaker, segment.channel, segment.text) == ("سارة", "ZadTVchannel", TEXT)
    assert segment.metadata == {"start": "1.5", "index": "7"} and segment.rate_hz == 24_000


def test_nested_metadata_and_arrays_stay_as_text():
    segment = read_npz(
        savez(
            audio=WAVE,
            sr=8_000,
            meta=json.dumps({"speaker": {"id": 3}, "tags": ["ü", 1]}),
            times=np.array([1.0, 2.5]),
            info="no json",
            big=np.zeros((9, 99), bool),
        ),
        "1.npz",
    )
    assert segment.speaker == '{"id": 3}' and segment.metadata["tags"] == '["ü", 1]'
    assert segment.metadata["times"] == "[1.0, 2.5]" and segment.metadata["info"] == "no json"
    assert segment.metadata["big"] == "bool[9, 99]"


def test_half_a_character_is_replaced():
    segment = read_npz(savez(audio=WAVE, sr=8_000, text="a\ud800b"), "1.npz")
    assert segment.text.encode() and segment.text.startswith("a")


def test_a_wave_is_a_view_of_what_was_given():
    payload = savez(audio=WAVE, sr=24_000)
    segment = read_npz(payload, "1.npz")
    assert np.shares_memory(segment.wave, np.frombuffer(payload, np.uint8)) and not segment.wave.flags.writeable


def test_channels_are_averaged_and_that_is_told():
    segment = read_npz(savez(audio=np.stack([WAVE, WAVE * 0], 1), sr=24_000), "1.npz")
    assert np.allclose(segment.wave, WAVE / 2) and segment.metadata == {"mixed_from_channels": "2"}


@pytest.mark.parametrize(
    ("codes", "shape"),
    [
        (np.arange(50), (1, 50)),
        (np.zeros((8, 50), np.uint16), (8, 50)),
        (np.ones((1, 1, 50), np.int32), (1, 50)),
        (np.arange(50, dtype=">i8"), (1, 50)),
    ],
)
def test_codes_are_read(codes, shape):
    found = read_npz(savez(audio=WAVE, sr=24_000, codes=codes), "1.npz").codes
    assert found.dtype == np.uint16 and found.shape == shape and np.array_equal(found.ravel(), codes.ravel())


@pytest.mark.parametrize(
    "codes", [np.array([70_000]), np.array([-1]), np.array([0.5]), np.zeros((2, 3, 4), int), np.zeros(0, int)]
)
def test_codes_that_cannot_be_are_told(codes):
    with pytest.raises(DataError, match="codes"):
        read_npz(savez(audio=WAVE, sr=24_000, codes=codes), "1.npz")


def test_a_missing_rate_is_not_guessed():
    with pytest.raises(DataError, match="rate") as caught:
        read_npz(savez(audio=WAVE), "here.npz")
    assert "here.npz" in str(caught.value) and "default_rate_hz" in caught.value.fix
    assert read_npz(savez(audio=WAVE), "here.npz", default_rate_hz=22_050).rate_hz == 22_050
    assert read_npz(savez(audio=WAVE, sr=24_000), "here.npz", default_rate_hz=22_050).rate_hz == 24_000


@pytest.mark.parametrize("rate", [0, -1, 1, 3_999, 192_001, 1e9, 24_000.5, math.nan, math.inf, "fast", np.zeros(3)])
def test_absurd_rates_are_told(rate):
    with pytest.raises(DataError, match="rate"):
        read_npz(savez(audio=WAVE, sr=rate), "1.npz")


@pytest.mark.parametrize("rate", [24_000, 24_000.0, "24000", b"24000", np.int16(24_000)])
def test_rates_of_any_type(rate):
    assert require_rate(rate.decode() if isinstance(rate, bytes) else rate, "t") == 24_000


def test_a_pickle_is_never_executed():
    for content in (
        pickled(),
        savez(audio=np.array([Bomb(), Bomb()]), sr=24_000),
        savez(sr=8_000, audio=WAVE, x=np.array({"a": 1})),
    ):
        with pytest.raises(DataError, match="pickled") as caught:
            read_npz(content, "1.npz")
        assert "json" in caught.value.fix


@pytest.mark.parametrize("dtype", [[("a", "f4"), ("b", "O")], [("a", "f4"), ("b", "i2")]])
def test_structures_are_refused(dtype):
    with pytest.raises(DataError):
        read_npz(savez(audio=np.zeros(5, dtype), sr=24_000), "1.npz")


@pytest.mark.parametrize(
    "audio", [WAVE[:0], np.full(5, np.nan), np.array("text"), np.zeros(100, np.int64), np.zeros((50, 60))]
)
def test_audio_that_cannot_be_is_told(audio):
    with pytest.raises(DataError) as caught:
        read_npz(savez(audio=audio, sr=24_000), "here.npz")
    assert "here.npz" in str(caught.value) and caught.value.fix


def test_cut_anywhere_is_told():
    payload = savez(audio=WAVE[:50], sr=24_000, text="abc")
    for stop in range(len(payload)):
        with pytest.raises(DataError):
            read_npz(payload[:stop], "1.npz")


def test_random_damage_is_told_or_harmless():
    payload = savez(audio=WAVE, sr=24_000, text="abc", deflate=True)
    draw = np.random.default_rng(0)
    for _ in range(400):
        spoilt = bytearray(payload)
        for at in draw.integers(0, len(payload), 3):
            spoilt[at] = draw.integers(0, 256)
        try:
            assert np.isfinite(read_npz(bytes(spoilt), "1.npz", default_rate_hz=24_000).wave).all()
        except DataError:
            pass


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    "array",
    [
        WAVE,
        np.asfortranarray(np.ones((3, 4))),
        np.array("ü"),
        np.array(b"a"),
        np.array(3),
        np.zeros((0, 2)),
        np.zeros(3, ">f8"),
        np.zeros(1, bool),
    ],
)
def test_headers_say_what_numpy_says(version, array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    header = read_header(stream.getvalue(), "t")
    assert header.dtype == array.dtype and header.shape == array.shape
    assert header.num_header_bytes == len(stream.getvalue()) - array.nbytes


@pytest.mark.parametrize(
    "text",
    [
        b"{'descr': '<f4'}",
        b"{'descr': '<q9', 'fortran_order': False, 'shape': (3,), }",
        b"[" * 9_000,
        b"__import__('os').system('false')",
        b"\xff\xfe",
        b"",
    ],
)
def test_headers_that_cannot_be_are_told(text):
    text = text + b"\n"
    with pytest.raises(DataError):
        read_header(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text, "t")


SEGMENT = Segment(
    key="Atheer/1",
    wave=WAVE,
    rate_hz=24_000,
    speaker="سارة",
    channel="Atheer",
    text=TEXT,
    metadata={"start_seconds": "1.5", "日": "本"},
    codes=np.arange(100, dtype=np.uint16).reshape(2, 50),
)


@pytest.mark.parametrize("how", [{}, {"deflate": True}, {"dtype": "int16"}])
def test_what_is_written_comes_back(how):
    payload = write_npz(SEGMENT, **how)
    back = read_npz(payload, "Atheer/1.npz")
    for name in ("key", "rate_hz", "speaker", "channel", "text", "metadata"):
        assert getattr(back, name) == getattr(SEGMENT, name)
    assert np.array_equal(back.codes, SEGMENT.codes)
    assert np.abs(back.wave - WAVE).max() <= (2e-5 if how.get("dtype") else 0)
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:  # and to numpy
        assert arrays["audio"].dtype == how.get("dtype", "float32") and str(arrays["text"]) == TEXT
        assert int(arrays["sample_rate"]) == 24_000 and arrays["codes"].shape == (2, 50)


def test_the_same_segment_gives_the_same_bytes(monkeypatch):
    first = write_npz(SEGMENT)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert write_npz(SEGMENT) == first


def test_int16_comes_back_exactly():
    pcm = np.arange(-32_768, 32_768, 7).astype(np.int16)
    segment = Segment(key="a", wave=pcm.astype(np.float32) / 32_768, rate_hz=16_000)
    with np.load(io.BytesIO(write_npz(segment, dtype="int16"))) as arrays:
        assert np.array_equal(arrays["audio"], pcm)


def test_what_cannot_be_written_is_told():
    with pytest.raises(DataError):
        write_npz(Segment(key="a", wave=WAVE[:0], rate_hz=16_000))
    with pytest.raises(UsageError):
        write_npz(SEGMENT, dtype="float64")


def test_roles_take_the_first_name_that_says_something():
    known = sort_values(
        {"speaker": "", "speaker_id": 17, "transcript": "t", "text": "t", "rate": 16_000, "x": None}, "t"
    )
    assert (known.speaker, known.text, known.rate_hz, known.metadata) == ("17", "t", 16_000, {})
