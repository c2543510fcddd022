"""Batches: pure functions of their number, made ahead in a thread that ends and whose errors arrive."""

from __future__ import annotations

import threading
from contextlib import closing

import numpy as np
import pytest
import torch

from colabkit.core.errors import DataError
from colabkit.io.audio import write_wav
from colabkit.pipelines.diarization.config import EvaluateConfig, SimulateConfig
from colabkit.pipelines.diarization.conversations.simulate import Sample
from colabkit.pipelines.diarization.train import batches
from colabkit.pipelines.diarization.train.batches import Batch, TrainingBatches


class Numbers:
    """Stands for a simulator: sample k holds the number k."""

    def __init__(self, sign=1, fails_at=None):
        self.sign, self.fails_at, self.made = sign, fails_at, []

    def sample(self, k):
        if k == self.fails_at:
            raise DataError("sample 5 is broken", fix="mend it")
        self.made.append(k)
        return Sample(
            wave=np.full(320, self.sign * k, np.float32),
            active=np.zeros((1, 2), bool),
            speaker_ids=np.full(2, -1),
            scored=np.ones(1, bool),
        )


def numbers_in(batch):
    return batch.wave[:, 0].int().tolist()


def batches_of(**how):
    return TrainingBatches(
        how.pop("simulator", None) or Numbers(),
        how.pop("recordings", None),
        **{"real_fraction": 0.0, "effective_batch": 4, "seed": 0} | how,
    )


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in Batch.__slots__)


def test_batches_hold_consecutive_windows():
    batches = batches_of()
    assert [numbers_in(batches.batch(k)) for k in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize("step", [0, 1, 7])
def test_the_feed_gives_from_any_step_what_batch_gives(make_simulator, step):
    batches = batches_of(simulator=make_simulator(window_seconds=2.0))
    with closing(batches.from_step(step)) as feed:
        for k in range(step, step + 4):
            assert same(next(feed), batches.batch(k))


def test_types_and_shapes(make_simulator):
    batch = batches_of(simulator=make_simulator(window_seconds=2.0)).batch(0)
    assert batch.wave.shape == (4, 32_000) and batch.wave.dtype == torch.float32
    assert batch.active.shape == (4, 100, 2) and batch.active.dtype == torch.bool
    assert batch.speaker_ids.shape == (4, 2) and batch.speaker_ids.dtype == torch.int64
    assert batch.scored.shape == (4, 100) and batch.scored.dtype == torch.bool


def test_parts_and_devices_keep_everything_together(make_simulator):
    batch = batches_of(simulator=make_simulator(window_seconds=1.0)).batch(0)
    parts = [batch.part(0, 3), batch.part(3, 99)]
    assert [len(p.wave) for p in parts] == [3, 1]
    joined = Batch(*(torch.cat([getattr(p, name) for p in parts]) for name in Batch.__slots__))
    assert same(joined, batch) and same(batch.to(torch.device("cpu")), batch)


def test_closing_the_feed_ends_its_thread_and_it_made_little_ahead():
    numbers = Numbers()
    before = set(threading.enumerate())
    feed = batches_of(simulator=numbers).from_step(0, ahead=2)
    next(feed)
    thread = set(threading.enumerate()) - before
    assert len(thread) == 1
    feed.close()
    assert not thread & set(threading.enumerate())
    assert len(numbers.made) <= 4 * 5  # one used, two waiting, one in the hand of the thread, one begun


def test_a_feed_that_was_never_asked_starts_nothing():
    before = threading.active_count()
    batches_of().from_step(0).close()
    assert threading.active_count() == before


@pytest.mark.timeout(20)
def test_an_error_in_the_thread_reaches_who_asks_and_ends_it():
    before = threading.active_count()
    feed = batches_of(simulator=Numbers(fails_at=5)).from_step(0)
    assert numbers_in(next(feed)) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="sample 5 is broken"):
        next(feed)
    assert threading.active_count() == before and list(feed) == []


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_out_the_same_batch(world):
    for k in range(3):
        shares = [numbers_in(batches_of(effective_batch=12, rank=rank, world=world).batch(k)) for rank in range(world)]
        assert sorted(sum(shares, [])) == list(range(12 * k, 12 * k + 12)) and len({len(s) for s in shares}) == 1


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_real_windows_are_as_frequent_as_asked_and_always_the_same(fraction):
    batches = batches_of(recordings=Numbers(sign=-1), real_fraction=fraction, effective_batch=100)
    got = [n for k in range(5) for n in numbers_in(batches.batch(k))]
    assert [abs(n) for n in got] == list(range(500))
    assert np.mean(np.array(got[1:]) < 0) == pytest.approx(fraction, abs=0.07 if 0 < fraction < 1 else 0)
    assert got == [n for k in range(5) for n in numbers_in(batches.batch(k))]


def test_without_recordings_nothing_is_real():
    assert numbers_in(batches_of(real_fraction=0.9).batch(3)) == [12, 13, 14, 15]


def test_simulators_of_training_and_test(bank):
    config = SimulateConfig(window_seconds=2.0, speaker_weights=(0.0, 1.0))
    training = batches.training_simulator(bank, config, seed=0, max_speakers=3)
    assert training.counts.tolist() == [2] and training.sample(0).active.shape == (100, 3)
    testing = batches.held_out_simulator(bank, EvaluateConfig(), seconds=3.0, num_speakers=3, seed=1)
    assert testing.sample(0).active.shape == (150, 3) and (testing.sample(0).speaker_ids >= 0).all()
    assert testing.acoustics.speed_change == 0 and testing.acoustics.telephone_probability == 0


def test_turn_taking_is_measured_where_a_folder_is_given(tmp_path):
    (tmp_path / "a.rttm").write_text(
        "SPEAKER a 1 0 1 <NA> <NA> x <NA> <NA>\nSPEAKER a 1 1.55 1 <NA> <NA> y <NA> <NA>\n"
    )
    taking = batches.turn_taking(SimulateConfig(turn_taking_folder=str(tmp_path)))
    assert taking.source == str(tmp_path) and taking.turn.sum() == pytest.approx(2, abs=1e-3)
    assert "AMI" in batches.turn_taking(SimulateConfig()).source


def test_a_folder_without_turns_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError) as caught:
            batches.turn_taking(SimulateConfig(turn_taking_folder=str(folder)))
        assert "turn_taking_folder" in caught.value.fix


def test_sounds_come_at_unit_level_and_none_are_refused(tmp_path):
    assert batches.read_sounds("") == []
    with pytest.raises(DataError):
        batches.read_sounds(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="holds no audio"):
        batches.read_sounds(str(tmp_path))
    write_wav(tmp_path / "x.wav", 0.01 * np.sin(np.arange(44_100)).astype(np.float32), 44_100)
    (sound,) = batches.read_sounds(str(tmp_path))
    assert len(sound) == 16_000 and np.square(sound).mean() == pytest.approx(1, rel=1e-3)


def test_a_room_from_a_file_delays_nothing_and_keeps_levels(tmp_path, bank):
    """Measured responses begin with up to 0.2 s of travel, and have any level."""
    response = np.zeros(12_000, np.float32)
    response[3_000], response[3_400] = 0.01, 0.002
    write_wav(tmp_path / "room.wav", response, 16_000)
    config = SimulateConfig(room_folder=str(tmp_path), window_seconds=2.0)
    (room,) = batches.training_simulator(bank, config, seed=0, max_speakers=3).rooms
    assert len(room) <= 4_800 and room.argmax() == 0 and np.square(room).sum() == pytest.approx(1, rel=1e-3)
