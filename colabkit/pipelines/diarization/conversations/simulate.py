"""Conversations made on the fly from single-speaker speech; sample k is a pure function of (seed, k).

Nothing is written anywhere: speech, rooms and noises stay in memory.
Source: turn taking after Landini et al. 2022; the speaker's rooms are exponentially decaying noise (Polack's model).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from colabkit.core.errors import DataError
from colabkit.pipelines.diarization import FRAME_SAMPLES, RATE_HZ
from colabkit.pipelines.diarization.conversations.turn_taking import TurnTaking
from colabkit.pipelines.diarization.speech.bank import SpeakerMaterial, SpeechBank

NUM_ROOMS = 160
NUM_NOISES = 48
ROOM_SAMPLES = 4_800  # 0.3 s
BLOCK_SAMPLES = 16_384  # of the FFT
EDGE_SAMPLES = 512
NOISE_SECONDS = 12


def _telephone_band() -> np.ndarray:
    """Return the spectrum of a 300 to 3400 Hz band, its edges 200 Hz wide so that it rings for a few samples only."""
    hz = np.linspace(0, RATE_HZ / 2, BLOCK_SAMPLES // 2 + 1)
    rise, fall = np.clip((hz - 200) / 200, 0, 1), np.clip((3_500 - hz) / 200, 0, 1)
    return (np.sin(np.pi / 2 * rise) * np.sin(np.pi / 2 * fall)).astype(np.float32) ** 2


TELEPHONE_BAND = _telephone_band()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training or test window.

    Shapes: wave (sample,) float32; active (frame, speaker) bool; speaker_ids (speaker,) int, the speaker's place in
    the bank or -1; scored (frame,) bool, False where the labels are not to be trusted.
    """

    wave: np.ndarray
    active: np.ndarray
    speaker_ids: np.ndarray
    scored: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Acoustics:
    """What may happen to the sound; probabilities per conversation or speaker, levels in dB."""

    room_probability: float = 0.6
    noise_probability: float = 0.8
    snr_db: tuple[float, float] = (5.0, 30.0)
    gain_db: float = 6.0
    tilt_db: float = 6.0
    telephone_probability: float = 0.05
    speed_change: float = 0.12


class ConversationSimulator:
    """Draws conversations from a bank of speakers.

    `speaker_counts` maps the number of speakers in a window to its weight. `max_speakers` columns are returned.
    Raises: DataError when the bank has fewer speakers than a conversation needs.
    """

    def __init__(
        self,
        bank: SpeechBank,
        turn_taking: TurnTaking,
        *,
        seed: int,
        window_seconds: float,
        speaker_counts: dict[int, float],
        max_speakers: int,
        acoustics: Acoustics | None,
        same_sex_probability: float = 0.5,
        noises: list[np.ndarray] = (),
        rooms: list[np.ndarray] = (),
    ):
        needed = max(speaker_counts)
        if bank.num_classes < needed:
            raise DataError(
                "Cannot make conversations",
                got=f"{bank.num_classes} speaker(s) with usable speech",
                expected=f"at least {needed}",
                where="speech",
                fix="add recordings of more speakers, or shorten simulate.speaker_weights",
            )
        self.bank, self.turn_taking, self.seed = bank, turn_taking, seed
        self.num_frames = round(window_seconds * RATE_HZ / FRAME_SAMPLES)
        self.counts = np.array(list(speaker_counts))
        self.weights = np.array(list(speaker_counts.values()), float) / sum(speaker_counts.values())
        self.max_speakers, self.acoustics = max_speakers, acoustics
        self.same_sex_probability = same_sex_probability
        rng = np.random.default_rng([seed, 0x500])
        self.rooms = list(rooms) or [synthetic_room(rng) for _ in range(NUM_ROOMS)]
        self.noises = list(noises) + [synthetic_noise(rng) for _ in range(NUM_NOISES)]
        self._room_spectra: dict[int, np.ndarray] = {}

    def sample(self, index: int) -> Sample:
        """Return conversation `index`; the same for the same (seed, index), in any order, on any machine."""
        rng = np.random.default_rng([self.seed, 0xC0, index])
        bank = self.bank.at(index)
        ids = self._choose_speakers(bank, rng)
        tracks, active = self._take_turns([bank.speakers[i] for i in ids], rng)
        wave = self._mix(tracks, rng)
        columns = np.zeros((self.num_frames, self.max_speakers), bool)
        columns[:, : len(ids)] = active
        speaker_ids = np.full(self.max_speakers, -1)
        speaker_ids[: len(ids)] = bank.ids[ids]
        return Sample(wave=wave, active=columns, speaker_ids=speaker_ids, scored=np.ones(self.num_frames, bool))

    def _choose_speakers(self, bank: SpeechBank, rng: np.random.Generator) -> np.ndarray:
        num_speakers = int(rng.choice(self.counts, p=self.weights))
        pool = np.arange(len(bank.speakers))
        by_sex = [ids for ids in bank.by_sex if len(ids) >= max(self.counts)]
        if by_sex and rng.random() < self.same_sex_probability:
            pool = by_sex[int(rng.integers(len(by_sex)))]
        if len(pool) < num_speakers:
            raise DataError(
                "Too little speech is in memory at once",
                got=f"{len(pool)} speakers",
                expected=f"at least {num_speakers}, as simulate.speaker_weights asks for",
                where="speech.max_hours",
                fix="--set speech.max_hours=6, or as much as memory allows",
            )
        return rng.choice(pool, num_speakers, replace=False)

    def _take_turns(self, speakers: list[SpeakerMaterial], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Lay out turns; returns tracks (speaker, sample) float32 and activity (frame, speaker)."""
        taking, num_speakers = self.turn_taking, len(speakers)
        tracks = np.zeros((num_speakers, self.num_frames * FRAME_SAMPLES), np.float32)
        active = np.zeros((self.num_frames, num_speakers), bool)
        speeds = np.ones(num_speakers)
        if self.acoustics:
            speeds += rng.uniform(-1, 1, num_speakers) * self.acoustics.speed_change
        readers = [_Reader(speaker, speed, rng) for speaker, speed in zip(speakers, speeds, strict=True)]
        # The habits of a conversation differ more between conversations than within one.
        overlap_probability = rng.uniform(0, 2) * taking.overlap_probability
        same_probability = rng.uniform(0.3, 1) * taking.same_probability
        pace = np.exp(rng.uniform(-1.2, 0.4))
        cursor = -int(rng.uniform(0, 4) * RATE_HZ / FRAME_SAMPLES)
        speaker = int(rng.integers(num_speakers))
        start = cursor
        while start < self.num_frames:
            seconds = min(max(taking.draw("turn", rng), 0.3), 12.0)
            piece, mask = readers[speaker].take(max(int(seconds * RATE_HZ / FRAME_SAMPLES), 10))
            _lay(piece, mask, start, tracks[speaker], active[:, speaker])
            end = start + len(mask)
            cursor = max(cursor, end)
            if num_speakers == 1 or rng.random() < same_probability:
                start = end + _frames(taking.draw("same_pause", rng) * pace) + 5
                continue
            speaker = (speaker + int(rng.integers(1, num_speakers))) % num_speakers
            if rng.random() < overlap_probability:
                start = max(cursor - _frames(taking.draw("overlap", rng)), start + 5)
                # The next one must not talk over themselves.
                own = np.flatnonzero(active[max(start, 0) :, speaker])
                start = max(start, 0) + own[-1] + 5 if len(own) else start
            else:
                start = cursor + _frames(taking.draw("change_gap", rng) * pace)
        return tracks, active

    def _mix(self, tracks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Put every speaker into a room, add noise, set the level. Shapes: (speaker, sample) -> (sample,)."""
        if self.acoustics is None:
            return tracks.sum(0)
        sound, num_samples = self.acoustics, tracks.shape[1]
        responses = []
        for _ in tracks:
            gain = 10 ** (rng.uniform(-1, 1) * sound.gain_db / 20)
            response = gain * _tilt(BLOCK_SAMPLES // 2 + 1, rng.uniform(-1, 1) * sound.tilt_db)
            if rng.random() < sound.room_probability:
                response = response * self._room_spectrum(int(rng.integers(len(self.rooms))))
            responses.append(response)
        if rng.random() < sound.telephone_probability:
            responses = [response * TELEPHONE_BAND for response in responses]
        wave = _filter_and_sum(tracks, responses)
        if rng.random() < sound.noise_probability:
            wave = wave + self._noise(num_samples, rng) * _speech_level(wave) * 10 ** (-rng.uniform(*sound.snr_db) / 20)
        return (wave * 10 ** (rng.uniform(-1, 1) * sound.gain_db / 20)).astype(np.float32)

    def _room_spectrum(self, number: int) -> np.ndarray:
        from scipy import fft

        if number not in self._room_spectra:
            self._room_spectra[number] = fft.rfft(self.rooms[number].astype(np.float32), BLOCK_SAMPLES)
        return self._room_spectra[number]

    def _noise(self, num_samples: int, rng: np.random.Generator) -> np.ndarray:
        noise = self.noises[int(rng.integers(len(self.noises)))]
        return np.take(noise, np.arange(num_samples) + int(rng.integers(len(noise))), mode="wrap")


class _Reader:
    """Hands out consecutive stretches of one speaker's speech, from a random place on, at one speed."""

    def __init__(self, speaker: SpeakerMaterial, speed: float, rng: np.random.Generator):
        self.speaker, self.speed = speaker, speed
        self.utterance = int(rng.integers(len(speaker.waves)))
        self.frame = int(rng.integers(max(len(speaker.masks[self.utterance]) - 10, 1)))

    def take(self, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Return up to `num_frames` frames, at most to the end of the utterance: wave and speech frames."""
        mask = self.speaker.masks[self.utterance]
        onset = self.frame + int(np.argmax(mask[self.frame :]))  # begin with speech
        last = min(onset + round(num_frames * self.speed), len(mask))
        wave = self.speaker.waves[self.utterance][onset * FRAME_SAMPLES : last * FRAME_SAMPLES]
        taken = mask[onset:last]
        self.frame = last
        if last > len(mask) - 10:
            self.utterance = (self.utterance + 1) % len(self.speaker.waves)
            self.frame = 0
        return change_speed(wave, taken, self.speed)


def change_speed(wave: np.ndarray, mask: np.ndarray, speed: float) -> tuple[np.ndarray, np.ndarray]:
    """Play int16 speech faster or slower, pitch and all: a new speaker. Returns float32 wave and its frames."""
    wave = wave.astype(np.float32) * (1 / 32768)
    if abs(speed - 1) < 5e-3:
        return wave, mask
    import soxr

    changed = soxr.resample(wave, RATE_HZ * speed, RATE_HZ, quality="QQ")
    num_frames = len(changed) // FRAME_SAMPLES
    source = np.minimum((np.arange(num_frames) * speed + 0.5 * speed).astype(int), len(mask) - 1)
    return changed[: num_frames * FRAME_SAMPLES], mask[source]


def _lay(piece: np.ndarray, mask: np.ndarray, start: int, track: np.ndarray, active: np.ndarray) -> None:
    """Add a piece at frame `start` (may lie partly outside) with 5 ms fades at its ends."""
    if len(mask) == 0:
        return
    ramp = np.linspace(0, 1, 80, dtype=np.float32)
    piece = piece.copy()
    piece[:80] *= ramp
    piece[-80:] *= ramp[::-1]
    first, last = max(start, 0), min(start + len(mask), len(active))
    if first < last:
        active[first:last] |= mask[first - start : last - start]
        track[first * FRAME_SAMPLES : last * FRAME_SAMPLES] += piece[
            (first - start) * FRAME_SAMPLES : (last - start) * FRAME_SAMPLES
        ]


def _frames(seconds: float) -> int:
    return round(seconds * RATE_HZ / FRAME_SAMPLES)


def _filter_and_sum(tracks: np.ndarray, responses: list[np.ndarray]) -> np.ndarray:
    """Filter each track by its spectrum and add them up.

    Shapes: (speaker, sample), spectra of BLOCK_SAMPLES -> (sample,).

    Overlap-save: blocks go through one batched FFT, which takes half the time of one long one. A filter may ring for
    ROOM_SAMPLES after a sound and EDGE_SAMPLES before it.
    """
    from scipy import fft

    num_samples = tracks.shape[1]
    step = BLOCK_SAMPLES - ROOM_SAMPLES - EDGE_SAMPLES
    num_blocks = -(-num_samples // step)
    padded = np.zeros(num_blocks * step + ROOM_SAMPLES + EDGE_SAMPLES, np.float32)
    spectrum = np.zeros((num_blocks, BLOCK_SAMPLES // 2 + 1), np.complex64)
    for track, response in zip(tracks, responses, strict=True):
        padded[ROOM_SAMPLES : ROOM_SAMPLES + num_samples] = track
        blocks = np.lib.stride_tricks.sliding_window_view(padded, BLOCK_SAMPLES)[::step]
        spectrum += fft.rfft(blocks, axis=1) * response.astype(np.complex64, copy=False)
    wave = fft.irfft(spectrum, BLOCK_SAMPLES, axis=1)[:, ROOM_SAMPLES : ROOM_SAMPLES + step]
    return wave.reshape(-1)[:num_samples]


def _tilt(num_bins: int, tilt_db: float) -> np.ndarray:
    """A straight line in dB from +tilt/2 at 0 Hz to -tilt/2 at 8 kHz."""
    return (10 ** (np.linspace(tilt_db / 2, -tilt_db / 2, num_bins, dtype=np.float32) / 20)).astype(np.float32)


def _speech_level(wave: np.ndarray) -> float:
    """Level of the louder half of the frames (so that pauses do not count); never zero."""
    power = np.square(wave).reshape(-1, FRAME_SAMPLES).mean(1)
    return float(np.sqrt(power[power >= np.median(power)].mean()) + 1e-4)


def synthetic_room(rng: np.random.Generator) -> np.ndarray:
    """A room's impulse response: the direct sound, then noise that decays exponentially. Shape (4800,) float32."""
    decay_seconds = rng.uniform(0.08, 0.6)  # to -60 dB
    time = np.arange(ROOM_SAMPLES) / RATE_HZ
    tail = rng.standard_normal(ROOM_SAMPLES) * np.exp(-6.9 * time / decay_seconds)
    tail[: int(rng.uniform(0.001, 0.008) * RATE_HZ)] = 0
    direct_to_reverberant = 10 ** (rng.uniform(-3, 12) / 20)
    tail *= 1 / (np.sqrt(np.square(tail).sum()) * direct_to_reverberant + 1e-9)
    tail[0] += 1.0
    return (tail / np.sqrt(np.square(tail).sum())).astype(np.float32)


def synthetic_noise(rng: np.random.Generator) -> np.ndarray:
    """Stationary noise of a random colour, at unit level, its loudness drifting. Shape (192000,) float32."""
    from scipy import fft

    num_samples = NOISE_SECONDS * RATE_HZ
    frequency = np.linspace(1 / num_samples, 1, num_samples // 2 + 1)
    spectrum = fft.rfft(rng.standard_normal(num_samples).astype(np.float32))
    shape = frequency ** -rng.uniform(0, 1)
    for _ in range(int(rng.integers(0, 4))):  # a few resonances, such as fans and hums have
        shape = shape * (
            1 + rng.uniform(0, 8) * np.exp(-np.square((frequency - rng.uniform(0, 0.5)) / rng.uniform(0.005, 0.1)))
        )
    noise = fft.irfft(spectrum * shape, num_samples)
    drift = np.interp(np.arange(num_samples), np.linspace(0, num_samples, 13), 10 ** (rng.uniform(-4, 4, 13) / 20))
    noise *= drift
    return (noise / np.sqrt(np.square(noise).mean())).astype(np.float32)
