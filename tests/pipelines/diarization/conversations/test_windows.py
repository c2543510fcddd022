"""Windows of real recordings, from memory and streaming: the same labels, resumed bit for bit.

They are pure functions of their number.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colabkit.core.errors import BrokenSampleError, ChangedError, DataError
from colabkit.core.teller import Teller
from colabkit.io.audio import write_wav
from colabkit.io.samples import Samples
from colabkit.io.samples.build import build_index
from colabkit.io.samples.shards import flac_bytes
from colabkit.io.samples.source import find_source
from colabkit.loopback.hub import HubServer
from colabkit.pipelines.diarization.config import RecordingsConfig
from colabkit.pipelines.diarization.conversations import simulate
from colabkit.pipelines.diarization.conversations.windows import (
    LabelledWave,
    RecordingWindows,
    StreamedWindows,
    training_windows,
)
from colabkit.pipelines.diarization.speech.recordings import (
    find_recordings,
    labelled_samples,
    list_recordings,
    open_recordings,
    read_recording,
)
from colabkit.pipelines.diarization.train.batches import TrainingBatches
from tests.pipelines.diarization.batches import same, take

SECONDS = 12
HOW = {"seed": 0, "window_seconds": 2.0, "max_speakers": 2}
TURNS = [[0.5, 4.0, "a"], [3.0, 6.0, "b"], [8.0, 11.0, "a"]]


@pytest.fixture(autouse=True)
def few_sounds(monkeypatch):
    """Rooms and noises take longer to make than all else here."""
    monkeypatch.setattr(simulate, "NUM_ROOMS", 2)
    monkeypatch.setattr(simulate, "NUM_NOISES", 2)


def wave_of(number: int) -> np.ndarray:
    """Recording k has a level of its own where somebody talks, on top of a trace that tells it from all others."""
    wave = np.full(SECONDS * 16_000, 0.01 * (number + 1) / 100)
    for start, end, _ in TURNS:
        wave[int(start * 16_000) : int(end * 16_000)] += 0.1
    return wave.astype(np.float32)


def lists(turns) -> dict[str, list]:
    return {
        "timestamps_start": [t[0] for t in turns],
        "timestamps_end": [t[1] for t in turns],
        "speakers": [t[2] for t in turns],
    }


def parquet_of(audios: list[bytes], columns: dict[str, list]) -> bytes:
    rows, buffer = pa.array([{"bytes": a, "path": "x"} for a in audios]), io.BytesIO()
    pq.write_table(pa.table({"audio": rows, **{n: pa.array(v) for n, v in columns.items()}}), buffer)
    return buffer.getvalue()


def indexed(folder: Path, teller: Teller) -> Samples:
    return Samples(build_index(find_source(str(folder)), folder / ".parts", teller=teller))


@pytest.fixture
def meetings(tmp_path, problems, told):
    """Eight recordings in Parquet with the lists of turns that the Hub's diarization sets have."""
    columns = {name: [v] * 8 for name, v in lists(TURNS).items()}
    (tmp_path / "meetings").mkdir()
    (tmp_path / "meetings" / "0.parquet").write_bytes(
        parquet_of([flac_bytes(wave_of(i), 16_000) for i in range(8)], columns)
    )
    samples = indexed(tmp_path / "meetings", told)
    found = labelled_samples(samples, told)
    assert problems == {} and len(found) == 8
    return found


def held_hours(held: int) -> float:
    """Return the setting with which so many recordings are in memory."""
    return (held + 1.01) * SECONDS / 3_600


def streamed(recordings, teller, *, held: int = 2, fraction: float = 1.0, **how) -> StreamedWindows:
    return StreamedWindows(recordings, teller, max_hours=held_hours(held), fraction=fraction, **HOW | how)


def same_sample(a, b) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("wave", "active", "scored", "speaker_ids"))


def whose(one: LabelledWave) -> int:
    return round(one.wave[0] / 32_767 * 10_000) - 1


def test_turns_in_lists_are_the_labels(meetings):
    for k, recording in enumerate(meetings):
        assert [tuple(t) for t in recording.turns] == [tuple(t) for t in TURNS] and recording.regions == ((0.0, 12.0),)
        assert recording.name.startswith(f"{k:05d}-") and recording.seconds == 12.0
        assert np.allclose(read_recording(recording), wave_of(k), atol=1e-4)


def test_windows_from_samples_and_from_files_show_the_labels_of_their_time(meetings, tmp_path, told):
    for k in range(8):
        write_wav(tmp_path / f"{k}.wav", wave_of(k), 16_000)
        lines = [f"SPEAKER {k} 1 {a} {b - a} <NA> <NA> {who} <NA> <NA>\n" for a, b, who in TURNS]
        (tmp_path / f"{k}.rttm").write_text("".join(lines))
    files = RecordingWindows(find_recordings(str(tmp_path), "*.rttm", told), **HOW)
    for windows in (RecordingWindows(meetings, **HOW), streamed(meetings, told), files):
        for k in range(20):
            sample = windows.sample(k)
            level = np.abs(sample.wave.reshape(-1, 320)).max(1)
            loud = level > 0.5 * level.max() if sample.active.any() else np.zeros(100, bool)
            assert np.array_equal(loud, sample.active.any(1)) and sample.speaker_ids.tolist() == [-1, -1]
    assert all(same_sample(files.sample(k), RecordingWindows(meetings, **HOW).sample(k)) for k in range(5))


@pytest.mark.parametrize("held", [1, 3])
def test_a_streamed_window_does_not_depend_on_the_windows_before(meetings, told, held):
    windows = streamed(meetings, told, held=held)
    wanted = [windows.sample(k) for k in range(300)]
    for start in (299, 5, 130, 0):
        fresh = streamed(meetings, told, held=held)
        assert all(same_sample(fresh.sample(k), wanted[k]) for k in range(start, min(start + 5, 300)))
        assert same_sample(windows.sample(start), wanted[start])
        fresh.window.close()
    assert not same_sample(wanted[0], wanted[1])
    windows.window.close()


def test_every_recording_is_read_once_an_epoch_and_stays_as_long_as_the_visits_need(meetings, told, monkeypatch):
    reads, samples = Counter(), meetings[0].samples
    read_wave = samples.read_wave
    monkeypatch.setattr(samples, "read_wave", lambda number, **how: reads.update([number]) or read_wave(number, **how))
    windows = streamed(meetings, told, held=2)
    uses = windows.window.uses_per_chapter
    assert uses == 24  # four visits of each moment: 12 s are six windows of 2 s
    shown = [whose(windows.at(chapter * uses)[0]) for chapter in range(24)]
    assert [sorted(shown[i : i + 8]) for i in (0, 8, 16)] == [list(range(8))] * 3 and shown[:8] != shown[8:16]
    windows.window.close()
    assert max(reads.values()) <= 5 and sum(reads.values()) <= 24 + 2 + 1
    assert streamed(meetings, told, fraction=0.25).window.uses_per_chapter == 96


def batches_of(windows, make_simulator, fraction: float = 0.5) -> TrainingBatches:
    return TrainingBatches(
        make_simulator(window_seconds=2.0), windows, real_fraction=fraction, effective_batch=4, seed=0
    )


def test_batches_of_a_run_that_was_stopped_are_those_of_one_that_was_not(meetings, told, make_simulator):
    undisturbed = batches_of(streamed(meetings, told), make_simulator)
    wanted = take(undisturbed, 0, 60)
    for step in (1, 13, 55):
        states = undisturbed.state(step)
        assert set(states) == {"recordings"} and len(str(states)) < 1_000
        assert states["recordings"]["consumed"] + 8 * states["recordings"]["epoch"] == 4 * step // 24
        again = batches_of(streamed(meetings, told), make_simulator)
        again.load_state(json.loads(json.dumps(states)))
        assert same(take(again, step, 5), wanted[step : step + 5])
    for others in (meetings[:-1], meetings[::-1]):
        with pytest.raises(ChangedError):
            batches_of(streamed(others, told), make_simulator).load_state(undisturbed.state(3))


def damage(path: Path, samples: Samples, number: int) -> None:
    content, arrays = bytearray(path.read_bytes()), samples.index.arrays
    content[arrays["offset"][number] + arrays["length"][number] // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_broken_recording_is_left_out_and_told_and_training_goes_on(
    meetings, problems, make_simulator, tmp_path, told
):
    import pyarrow.parquet as pq

    path = tmp_path / "meetings" / "0.parquet"
    whole = pq.read_table(path).to_pylist()
    damage(path, meetings[0].samples, 3)
    # Where pages are compressed, a later value may be told by the bytes of an earlier one: then both are broken.
    broken = [
        number
        for number, (row, now) in enumerate(zip(whole, pq.read_table(path).to_pylist(), strict=True))
        if row != now
    ]
    assert 3 in broken and len(broken) <= 2
    with pytest.raises(BrokenSampleError):
        read_recording(meetings[3])
    batches = batches_of(streamed(meetings, told, held=3), make_simulator)
    wanted = take(batches, 0, 80)
    assert batches.state(80)["recordings"]["quarantined"] == {"recordings": broken}, dict(problems)
    assert sorted(problems) == [f"recordings, sample {number}" for number in broken]
    again = batches_of(streamed(meetings, told, held=3), make_simulator)
    again.load_state(batches.state(40))
    assert same(take(again, 40, 10), wanted[40:50])


def test_a_broken_file_of_a_folder_is_left_out_too(tmp_path, problems, told):
    for k in range(4):
        write_wav(tmp_path / f"{k}.wav", wave_of(k), 16_000)
        (tmp_path / f"{k}.rttm").write_text(f"SPEAKER {k} 1 0.5 3.5 <NA> <NA> a <NA> <NA>\n")
    recordings = find_recordings(str(tmp_path), "*.rttm", told)
    (tmp_path / "2.wav").write_bytes((tmp_path / "2.wav").read_bytes()[:50_000])
    windows = streamed(recordings, told, held=2)
    seen = {whose(one) for index in range(0, 40 * windows.window.uses_per_chapter, 24) for one in windows.at(index)}
    assert seen == {0, 1, 3} and list(problems) == ["recordings, sample 2"]
    windows.window.close()


def test_a_source_that_does_not_answer_is_no_broken_recording(meetings, told, monkeypatch):
    def fail(number, **how):
        raise DataError("the network is down", fix="wait")

    windows = streamed(meetings, told)
    with monkeypatch.context() as patch:
        patch.setattr(meetings[0].samples, "read_wave", fail)
        with pytest.raises(DataError, match="the network is down"):
            windows.sample(0)
    assert windows.stream.num_quarantined == 0 and windows.sample(0).scored.any()
    windows.window.close()


@pytest.mark.parametrize(
    "hours, kind", [(8 * SECONDS / 3_600 + 0.001, RecordingWindows), (held_hours(2), StreamedWindows)]
)
def test_recordings_stream_where_they_do_not_fit_and_the_choice_is_told(meetings, told, hours, kind):
    how = HOW | {"max_hours": hours, "fraction": 0.5}
    windows = training_windows(meetings, told, **how)
    assert type(windows) is kind and told.choices[-1][:2] == ("recordings.materialise", kind is RecordingWindows)
    assert windows.sample(3).wave.shape == (32_000,)
    assert training_windows([], told, **how) is None


def test_labels_in_a_tar_lie_beside_the_audio_as_rttm_or_as_json(tmp_path, problems, told):
    files = {
        "x/one.flac": flac_bytes(wave_of(0), 16_000),
        "two.flac": flac_bytes(wave_of(1), 16_000),
        "none.flac": flac_bytes(wave_of(2), 16_000),
        "bad.flac": flac_bytes(wave_of(3), 16_000),
        "x/one.rttm": (
            "SPEAKER one 1 0.5 3.5 <NA> <NA> Zoë <NA> <NA>\nSPEAKER one 1 8 99 <NA> <NA> b <NA> <NA>\nrubbish\n"
        ).encode(),
        "two.json": json.dumps(lists(TURNS)).encode(),
        "bad.json": json.dumps(lists(TURNS) | {"speakers": []}).encode(),
    }
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    one, two = labelled_samples(indexed(tmp_path, told), told)
    assert one.turns[0] == (0.5, 4.0, "Zoë") and one.turns[1].start_seconds == 8.0 and one.name == "00000-one"
    assert [tuple(t) for t in two.turns] == [tuple(t) for t in TURNS]
    assert set(problems) == {"none", "bad"}
    assert np.array_equal(RecordingWindows([one], **HOW).at(0)[0].active[200:400].any(1), np.zeros(200, bool))


@pytest.mark.parametrize(
    "turns, kept",
    [
        ([[0, 1, "a"], [11.5, 99, "b"]], [(0, 1, "a"), (11.5, 12, "b")]),
        ([[-1, 1, 5]], [(0, 1, "5")]),
        ([[3, 3, "a"], [12, 13, "b"]], []),
        ([[float("nan"), 1, "a"], [1, 2, "b"]], [(1, 2, "b")]),
        ([], []),
        ([["x", 1, "a"]], None),
        ("words", None),
        ([[1, 2]], None),
        (7, None),
    ],
)
def test_turns_that_cannot_be_are_cut_left_out_or_told(meetings, problems, turns, kept, told):
    index = meetings[0].samples.index
    texts = [json.dumps(turns), *index.columns["turns"].to_list()[1:]]
    index.columns["turns"] = type(index.columns["turns"]).of(texts)
    found = labelled_samples(meetings[0].samples, told)
    assert len(found) == 7 + bool(kept) and len(problems) == (not kept)
    assert all("labels" in reason and "\n" not in reason for reason in problems.values())
    if kept:
        assert [tuple(t) for t in found[0].turns] == kept


def test_samples_without_any_labels_are_refused_with_the_setting(tmp_path, problems, told):
    (tmp_path / "0.parquet").write_bytes(parquet_of([flac_bytes(wave_of(0), 16_000)], {"id": ["a"]}))
    with pytest.raises(DataError) as caught:
        labelled_samples(indexed(tmp_path, told), told)
    assert "recordings.columns" in caught.value.fix and list(problems) == ["a"]


def test_recordings_of_the_hub_are_listed_once_and_opened_from_the_listing(tmp_path, problems, monkeypatch, told):
    turns = {"begin" if n == "timestamps_start" else n: [v] * 3 for n, v in lists(TURNS).items()}
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        shard = parquet_of([flac_bytes(wave_of(i), 16_000) for i in range(3)], turns)
        hub.add_dataset("org/talk", {"data/train-00000-of-00001.parquet": shard})
        config = RecordingsConfig(train_source="hub:org/talk", columns=("turn_starts=begin",))
        names = list_recordings(config, "train", tmp_path, told)
        assert len(names) == 3 and list_recordings(config, "test", tmp_path, told) == []
        found = open_recordings(config, "train", tmp_path, told, cache=tmp_path / "cache", cache_gib=0.1)
        assert [r.name for r in found] == names and [tuple(t) for t in found[2].turns] == [tuple(t) for t in TURNS]
        windows = RecordingWindows(found, **HOW)
    assert [whose(one) for one in windows.loaded] == [0, 1, 2] and problems == {}
    assert all(np.allclose(read_recording(r), wave_of(k), atol=1e-4) for k, r in enumerate(found))  # from the cache
