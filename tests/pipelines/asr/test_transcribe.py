"""Recordings of any length: pieces that overlap, seams that lose and double nothing, times, files of every format."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from colabkit.core.errors import DataError, UsageError
from colabkit.io.audio import write_wav
from colabkit.pipelines.asr.config import ModelConfig, TrainConfig
from colabkit.pipelines.asr.evaluate.decode import BeamDecoder, Timed
from colabkit.pipelines.asr.evaluate.metrics import score
from colabkit.pipelines.asr.model.recognizer import build_model
from colabkit.pipelines.asr.train.loop import train
from colabkit.pipelines.asr.transcribe import (
    Segment,
    Transcriber,
    Transcript,
    captions,
    cut,
    join,
    talk,
    trained_seconds,
    write,
)

RATE_HZ = 16_000
WORDS = ("ab", "ba", "cad", "dac", "bcd", "dcb", "ac", "bd")


@pytest.fixture(scope="module")
def folder(tones, vocabulary, new_run, sizing, tmp_path_factory):
    """A model that has learnt to read tones well."""
    run = new_run(tmp_path_factory.mktemp("trained"))
    settings = TrainConfig(
        steps=160,
        effective_batch=12,
        learning_rate=1e-2,
        validate_every_steps=50,
        checkpoint_every_steps=1000,
        tracker="none",
        validation_samples=20,
    )
    model = ModelConfig(hidden_size=48, num_layers=1, dropout=0.1, mask_time=0.1)
    train(
        settings, build_model(model, vocabulary), tones(600, words=WORDS), tones(20, seed=1, words=WORDS), sizing(), run
    )
    return run.path / "model"


@pytest.fixture(scope="module")
def talk_of(tones):
    """Return a maker of a long recording: (text, wave, [(word, its second)]), with pauses between sentences or not."""

    def make(num_sentences, pause_seconds, seed=7):
        speech = tones(num_sentences, seed=seed, words=WORDS)
        waves, texts, place, words = [], [], 0, []
        for i in range(num_sentences):
            wave = speech.read(i)[: len(speech.read(i)) - int(speech.pauses[i] * RATE_HZ)]
            length = int(speech.letter_seconds[i] * RATE_HZ)
            at = place + length
            for word in speech.texts[i].split():
                words.append((word, at / RATE_HZ))
                at += (len(word) + 1) * length
            pause = (0.003 * np.random.default_rng(i).standard_normal(int(pause_seconds * RATE_HZ))).astype(np.float32)
            waves += [wave, pause]
            texts.append(speech.texts[i])
            place += len(wave) + len(pause)
        return " ".join(texts), np.concatenate(waves), words

    return make


@pytest.mark.parametrize("pause_seconds", [0.0, 0.8])
@pytest.mark.parametrize("longest_seconds", [3.0, 4.0, 30.0])
def test_a_long_recording_gives_the_words_of_its_sentences(folder, talk_of, pause_seconds, longest_seconds):
    text, wave, _ = talk_of(24, pause_seconds)
    transcriber = Transcriber.from_folder(folder, longest_seconds=longest_seconds)
    assert transcriber.longest_seconds == min(longest_seconds, trained_seconds(folder)) < 6.0
    heard = transcriber.transcribe(wave)
    # Such a small model writes some words as one; but no character is lost or doubled at the dozens of seams.
    found = score([text.replace(" ", "")], [heard.text.replace(" ", "")])
    assert len(wave) / RATE_HZ > 50 and found.cer < 0.03, heard.text
    assert found.characters.insertions.sum() + found.characters.deletions.sum() <= 3
    assert heard.seconds == len(wave) / RATE_HZ


def test_words_have_their_times(folder, talk_of):
    _, wave, words = talk_of(10, 0.7)
    transcript = Transcriber.from_folder(folder, longest_seconds=4.0).transcribe(wave)
    found = {(word.text, round(word.start_seconds, 1)) for word in transcript.words}
    near = [any(name == word and abs(at - second) < 0.25 for name, at in found) for word, second in words]
    assert np.mean(near) > 0.7  # the others are written together with the word before
    for before, after in zip(transcript.words, transcript.words[1:], strict=False):
        assert before.start_seconds < before.end_seconds <= after.start_seconds + 1e-6
    for segment in transcript.segments:
        assert segment.text == " ".join(word.text for word in segment.words)
        assert segment.start_seconds == segment.words[0].start_seconds
    assert 6 <= len(transcript.segments) <= 10  # one a sentence, where the pauses are


def test_beam_search_decodes_the_same_recording(folder, talk_of):
    text, wave, _ = talk_of(6, 0.7)
    transcriber = Transcriber.from_folder(folder, longest_seconds=4.0)
    plain = transcriber.transcribe(wave)
    transcriber.decode = BeamDecoder(transcriber.recognizer.coder, width=8).decode
    searched = transcriber.transcribe(wave)
    one_word = 1 / len(text.split())
    assert score([text], [searched.text]).wer <= score([text], [plain.text]).wer + one_word + 1e-9
    assert [round(s.start_seconds) for s in searched.segments] == [round(s.start_seconds) for s in plain.segments]


def test_a_file_and_its_wave_give_the_same(folder, talk_of, tmp_path):
    _, wave, _ = talk_of(3, 0.3)
    write_wav(tmp_path / "talk.wav", wave, RATE_HZ)
    transcriber = Transcriber.from_folder(folder)
    assert transcriber.transcribe(tmp_path / "talk.wav").text == transcriber.transcribe(wave).text


def test_when_memory_runs_out_fewer_pieces_go_through_at_once(folder, talk_of):
    _, wave, _ = talk_of(10, 0.2)
    transcriber = Transcriber.from_folder(folder, longest_seconds=4.0, at_once=4)
    expected, seen = transcriber.transcribe(wave).text, []

    def check(module, args, kwargs):
        seen.append(len(kwargs["input_features"]))
        if seen[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    transcriber.recognizer.model.register_forward_pre_hook(check, with_kwargs=True)
    assert transcriber.transcribe(wave).text == expected and seen[:3] == [4, 2, 1] and set(seen[2:]) == {1}


@pytest.mark.parametrize("num_samples", [0, 1, 100, 399, 480, 1_000])
def test_hardly_any_sound_is_no_words_and_no_error(folder, num_samples):
    transcript = Transcriber.from_folder(folder).transcribe(np.zeros(num_samples, np.float32))
    assert transcript.seconds == num_samples / RATE_HZ and len(transcript.words) <= 1


def test_whisper_writes_segments_of_a_recording_of_any_length(saved_bases, vocabulary, tmp_path, tones):
    recognizer = build_model(ModelConfig(name=str(saved_bases("whisper"))), vocabulary)
    recognizer.save(tmp_path)
    wave = np.concatenate([tones(3).read(i) for i in (0, 1, 2)] * 8)[: 35 * RATE_HZ]
    transcript = Transcriber.from_folder(tmp_path).transcribe(wave)
    assert all(0 <= s.start_seconds <= s.end_seconds <= transcript.seconds for s in transcript.segments)
    assert transcript.seconds == len(wave) / RATE_HZ


# --- pieces and seams ---


@pytest.mark.parametrize("seconds, longest_seconds", [(3, 4), (4.001, 4), (9, 4), (100, 30), (61.7, 30), (1000, 7.3)])
def test_pieces_cover_everything_overlap_and_are_short_enough(seconds, longest_seconds):
    wave = np.random.default_rng(0).standard_normal(int(seconds * RATE_HZ)).astype(np.float32)
    pieces = cut(wave, 320, round(longest_seconds * RATE_HZ))
    assert pieces[0][0] == 0 and pieces[-1][1] == len(wave)
    assert all(stop - start <= longest_seconds * RATE_HZ and start % 320 == 0 for start, stop in pieces)
    for (_, stop), (start, _) in zip(pieces, pieces[1:], strict=False):
        assert 1.8 * RATE_HZ <= stop - start <= 2.1 * RATE_HZ
    assert len(pieces) <= 2 + seconds / ((longest_seconds - 2) * 2 / 3)


def middles(pieces):
    return [(stop + start) / 2 / RATE_HZ for (_, stop), (start, _) in zip(pieces, pieces[1:], strict=False)]


def test_silence_is_left_out_and_pieces_are_not_needlessly_short():
    """Sound but for 0.8 s of silence at some places, and 0.3 s at one, which is too short to count."""
    wave, silences = np.ones(27 * RATE_HZ, np.float32), (1.5, 4.5, 11.0, 17.9)
    for second in silences:
        wave[int(second * RATE_HZ) : int((second + 0.8) * RATE_HZ)] = 0.0
    wave[int(14.0 * RATE_HZ) : int(14.3 * RATE_HZ)] = 0.0
    found = [(start / RATE_HZ, stop / RATE_HZ) for start, stop in cut(wave, 320, 10 * RATE_HZ)]
    assert len(found) == 4
    for (start, stop), (first, last) in zip(found, ((0, 4.5), (5.3, 11.0), (11.8, 17.9), (18.7, 27.0)), strict=True):
        assert first - 0.35 <= start <= first and last <= stop <= last + 0.35


def test_nothing_but_silence_is_no_piece():
    assert cut(np.zeros(30 * RATE_HZ, np.float32), 320, 10 * RATE_HZ) == []


def test_without_a_pause_pieces_end_in_the_quietest_place():
    wave = np.ones(27 * RATE_HZ, np.float32)
    for second in (7.5, 14.0, 20.2):
        wave[int(second * RATE_HZ) : int((second + 0.3) * RATE_HZ)] = 0.3
    found = middles(cut(wave, 320, 10 * RATE_HZ))
    assert len(found) == 3 and all(
        abs(at - second - 0.15) < 0.06 for at, second in zip(found, (7.5, 14.0, 20.2), strict=True)
    )


def path_of(text, num_frames, seed):
    """Return log-probabilities (T, C): characters are peaks of one or two frames among blanks; token 0 is the blank."""
    draw = np.random.default_rng(seed)
    probs = np.full((num_frames, 6), 1e-4)
    probs[:, 0] = 1.0
    places = np.sort(draw.choice(np.arange(2, num_frames - 2, 4), len(text), replace=False))
    for place, token in zip(places, text, strict=True):
        probs[place : place + int(draw.integers(1, 3))] = 1e-4
        probs[place : place + 2, token] = 1.0
    return np.log(probs / probs.sum(1, keepdims=True)).astype(np.float32)


def collapsed(log_probs):
    path = log_probs.argmax(1)
    return [int(t) for t, before in zip(path, [0, *path[:-1]], strict=True) if t and t != before]


@pytest.mark.parametrize("seed", range(20))
def test_joined_pieces_are_the_whole_even_if_they_are_wrong_at_their_edges_and_off_by_a_frame(seed):
    draw = np.random.default_rng(seed)
    text = draw.integers(1, 6, 120).tolist()
    whole = path_of(text, 1_000, seed)
    pieces, starts = [], [0, 230, 460, 690]
    for number, start in enumerate(starts):
        piece = whole[start : min(1_000, start + 310)].copy()
        if number:
            piece = np.roll(piece, int(draw.integers(-1, 2)), axis=0)  # peaks need not lie in the same frame
            piece[:6] = np.log(np.full((6, 6), 1 / 6))
            piece[:6, draw.integers(1, 6)] = 0.0
        if number < 3:
            piece[-6:, draw.integers(1, 6)] = 0.0
        pieces.append(piece)
    joined = join(pieces, starts, 0)
    assert len(joined) == 1_000 and collapsed(joined) == collapsed(whole)


def test_pieces_that_share_nothing_are_put_one_after_another():
    whole = path_of([1, 2, 3], 40, 0)
    assert (join([whole[:20], whole[20:]], [0, 20], 0) == whole).all() and (join([whole], [0], 0) == whole).all()
    joined = join([whole[:10], whole[10:]], [5, 20], 0, 60)
    assert (joined[5:15] == whole[:10]).all() and (joined[20:50] == whole[10:]).all() and len(joined) == 60
    for gap in (joined[:5], joined[15:20], joined[50:]):
        assert (gap.argmax(1) == 0).all() and (gap[:, 1:] < -20).all()


def test_stretches_of_talk_are_cut_at_pauses_and_none_is_too_long():
    frames = np.full((1_000, 3), -10.0)
    frames[:, 0] = 0.0
    for place in [*range(100, 200, 5), *range(260, 300, 5), *range(600, 990, 10)]:
        frames[place] = [-10.0, -10.0, 0.0]
    found = talk(frames, (0, 1), 0.02, 1000.0)
    assert len(found) == 3 and found[0][0] == 0 and found[-1][1] == 1_000  # from pause to pause, all frames are in one
    assert [stop for _, stop in found[:-1]] == [start for start, _ in found[1:]]
    assert 196 < found[0][1] < 260 and 296 < found[1][1] < 600
    assert len(talk(frames, (0, 1), 0.02, 3.0)) > 4  # 7.8 s without a pause
    assert talk(frames[:90], (0, 1), 0.02, 3.0) == []


# --- files ---


def transcript():
    words = tuple(Timed(f"wörd{i}", 0.5 * i, 0.5 * i + 0.4, 0.9) for i in range(40))
    return Transcript(
        (Segment(0.0, 19.9, " ".join(w.text for w in words), words), Segment(3_725.5, 3_726.25, "end")), 3_800.0
    )


def test_every_format_is_written(tmp_path):
    for suffix in (".txt", ".srt", ".vtt", ".json"):
        write(transcript(), tmp_path / f"talk{suffix}")
    assert (tmp_path / "talk.txt").read_text().splitlines()[1] == "end"
    told = json.loads((tmp_path / "talk.json").read_text())
    assert told["segments"][0]["words"][1] == {
        "text": "wörd1",
        "start_seconds": 0.5,
        "end_seconds": 0.9,
        "probability": 0.9,
    }
    srt, vtt = (tmp_path / "talk.srt").read_text(), (tmp_path / "talk.vtt").read_text()
    assert (
        srt.startswith("1\n00:00:00,000 --> 00:00:06,400\nwörd0 wörd1")
        and "01:02:05,500 --> 01:02:06,250\nend\n" in srt
    )
    assert vtt.startswith("WEBVTT\n\n1\n00:00:00.000 --> ") and "01:02:05.500 --> 01:02:06.250" in vtt
    times = re.findall(r"(\d\d):(\d\d):(\d\d),(\d{3})", srt)
    seconds = [int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000 for h, m, s, ms in times]
    assert seconds == sorted(seconds)


def test_captions_are_short_and_hold_every_word():
    found = captions(transcript())
    assert " ".join(c.text for c in found) == transcript().text
    assert all(c.end_seconds - c.start_seconds <= 7.0 and len(c.text) <= 84 for c in found)


def test_what_cannot_be_transcribed_or_written_says_so(folder, tmp_path):
    transcriber = Transcriber.from_folder(folder)
    for wrong in (np.zeros((2, 100)), np.array([np.nan] * 100)):
        with pytest.raises(UsageError, match="one channel"):
            transcriber.transcribe(wrong)
    (tmp_path / "no.wav").write_bytes(b"no audio")
    with pytest.raises(DataError):
        transcriber.transcribe(tmp_path / "no.wav")
    with pytest.raises(UsageError, match="srt"):
        write(transcript(), Path(tmp_path / "talk.docx"))
    with pytest.raises(UsageError, match="longest_seconds"):
        Transcriber.from_folder(folder, longest_seconds=1.0)
