"""Profiles: what is there, exactly or with how sure; contradictions; no plan on guesses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.pipelines.dataset.profile.step import Profile, profile_segments, require_plannable
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.segment import Segment
from tests.pipelines.dataset.segments.archives import pickled, savez, wave_of


def fill(folder, number: int = 12, rate_hz: int = 24_000, seconds=lambda i: 0.1 + 0.02 * i, channels=("Atheer", "Zad")):
    for i in range(number):
        path = folder / channels[i % len(channels)] / f"{i:04d}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = wave_of(i, int(rate_hz * seconds(i)))
        path.write_bytes(
            write_npz(
                Segment(key="", wave=wave, rate_hz=rate_hz, speaker=f"s{i % 3}", text="t" * (i % 2)), deflate=i % 4 == 0
            )
        )
    return folder


def test_all_headers_of_loose_files(tmp_path):
    found = profile_segments(fill(tmp_path))
    seconds = sum(int(24_000 * (0.1 + 0.02 * i)) / 24_000 for i in range(12))
    assert found.hours == pytest.approx(seconds / 3600) and found.hours_margin == 0 and not found.is_sample
    assert (
        found.num_files == found.num_inspected == 12
        and found.rates_hz == {"24000": 12}
        and found.dtypes == {"float32": 12}
    )
    assert found.channels == {"Atheer": 6, "Zad": 6} and sum(found.channel_hours.values()) == pytest.approx(found.hours)
    assert found.speakers == 3 and found.num_with_text == 6 and found.num_with_codes == found.num_broken == 0
    assert found.num_bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.npz"))
    assert found.estimates_bytes["codes"] == pytest.approx(seconds * 50 * 2)
    assert found.estimates_bytes["PCM16 16 kHz"] == pytest.approx(seconds * 32_000)
    assert found.listened.num_heard == 12
    assert 0.3 < found.estimates_bytes["FLAC 16 kHz"] / found.estimates_bytes["PCM16 16 kHz"] < 1.1
    assert require_plannable(found) is found and not found.contradiction()


def test_a_sample_says_how_sure_it_is(tmp_path):
    fill(tmp_path, 300, seconds=lambda i: 0.02 + (i * 37 % 100) / 400)
    whole, part = profile_segments(tmp_path, listen=2), profile_segments(tmp_path, sample=60, listen=2)
    assert (
        part.is_sample and 60 <= part.num_inspected < 80 and part.num_files == 300 and part.num_bytes == whole.num_bytes
    )
    assert abs(part.hours - whole.hours) <= 2 * part.hours_margin and 0 < part.hours_margin < 0.03 * part.hours
    assert part.channels == whole.channels and "95 %" in str(part.table())
    assert require_plannable(part)


def test_shards_are_known_from_their_index(tmp_path):
    with ShardWriter(tmp_path) as writer:
        for i in range(6):
            writer.add(
                f"C{i % 2}/{i}", flac_bytes(wave_of(i, 8_000), 16_000), ".flac", {"speaker": f"s{i}", "text": "x"}
            )
    found = profile_segments(tmp_path)
    assert found.hours == pytest.approx(3 / 3600) and found.rates_hz == {"16000": 6} and found.speakers == 6
    assert found.channels == {"C0": 3, "C1": 3} and found.num_with_text == 6 and found.listened.num_heard == 6
    assert require_plannable(found)


def test_broken_files_and_duplicates_are_counted(tmp_path):
    fill(tmp_path)
    (tmp_path / "Zad" / "b.npz").write_bytes(pickled())
    (tmp_path / "Zad" / "c.npz").write_bytes(b"")
    (tmp_path / "Zad" / "d.npz").write_bytes((tmp_path / "Zad" / "0001.npz").read_bytes())
    (tmp_path / "Zad" / "0001.flac").write_bytes(flac_bytes(wave_of(1), 24_000))
    found = profile_segments(tmp_path)
    assert found.num_broken == 2 and "pickled" in found.broken["Zad/b.npz"] and "Zad/c.npz" in str(found.table())
    assert found.num_duplicate_keys == 1 and found.num_duplicate_audio == 1
    with pytest.raises(DataError, match="broken"):
        require_plannable(found)
    assert require_plannable(found, most_broken_fraction=0.2)


def test_what_only_hearing_tells(tmp_path):
    for name, wave in (
        ("nan", np.full(9_000, np.nan)),
        ("silent", np.zeros(24_000)),
        ("loud", np.clip(wave_of() * 50, -1, 1)),
        ("good", wave_of()),
    ):
        (tmp_path / f"{name}.npz").write_bytes(savez(audio=wave.astype(np.float32), sr=24_000))
    heard = profile_segments(tmp_path).listened
    assert (heard.num_heard, heard.num_faulty, heard.num_silent, heard.num_clipped) == (3, 1, 1, 1)
    assert "nan.npz" in heard.faults[0]


def test_without_rates_nothing_is_planned(tmp_path):
    (tmp_path / "a.npz").write_bytes(savez(audio=wave_of()))
    found = profile_segments(tmp_path)
    assert found.hours is None and found.num_without_rate == 1 and "not known" in str(found.table())
    with pytest.raises(DataError, match="rate") as caught:
        require_plannable(found)
    assert "default_rate_hz" in caught.value.fix
    assert require_plannable(profile_segments(tmp_path, default_rate_hz=24_000)).hours == pytest.approx(0.1 / 3600)


def test_mixed_rates_are_no_gate(tmp_path):
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 3, rate_hz=16_000)
    found = profile_segments(tmp_path)
    assert require_plannable(found) is found and found.rates_hz == {"24000": 3, "16000": 3}


@pytest.mark.parametrize("num_good, passes", [(24, True), (19, True), (18, False), (1, False)])
def test_broken_segments_are_left_aside_up_to_a_share(tmp_path, num_good, passes):
    fill(tmp_path, num_good)
    (tmp_path / "Zad" / "cut.npz").parent.mkdir(exist_ok=True)
    (tmp_path / "Zad" / "cut.npz").write_bytes(b"PK")
    found = profile_segments(tmp_path)
    if passes:
        assert require_plannable(found) is found
        return
    with pytest.raises(DataError, match="broken") as caught:
        require_plannable(found)
    fraction = float(caught.value.fix.rpartition("--set segments.most_broken_fraction=")[2])
    assert require_plannable(found, most_broken_fraction=fraction) is found


def test_too_uncertain_hours_and_broken_only(tmp_path):
    known = Profile(address="x", num_files=9_000, num_bytes=1, num_inspected=100, hours=100.0, hours_margin=6.0)
    with pytest.raises(DataError, match="uncertain") as caught:
        require_plannable(known)
    assert "sample=400" in caught.value.fix
    require_plannable(replace(known, hours_margin=4.0))
    (tmp_path / "a.npz").write_bytes(b"x")
    with pytest.raises(DataError, match="not known"):
        require_plannable(profile_segments(tmp_path))


def test_the_contradiction_of_656300_segments():
    seed = Profile(
        address="x",
        num_files=656_300,
        num_bytes=221_000_000_000,
        num_inspected=4_000,
        hours=639.4,
        hours_margin=0.5,
        expected_hours=218.0,
        rates_hz={"24000": 4_000},
        dtypes={"float32": 4_000},
    )
    said = seed.contradiction()
    assert (
        "281.6 kB" in said
        and "96.0 kB/s (639 h)" in said
        and "not 218" in said
        and "CONTRADICTION" in str(seed.table())
    )
    assert "24 kHz float32" in replace(seed, rates_hz={}, dtypes={}).contradiction()
    assert (
        not replace(seed, expected_hours=640.0).contradiction()
        and not replace(seed, expected_hours=None).contradiction()
    )


def test_saved_as_json(tmp_path):
    found = profile_segments(fill(tmp_path / "in"), expected_hours=3.0)
    found.save(tmp_path / "p.json")
    back = json.loads((tmp_path / "p.json").read_text())
    assert back["hours"] == found.hours and back["channels"] == found.channels and back["listened"]["num_heard"] == 12


def test_a_place_without_segments_is_told(tmp_path):
    with pytest.raises(DataError, match="no segments"):
        profile_segments(tmp_path)
