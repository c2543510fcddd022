"""Simulated conversations: pure functions of seed and number, labels that match the sound, voices that are apart."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.pipelines.diarization.conversations.simulate import (
    Acoustics,
    change_speed,
    synthetic_noise,
    synthetic_room,
)
from colabkit.pipelines.diarization.speech.bank import SpeakerMaterial, SpeechBank

REPOSITORY = Path(__file__).parents[4]
FIELDS = ("wave", "active", "speaker_ids", "scored")


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


def test_a_sample_is_the_same_in_any_order(make_simulator, loud_acoustics):
    first, second = (make_simulator(acoustics=loud_acoustics) for _ in range(2))
    forward = {k: first.sample(k) for k in range(4)}
    assert all(same(second.sample(k), forward[k]) for k in (3, 0, 2, 1, 0))


def test_samples_differ_by_number_and_by_seed(make_simulator):
    one, other = make_simulator(seed=0), make_simulator(seed=1)
    waves = {hashlib.sha1(s.sample(k).wave.tobytes()).hexdigest() for s in (one, other) for k in range(6)}
    assert len(waves) == 12


IN_ANOTHER_PROCESS = """
import hashlib, sys
import numpy as np
from colabkit.pipelines.diarization.conversations.simulate import Acoustics, ConversationSimulator
from colabkit.pipelines.diarization.speech.bank import SpeakerMaterial, SpeechBank
from colabkit.pipelines.diarization.conversations.turn_taking import measured_meetings
stored = np.load(sys.argv[1])
speakers = [SpeakerMaterial(f"s{i}", "FM"[i % 2], [stored[f"w{i}{j}"] for j in range(2)], \
[stored[f"m{i}{j}"] for j in range(2)])
            for i in range(8)]
simulator = ConversationSimulator(SpeechBank(speakers), measured_meetings(), seed=3, window_seconds=6.0,
                                  speaker_counts={2: 1.0}, max_speakers=2, \
acoustics=Acoustics(telephone_probability=0.5))
simulator.sample(9)
print(hashlib.sha256(b"".join(simulator.sample(k).wave.tobytes() for k in (2, 5))).hexdigest())
"""


def test_another_process_makes_the_same_bytes(bank, make_simulator, loud_acoustics, tmp_path):
    np.savez(
        tmp_path / "bank.npz",
        **{
            f"{kind}{i}{j}": part
            for i, s in enumerate(bank.speakers)
            for kind, parts in (("w", s.waves), ("m", s.masks))
            for j, part in enumerate(parts)
        },
    )
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "bank.npz")],
        text=True,
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "7"},
    )
    simulator = make_simulator(seed=3, acoustics=loud_acoustics)
    ours = hashlib.sha256(b"".join(simulator.sample(k).wave.tobytes() for k in (2, 5))).hexdigest()
    assert done.stdout.strip() == ours


def test_shapes_and_types(make_simulator, loud_acoustics):
    sample = make_simulator(
        window_seconds=5.0, speaker_counts={1: 1.0}, max_speakers=3, acoustics=loud_acoustics
    ).sample(0)
    assert sample.wave.shape == (80_000,) and sample.wave.dtype == np.float32
    assert sample.active.shape == (250, 3) and sample.active.dtype == bool and not sample.active[:, 1:].any()
    assert sample.scored.shape == (250,) and sample.scored.all()
    assert sample.speaker_ids.shape == (3,) and (sample.speaker_ids[1:] == -1).all() and 0 <= sample.speaker_ids[0] < 8


def test_no_sample_holds_nan_or_a_level_that_is_out_of_hand(make_simulator, loud_acoustics):
    simulator = make_simulator(speaker_counts={1: 0.2, 2: 0.4, 3: 0.4}, max_speakers=3, acoustics=loud_acoustics)
    for k in range(40):
        wave = simulator.sample(k).wave
        assert (
            np.isfinite(wave).all() and wave.any() and np.sqrt(np.square(wave).mean()) < 1.0 and np.abs(wave).max() < 10
        )


def test_silent_frames_are_silent_and_labelled_ones_are_not(make_simulator):
    """Without noise and room: what is labelled silent lies 20 dB and more below what is labelled speech."""
    quiet = []
    simulator = make_simulator(window_seconds=20.0)
    for k in range(6):
        sample = simulator.sample(k)
        energy = np.square(sample.wave.reshape(-1, 320)).mean(1)
        talking = sample.active.any(1)
        assert energy[talking].mean() > 100 * (energy[~talking].mean() + 1e-12)
        quiet.append(np.mean(energy[talking] < 1e-3 * energy[talking].mean()))
    assert np.mean(quiet) < 0.15  # pauses below 0.3 s count as speech, long stretches of nothing do not


def test_each_label_follows_its_own_voice(make_simulator, bank):
    """Where one speaker alone talks, the pitch is that speaker's: buzz i has F0 = 90 + 23 i Hz."""
    simulator = make_simulator(window_seconds=20.0)
    right = total = 0
    for k in range(4):
        sample = simulator.sample(k)
        for column in range(2):
            alone = sample.active[:, column] & (sample.active.sum(1) == 1)
            wave = sample.wave.reshape(-1, 320)[alone].reshape(-1)
            if len(wave) < 16_000:
                continue
            spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
            peak_hz = np.argmax(spectrum[: int(300 * len(wave) / 16_000)]) * 16_000 / len(wave)
            right += abs(peak_hz - (90 + 23 * sample.speaker_ids[column])) < 5
            total += 1
    assert total >= 4 and right == total


def test_the_bank_bounds_who_talks(make_simulator, make_bank):
    """Simulators of two halves of the speakers share none: splits stay apart whatever is drawn."""
    whole = make_bank(8)
    names = []
    for part in (whole.speakers[:4], whole.speakers[4:]):
        simulator = make_simulator(SpeechBank(part))
        names.append({part[i].name for k in range(20) for i in simulator.sample(k).speaker_ids})
    assert names[0] == {"speaker0", "speaker1", "speaker2", "speaker3"} and not names[0] & names[1]


def test_two_columns_are_never_the_same_person(make_simulator):
    simulator = make_simulator(speaker_counts={3: 1.0}, max_speakers=3, same_sex_probability=1.0)
    for k in range(30):
        ids = simulator.sample(k).speaker_ids
        assert len(set(ids.tolist())) == 3 and len({i % 2 for i in ids.tolist()}) == 1


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_conversations_of_one_sex_are_as_frequent_as_asked(make_simulator, probability):
    simulator = make_simulator(window_seconds=1.0, same_sex_probability=probability)
    share = np.mean([len(set((simulator.sample(k).speaker_ids % 2).tolist())) == 1 for k in range(200)])
    by_chance = 3 / 7  # of 8 speakers, 4 women and 4 men
    assert share == pytest.approx(probability + (1 - probability) * by_chance, abs=0.12)


def test_a_bank_without_sexes_or_with_too_few_of_one_still_works(make_simulator, bank):
    for sexes in ("", "F"):
        speakers = [
            SpeakerMaterial(s.name, sexes if i == 0 else "", s.waves, s.masks) for i, s in enumerate(bank.speakers)
        ]
        assert make_simulator(SpeechBank(speakers), same_sex_probability=1.0).sample(0).active.any()


def test_numbers_of_speakers_follow_their_weights(make_simulator):
    simulator = make_simulator(window_seconds=1.0, speaker_counts={1: 1.0, 2: 3.0}, max_speakers=2)
    share = np.mean([(simulator.sample(k).speaker_ids >= 0).sum() == 2 for k in range(200)])
    assert share == pytest.approx(0.75, abs=0.1)


def test_overlap_and_silence_have_sane_shares(make_simulator):
    simulator = make_simulator(window_seconds=20.0)
    talking = np.concatenate([simulator.sample(k).active.sum(1) for k in range(40)])
    assert 0.03 < np.mean(talking == 2) < 0.4 and 0.05 < np.mean(talking == 0) < 0.5
    assert np.mean(talking == 1) > 0.35


def test_nobody_talks_over_themselves(make_simulator):
    """A track that held two pieces at once would be louder than one voice ever is."""
    simulator = make_simulator(window_seconds=30.0)
    peak = max(np.abs(w / 32_768).max() for s in simulator.bank.speakers for w in s.waves)
    for k in range(8):
        sample = simulator.sample(k)
        assert np.abs(sample.wave.reshape(-1, 320)[sample.active.sum(1) < 2]).max() <= 1.02 * peak


def test_one_speaker_where_two_are_needed_is_refused(make_simulator, bank):
    with pytest.raises(DataError) as caught:
        make_simulator(SpeechBank(bank.speakers[:1]))
    assert "1 speaker" in str(caught.value) and "at least 2" in str(caught.value) and caught.value.fix
    assert make_simulator(SpeechBank(bank.speakers[:1]), speaker_counts={1: 1.0}).sample(0).active.any()


def test_noise_has_the_level_asked_for(make_simulator, bank):
    """The same conversation with and without noise: their difference is the noise."""
    quiet = Acoustics(
        room_probability=0, noise_probability=0, gain_db=0, tilt_db=0, telephone_probability=0, speed_change=0
    )
    noisy = Acoustics(
        room_probability=0,
        noise_probability=1,
        snr_db=(10, 10),
        gain_db=0,
        tilt_db=0,
        telephone_probability=0,
        speed_change=0,
    )
    clean, mixed = (make_simulator(window_seconds=20.0, acoustics=a).sample(1) for a in (quiet, noisy))
    assert np.array_equal(clean.active, mixed.active)
    noise = mixed.wave - clean.wave
    power = np.square(clean.wave).reshape(-1, 320).mean(1)
    loud = power[power >= np.median(power)].mean()
    assert 10 * np.log10(loud / np.square(noise).mean()) == pytest.approx(10, abs=3)


def test_telephone_takes_away_what_a_telephone_does(make_simulator):
    through = Acoustics(noise_probability=0, telephone_probability=1.0)
    wave = make_simulator(acoustics=through).sample(0).wave
    spectrum = np.square(np.abs(np.fft.rfft(wave)))
    hz = np.fft.rfftfreq(len(wave), 1 / 16_000)
    assert spectrum[(hz < 200) | (hz > 3_600)].sum() < 1e-2 * spectrum.sum()


@pytest.mark.parametrize("speed", [0.88, 0.999, 1.0, 1.12])
def test_speed_changes_length_and_pitch_and_keeps_labels_in_place(speed):
    time = np.arange(64_000) / 16_000
    wave = (8_000 * np.sin(2 * np.pi * 200 * time)).astype(np.int16)
    wave[32_000:] = 0
    mask = np.arange(200) < 100
    changed, frames = change_speed(wave, mask, speed)
    assert len(changed) == 320 * len(frames) and len(frames) == pytest.approx(200 / speed, abs=1.1)
    energy = np.square(changed.reshape(-1, 320)).mean(1) > 1e-4
    assert np.sum(energy != frames) <= 2
    part = changed[:16_000]
    peak_hz = np.argmax(np.abs(np.fft.rfft(part))) * 1.0
    assert peak_hz == pytest.approx(200 * (speed if abs(speed - 1) > 5e-3 else 1), abs=2)


def test_rooms_have_unit_energy_and_begin_with_the_direct_sound():
    for seed in range(20):
        room = synthetic_room(np.random.default_rng(seed))
        assert np.square(room).sum() == pytest.approx(1, rel=1e-4) and room[0] == room.max() > 0.2


def test_noises_have_unit_level_and_differ():
    noises = [synthetic_noise(np.random.default_rng(seed)) for seed in range(3)]
    assert all(np.square(n).mean() == pytest.approx(1, rel=1e-3) and np.isfinite(n).all() for n in noises)
    assert abs(np.corrcoef(noises[0], noises[1])[0, 1]) < 0.1


def test_noises_and_rooms_that_are_given_are_used(make_simulator):
    """A room that delays by 100 ms: the wave must come out delayed."""
    delay = np.zeros(4_800, np.float32)
    delay[1_600] = 1.0
    how = {"gain_db": 0, "tilt_db": 0, "telephone_probability": 0, "speed_change": 0, "noise_probability": 0}
    plain, late = (
        make_simulator(rooms=[delay], acoustics=Acoustics(room_probability=p, **how)).sample(2).wave for p in (0, 1)
    )
    np.testing.assert_allclose(late[1_600:], plain[:-1_600], atol=1e-4)


def test_filtering_in_blocks_equals_filtering_at_once():
    from scipy import fft, signal

    from colabkit.pipelines.diarization.conversations import simulate

    rng = np.random.default_rng(0)
    tracks = rng.standard_normal((2, 50_000)).astype(np.float32)
    rooms = [simulate.synthetic_room(rng) for _ in tracks]
    spectra = [fft.rfft(room, simulate.BLOCK_SAMPLES) for room in rooms]
    direct = sum(signal.fftconvolve(track, room)[:50_000] for track, room in zip(tracks, rooms, strict=True))
    assert np.allclose(simulate._filter_and_sum(tracks, spectra), direct, atol=1e-3)
    # A tilt and the telephone's band ring a little before and after: what the blocks cut off is far below the sound.
    size = fft.next_fast_len(60_000, real=True)
    places = np.linspace(0, 1, size // 2 + 1)
    for response in (simulate._tilt(simulate.BLOCK_SAMPLES // 2 + 1, 6.0), simulate.TELEPHONE_BAND):
        whole = np.interp(places, np.linspace(0, 1, len(response)), response)
        wanted = fft.irfft(fft.rfft(tracks[0], size) * whole, size)[:50_000]
        error = simulate._filter_and_sum(tracks[:1], [response]) - wanted
        assert np.square(error[600:-600]).mean() < 1e-5 * np.square(wanted).mean()
