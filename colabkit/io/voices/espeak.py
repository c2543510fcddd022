"""Speak text with espeak-ng's C library: PCM samples plus the sample at which every word and phoneme starts.

The library keeps state between calls (flutter position, echo buffer, period phase, random generator) that no
function of its interface resets. So each call loads a private copy of the library, speaks, and unloads it:
about one millisecond, the same bytes in any order of calls, and nothing shared with other users of espeak-ng
in the process.

Struct layouts follow the documented interface, speak_lib.h revision 12:
https://github.com/espeak-ng/espeak-ng/blob/master/src/include/espeak-ng/speak_lib.h
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colabkit.core.errors import StateError, UsageError

ESPEAK_RATE_HZ = 22_050  # of all its built-in voices

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_BUFFER_MILLISECONDS = 2_000
_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 0x0001, 0x0002, 0x8000
_CHARS_UTF8, _END_PAUSE, _POSITION_CHARACTER = 1, 0x1000, 1
_RATE, _VOLUME, _PITCH, _RANGE, _PUNCTUATION, _CAPITALS, _WORD_GAP = range(1, 8)
_LONGEST_DATA_PATH_BYTES = 150  # the library cuts longer paths off and then finds no data

WORD, SENTENCE, END, PHONEME = 1, 2, 5, 7  # kinds of event that are reported


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("internal", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class Event:
    """What starts at a sample: `kind` is WORD, SENTENCE, END or PHONEME.

    `text_index` counts characters from 0 and is sound for WORD only; `symbol` is the IPA name of a PHONEME,
    "" for a pause.
    """

    kind: int
    sample: int
    text_index: int
    symbol: str


# One synthesis at a time. Held across a fork, so that a child never starts with a half-loaded library or a
# taken lock.
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def synthesize(
    text: str,
    voice: str,
    *,
    words_per_minute: int = 175,
    pitch: int = 50,
    pitch_range: int = 50,
    seed: int = 0,
) -> tuple[bytes, list[Event]]:
    """Speak `text` and return 16 bit mono PCM at ESPEAK_RATE_HZ with its events in order of time.

    `voice` is a language code with an optional variant, as in "en-us+f2". `pitch` and `pitch_range` are
    0..100 with 50 as the voice's own: pitch p multiplies F0 by 2 ** ((p - 50) / 50).

    Raises:
        UsageError: espeak-ng has no such voice.
        StateError: the library is missing or does not load.
    """
    pcm: list[bytes] = []
    events: list[Event] = []

    def on_audio(samples: Any, num_samples: int, event: Any) -> int:
        if samples and num_samples > 0:
            pcm.append(ctypes.string_at(samples, 2 * num_samples))
        i = 0
        while event[i].type:
            one = event[i]
            if one.type in (WORD, SENTENCE, END, PHONEME):
                events.append(Event(one.type, one.sample, one.text_position - 1, _symbol(one)))
            i += 1
        return 0

    callback = _SynthCallback(on_audio)
    encoded = text.encode("utf-8")
    with _lock, _loaded() as library:
        library.espeak_SetSynthCallback(callback)
        library.espeak_ng_SetRandSeed(seed & 0x7FFF_FFFF)
        # An unknown variant would be passed over without a word.
        variant = voice.partition("+")[2]
        has_variant = not variant or os.path.isfile(os.path.join(_private_copy()[1], "voices", "!v", variant))
        if not has_variant or library.espeak_SetVoiceByName(voice.encode("utf-8")) != 0:
            raise UsageError(
                "espeak-ng has no such voice",
                got=voice,
                expected="a language code, as in 'en' or 'en-us+f2'",
                fix="take a code of colabkit.io.voices.espeak.list_languages()",
            )
        settings = (
            (_RATE, words_per_minute),
            (_VOLUME, 100),
            (_PITCH, pitch),
            (_RANGE, pitch_range),
            (_PUNCTUATION, 0),
            (_CAPITALS, 0),
            (_WORD_GAP, 0),
        )
        for parameter, value in settings:
            library.espeak_SetParameter(parameter, int(value), 0)
        status = library.espeak_Synth(
            encoded, len(encoded) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8 | _END_PAUSE, None, None
        )
        library.espeak_Synchronize()
    if status != 0:
        raise StateError(
            "espeak-ng failed to speak",
            got=f"status {status}",
            where=f"voice {voice}, text {text[:60]!r}",
            fix="pip install --force-reinstall espeakng-loader",
        )
    return b"".join(pcm), events


@functools.cache
def list_languages() -> frozenset[str]:
    """Return the language codes espeak-ng can speak, such as "en", "en-US" and "pt-BR"."""
    languages = set()
    with _lock, _loaded() as library:
        voices = library.espeak_ListVoices(None)
        i = 0
        while voices[i]:
            folder, _, name = voices[i].contents.identifier.decode("utf-8").replace("\\", "/").rpartition("/")
            if not folder.startswith(("!v", "mb")):  # variants, and voices that need data of another project
                languages.add(name)
            i += 1
    return frozenset(languages)


def _symbol(event: _Event) -> str:
    if event.type != PHONEME:
        return ""
    # Eight bytes at most and not always terminated: a longer name may end inside a character.
    raw = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0", 1)[0]
    return raw.decode("utf-8", errors="ignore")


@contextlib.contextmanager
def espeak_library() -> Iterator[ctypes.CDLL]:
    """Hold a fresh image of the library that no other thread uses; it is unloaded at the end. Raises: StateError."""
    with _lock, _loaded() as library:
        yield library


@contextlib.contextmanager
def _loaded():
    """Load a fresh image of the library, and unload it with all its state at the end."""
    if not os.path.exists(_private_copy()[0]):  # cleaned from the disk, or closed
        _forget_copy()
    path, data_path = _private_copy()
    try:
        library = ctypes.CDLL(path)
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    except (OSError, AttributeError) as error:
        _forget_copy()
        raise _not_usable(f"{error}") from error
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
        ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    try:
        options = _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT
        rate_hz = library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, _BUFFER_MILLISECONDS, os.fsencode(data_path), options
        )
        if rate_hz != ESPEAK_RATE_HZ:
            raise _not_usable(f"espeak_Initialize returned {rate_hz} with data in {data_path}")
        yield library
        library.espeak_Terminate()
    finally:
        _unload(library)


@functools.cache
def _private_copy() -> tuple[str, str]:
    """Return the path of this process's own copy of the library, and the folder of espeak-ng's data."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise StateError(
            "Cannot synthesise speech: the Python package espeakng-loader is missing",
            fix="pip install espeakng-loader",
        ) from error
    library = Path(espeakng_loader.get_library_path())
    data = str(Path(espeakng_loader.__file__).parent / "espeak-ng-data")
    if not library.is_file() or not os.path.isdir(data):
        raise _not_usable(f"no {library if not library.is_file() else data}")
    if len(os.fsencode(data)) > _LONGEST_DATA_PATH_BYTES:
        short = os.path.join(_own_folder(), "data")
        os.symlink(data, short)
        data = short
    return _in_memory(library) or shutil.copy(library, _own_folder()), data


def _in_memory(library: Path) -> str | None:
    """Copy a file into memory where the system can; nothing stays behind, even of a killed process."""
    try:
        descriptor = os.memfd_create("espeak-ng")
    except (AttributeError, OSError):  # not Linux, or not allowed
        return None
    with open(descriptor, "wb", closefd=False) as copy:
        copy.write(library.read_bytes())
    return f"/proc/self/fd/{descriptor}"


@functools.cache
def _own_folder() -> str:
    folder = tempfile.mkdtemp(prefix="colabkit-espeak-")
    atexit.register(_remove_folder, folder, os.getpid())
    return folder


def _forget_copy() -> None:
    _private_copy.cache_clear()
    _own_folder.cache_clear()


def _remove_folder(folder: str, owner_pid: int) -> None:
    if os.getpid() == owner_pid:  # a forked child shares its parent's copy
        shutil.rmtree(folder, ignore_errors=True)


def _unload(library: ctypes.CDLL) -> None:
    if os.name == "nt":
        ctypes.windll.kernel32.FreeLibrary(ctypes.c_void_p(library._handle))
        return
    close = ctypes.CDLL(None).dlclose
    close.argtypes = [ctypes.c_void_p]
    close(library._handle)


def _not_usable(reason: str) -> StateError:
    return StateError(
        "Cannot synthesise speech: espeak-ng's library does not work",
        got=reason,
        fix="pip install --upgrade --force-reinstall espeakng-loader",
    )
