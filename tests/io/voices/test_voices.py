"""Synthetic speakers: distinct, repeatable in any order and process, with times that fit the wave."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.voices import ACTIVE_LEVEL_DB, LANGUAGES, Speaker, espeak, make_speakers, sentences, speak, utterance

pytest.importorskip("espeakng_loader")


def _print_of(made) -> str:
    content = made.wave.tobytes() + repr((made.text, made.words, made.phonemes)).encode()
    return hashlib.sha256(content).hexdigest()


def _prints(jobs: list[tuple[int, int]]) -> dict[str, str]:
    speakers = make_speakers(24, languages=LANGUAGES)
    return {f"{s}/{i}": _print_of(utterance(speakers[s], i)) for s, i in jobs}


def _mean_log_mel(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return the mean of 40 log mel bands over the loud frames, without the overall level."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::256] * np.hanning(512)
    power = np.abs(np.fft.rfft(frames)) ** 2
    power = power[power.sum(1) > power.sum(1).max() * 1e-3]
    edges = 700 * (10 ** (np.linspace(40, 2840, 42) / 2595) - 1)
    bins = np.fft.rfftfreq(512, 1 / rate_hz)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    bands = np.log(power @ np.maximum(0, np.minimum(rising, falling)).T + 1e-10).mean(0)
    return bands - bands.mean()


def test_speakers_are_spread_over_languages_and_sexes_and_stay_the_same_in_longer_lists():
    for languages in (("en",), ("en", "de"), ("en", "de", "fr"), LANGUAGES):
        speakers = make_speakers(240, seed=3, languages=languages)
        assert speakers[:10] == make_speakers(10, seed=3, languages=languages)
        assert len({s.name for s in speakers}) == len({dataclasses.replace(s, name="") for s in speakers}) == 240
        for language in languages:
            for sex in "FM":
                count = sum((s.language, s.sex) == (language, sex) for s in speakers)
                assert count == 120 // len(languages)
    assert make_speakers(5, seed=3) != make_speakers(5, seed=4)
    assert make_speakers(3, seed=np.int64(3)) == make_speakers(3, seed=3)


def test_every_voice_of_three_hundred_speakers_exists():
    voices = {s.voice: s for s in make_speakers(300, languages=LANGUAGES)}
    fresh = [speaker for voice, speaker in sorted(voices.items())][::3]
    for speaker in fresh:
        with_variant, _ = espeak.synthesize("one", speaker.voice)
        without, _ = espeak.synthesize("one", speaker.voice.split("+")[0])
        assert with_variant != without, speaker.voice


def test_same_bytes_in_any_order_and_again():
    jobs = [(s, i) for s in range(24) for i in range(2)]
    first = _prints(jobs)
    assert len(set(first.values())) == len(jobs)
    assert _prints(jobs[::-1]) == first


def test_same_bytes_after_use_of_the_library_by_others():
    speaker = make_speakers(1)[0]
    before = _print_of(utterance(speaker, 0))
    for voice in ("en+whisper", "de+klatt4", "ru+croak"):
        espeak.synthesize("Something else altogether!", voice, words_per_minute=400, pitch=99, seed=9)
    with pytest.raises(UsageError):
        espeak.synthesize("x", "nonsense")
    assert _print_of(utterance(speaker, 0)) == before


def test_same_bytes_in_a_fresh_process_with_other_memory_and_locale():
    jobs = [(s, i) for s in (23, 5, 14, 0, 9) for i in (3, 0)]
    code = f"import json, test_voices as t; print(json.dumps(t._prints({jobs})))"
    folders = [os.path.dirname(__file__), *sys.path]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(folders), MALLOC_PERTURB_="165", LC_ALL="C")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == _prints(jobs[::-1])


def test_same_bytes_from_threads():
    jobs = [(s, i) for s in range(8) for i in range(3)]
    wanted = _prints(jobs)
    got: dict[str, str] = {}
    threads = [threading.Thread(target=lambda k=k: got.update(_prints(jobs[k::4]))) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == wanted


def _in_child(queue, jobs):
    queue.put(_prints(jobs))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_same_bytes_in_a_child_started_while_a_thread_speaks(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    jobs = [(1, 0), (2, 1)]
    wanted = _prints(jobs)
    stop = threading.Event()
    context = multiprocessing.get_context(method)

    def talk():
        speaker = make_speakers(1)[0]
        while not stop.is_set():
            speak(speaker, "Words and more words to keep the library busy. " * 5)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        for _ in range(6 if method == "fork" else 1):
            queue = context.Queue()
            child = context.Process(target=_in_child, args=(queue, jobs), daemon=True)
            child.start()
            assert queue.get(timeout=20) == wanted
            child.join(30)
            assert child.exitcode == 0
    finally:
        stop.set()
        talker.join()
    assert _prints(jobs) == wanted


def test_the_seed_changes_the_sound_and_not_the_words():
    speaker = make_speakers(1)[0]
    first, second = (speak(speaker, "A steady wind from the west.", seed=seed) for seed in (0, 1))
    assert first.wave.tobytes() != second.wave.tobytes()
    assert [w.text for w in first.words] == [w.text for w in second.words]
    assert utterance(speaker, 0, seed=0).text != utterance(speaker, 0, seed=1).text


def test_waves_are_sane_and_times_fit():
    for speaker in make_speakers(48, seed=1, languages=LANGUAGES):
        made = utterance(speaker, 0)
        wave = made.wave
        assert wave.dtype == np.float32 and wave.ndim == 1 and np.isfinite(wave).all()
        assert np.abs(wave).max() <= 0.98001 and abs(wave.mean()) < 1e-3
        assert 2 <= made.duration_seconds <= 8

        spoken = np.zeros(len(wave), bool)
        written = [token for token in made.text.split() if any(c.isalnum() for c in token)]
        assert len(made.words) == len(written)
        for (word, start, end), token in zip(made.words, written, strict=True):
            assert word in token and word[0].isalnum() and word[-1].isalnum()
            assert 0.01 < end - start < 1.8, (word, made.text, speaker)
            spoken[int(start * 16_000) : int(end * 16_000)] = True
        starts, ends = (np.array([w[i] for w in made.words]) for i in (1, 2))
        assert (starts[1:] >= ends[:-1] - 1e-9).all() and starts[0] >= 0 and ends[-1] <= made.duration_seconds
        inside, outside = np.mean(wave[spoken] ** 2), np.mean(wave[~spoken] ** 2)
        assert inside > 50 * outside, (speaker, made.text)
        level_db = 10 * np.log10(inside)
        assert ACTIVE_LEVEL_DB - 2 < level_db < ACTIVE_LEVEL_DB + 0.1


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 48_000])
def test_other_rates_give_the_same_speech(rate_hz):
    import soxr

    speaker = make_speakers(1)[0]
    wanted, got = utterance(speaker, 1), utterance(speaker, 1, rate_hz=rate_hz)
    assert got.words == wanted.words and got.rate_hz == rate_hz
    assert abs(got.duration_seconds - wanted.duration_seconds) < 1e-3
    low_hz = min(rate_hz, 16_000) // 2
    pair = [soxr.resample(made.wave, made.rate_hz, low_hz) for made in (wanted, got)]
    num = min(map(len, pair))
    assert np.corrcoef(pair[0][:num], pair[1][:num])[0, 1] > 0.97


def test_speakers_differ_more_than_utterances_of_one():
    speakers = make_speakers(20, languages=("en",), seed=2)
    bands = np.array([[_mean_log_mel(utterance(s, i).wave, 16_000) for i in range(4)] for s in speakers])
    centres = bands.mean(1)
    within = np.sqrt(np.mean((bands - centres[:, None]) ** 2))
    between = np.sqrt(np.mean((centres[:, None] - centres[None]) ** 2, axis=-1))
    assert np.median(between[between > 0]) > 4 * within
    assert between[between > 0].min() > 1.3 * within
    found = 0
    for i in range(len(speakers)):
        for k in range(4):
            others = centres.copy()
            others[i] = np.delete(bands[i], k, axis=0).mean(0)
            found += np.argmin(np.mean((bands[i, k] - others) ** 2, axis=-1)) == i
    assert found >= 0.95 * 80


def test_every_sentence_opens_an_utterance_once_a_round():
    speaker = make_speakers(1, languages=("it",))[0]
    opened = [utterance(speaker, i).text for i in range(30)]
    assert all(sum(text.startswith(own) for text in opened) == 1 for own in sentences("it"))


def test_text_is_spoken_whatever_it_holds():
    speaker = make_speakers(1)[0]
    made = speak(speaker, "  Naïve\tcafe\u0301\n\n“quotes” — 42% of it’s\0 nine-to-five… 😀 ok")
    assert [w.text for w in made.words] == [
        "Naïve",
        "café",
        "quotes",
        "42",
        "of",
        "it’s",
        "nine-to-five",
        "ok",
    ]
    long = speak(speaker, "word " * 1_000)
    assert len(long.words) == 1_000 and long.duration_seconds > 200
    assert speak(speaker, "[[h@]] <break/> hi").words[-1].text == "hi"
    assert speak(make_speakers(1, languages=("cmn",))[0], "你好，世界").words


def test_what_cannot_be_spoken_is_refused():
    speaker = make_speakers(1)[0]
    for text in ("", "  \n", "...", "?! — …", "\0"):
        with pytest.raises(DataError, match="Nothing to speak"):
            speak(speaker, text)
    with pytest.raises(DataError, match="half a character"):
        speak(speaker, "half \ud83d")
    for voice in ("atlantean", "atlantean+f2", "en+f99", "en+../!v/absent"):
        with pytest.raises(UsageError, match="no such voice"):
            speak(dataclasses.replace(speaker, voice=voice), "hello")
    for wrong in (0, 3_999, 10**9):
        with pytest.raises(UsageError, match="rate"):
            speak(speaker, "hello", rate_hz=wrong)
    with pytest.raises(UsageError):
        utterance(speaker, -1)


@pytest.mark.parametrize(
    ("language", "hint"),
    [("english", "'en'"), ("German", "'de'"), ("EN", "'en'"), ("fr_FR", "'fr'"), ("zzzz", "list")],
)
def test_an_unknown_language_gets_a_hint(language, hint):
    with pytest.raises(UsageError) as caught:
        make_speakers(2, languages=("en", language))
    assert hint in caught.value.fix


def test_speakers_need_a_number_and_languages():
    for number, languages in ((0, ("en",)), (2, ()), (2, "en")):
        with pytest.raises(UsageError, match="Cannot make speakers"):
            make_speakers(number, languages=languages)
    turkish = make_speakers(2, languages=("tr",))[0]
    assert speak(turkish, "Merhaba, nasılsınız?").words[0].text == "Merhaba"
    with pytest.raises(UsageError, match="No built-in sentences"):
        utterance(turkish, 0)


@pytest.fixture
def in_memory():
    return _prints([(2, 1), (3, 0)])


@pytest.fixture
def copy_on_disk(monkeypatch, tmp_path):
    """Where memory cannot hold the copy: other systems than Linux."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    espeak._forget_copy()
    yield tmp_path
    espeak._forget_copy()


def test_a_copy_on_disk_sounds_the_same(in_memory, copy_on_disk):
    jobs = [(2, 1), (3, 0)]
    on_disk = _prints(jobs)
    assert len(list(copy_on_disk.iterdir())) == 1
    assert _prints(jobs[::-1]) == on_disk == in_memory


def test_the_copy_of_the_library_is_made_anew_when_it_was_cleaned_away(copy_on_disk):
    wanted = espeak.synthesize("hello there", "en")
    os.remove(espeak._private_copy()[0])
    assert espeak.synthesize("hello there", "en") == wanted


def _speak_in_child(queue):
    queue.put(len(espeak.synthesize("hello", "en")[0]))


@pytest.mark.parametrize("in_child", [False, True])
def test_nothing_is_left_behind(tmp_path, in_child):
    """Also by worker processes, which end without clean-up."""
    start = "import test_voices as t, multiprocessing as m; c = m.get_context('spawn'); q = c.Queue()"
    work = "p = c.Process(target=t._speak_in_child, args=(q,)); p.start(); assert q.get(); p.join()"
    direct = "from colabkit.io.voices import espeak; assert espeak.synthesize('hello', 'en')[0]"
    folders = [os.path.dirname(__file__), *sys.path]
    environment = dict(os.environ, TMPDIR=str(tmp_path), PYTHONPATH=os.pathsep.join(folders))
    code = f"{start}; {work}" if in_child else direct
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert not [path for path in tmp_path.iterdir() if "espeak" in path.name]


def test_importing_is_light():
    code = "import sys, colabkit.io.voices; print([m for m in ('torch', 'scipy', 'soxr') if m in sys.modules])"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_synthesis_is_far_faster_than_speech():
    speakers = make_speakers(12, languages=LANGUAGES)
    utterance(speakers[0], 0)
    started = time.process_time()
    seconds = sum(utterance(s, i).duration_seconds for s in speakers for i in range(4))
    assert time.process_time() - started < seconds / 80  # 20 s each of 60 speakers in 15 s


def test_a_speaker_is_plain_data():
    speaker = make_speakers(1)[0]
    again = Speaker(**dataclasses.asdict(speaker))
    assert again == speaker and hash(again) == hash(speaker)
    assert _print_of(speak(again, "the same")) == _print_of(speak(speaker, "the same"))
