"""Damaged and hostile npz files: each is read, or one DataError says what is wrong; memory stays small."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.pipelines.dataset.profile.headers import inspect
from colabkit.pipelines.dataset.segments.npz import read_npz
from tests.pipelines.dataset.segments.archives import savez

NOISE = np.random.default_rng(0)


WHOLE = [
    savez(
        audio=NOISE.uniform(-0.3, 0.3, 500).astype(np.float32), sr=16_000, speaker="ä🙂", metadata=json.dumps({"a": 1})
    ),
    savez(
        deflate=True,
        audio=NOISE.uniform(-0.3, 0.3, (2, 300)),
        sr=24_000,
        codes=NOISE.integers(0, 99, (2, 20)),
        when=np.datetime64("2020-01-01"),
        complex=np.complex64(1),
        words=np.array(["a", "bc"]),
    ),
    savez(x=(NOISE.uniform(-0.3, 0.3, 300) * 1000).astype(np.int16), rate=8_000.0, lasted=np.timedelta64(5, "s")),
]
SPOILERS = (b"9" * 9, b"-1", b"\xff" * 4, b"'|S0'", b"O8", b"(1,)", b"\0" * 8)


def spoil(whole: bytes, chance: random.Random) -> bytes:
    """Change, cut out or overwrite bytes here and there; mostly the checksums are made right again."""
    content, way = bytearray(whole), chance.random()
    for _ in range(chance.choice((1, 1, 2, 4, 20))):
        place = chance.randrange(len(content))
        if way < 0.6:
            content[place] = chance.choice((0, 1, 255, content[place] ^ (1 << chance.randrange(8))))
        elif way < 0.75:
            del content[place : place + chance.randrange(1, 40)]
        else:
            content[place : place + chance.randrange(8)] = chance.choice(SPOILERS)
    return with_checksums(bytes(content)) if chance.random() < 0.7 else bytes(content)


def with_checksums(content: bytes) -> bytes:
    """Write the members of a damaged zip anew, so that what is inside of them is looked at."""
    again = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as damaged, zipfile.ZipFile(again, "w") as written:
            for member in damaged.infolist():
                with damaged.open(member) as opened:
                    opened._expected_crc = None
                    written.writestr(member.filename, opened.read(1 << 20), member.compress_type)
    except Exception:  # zipfile raises much of what it meets
        return content
    return again.getvalue()


def tried(content: bytes) -> int:
    """Read a file in both ways; return how many of them took it."""
    taken = 0
    try:
        read_npz(content, "C/a.npz")
        taken += 1
    except DataError:
        pass
    facts = inspect(lambda start, stop: content[start:stop], "C/a.npz", len(content))
    return taken + (not facts.fault)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_damage_is_told_wherever_it_is():
    chance = random.Random(7)
    taken = [tried(spoil(chance.choice(WHOLE), chance)) for _ in range(1_500)]
    assert sum(map(tried, WHOLE)) == 2 * len(WHOLE) and 0 < taken.count(0) < len(taken)


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def zipped(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return packed.getvalue()


AUDIO, RATE = npy("<f4", "(64,)", b"\0\0\0\x3e" * 64), npy("<i8", "()", struct.pack("<q", 16_000))
NAUGHTY = {
    "two numbers for one axis": {"audio": npy("<f4", "(1 2)", b"0" * 48)},
    "an axis of negative length": {"audio": npy("<f4", "(-5, -1)", b"0" * 20)},
    "65 axes": {"audio": npy("<f4", "(" + "1," * 65 + ")", b"0" * 4)},
    "an axis longer than any memory": {"audio": npy("<f4", "(99999999999999999999,)", b"0" * 4)},
    "text of no width": {"note": npy("|S0", "(5,)")},
    "a character that there is not": {"text": npy("<U1", "()", b"\xff\xff\xff\x7f")},
    "a rate beyond floats": {"metadata": npy("<U410", "()", ('{"sr": ' + "9" * 402 + "}").encode("utf-32-le"))},
}


@pytest.mark.parametrize("members", NAUGHTY.values(), ids=NAUGHTY)
def test_headers_that_cannot_be_are_told(members):
    has_rate = "metadata" not in members
    content = zipped(**({"audio": AUDIO} | ({"sr": RATE} if has_rate else {}) | members))
    assert tried(content) == 0


def test_unused_arrays_of_a_small_file_fill_no_memory():
    """Zeros deflate a thousand times: what is promised in all counts, before anything is inflated."""
    zeros = np.zeros(40 << 20, np.uint8)
    content = savez(deflate=True, audio=NOISE.uniform(-0.3, 0.3, 500), sr=16_000, **{f"x{n}": zeros for n in range(8)})
    assert len(content) < 1 << 20
    tracemalloc.start()
    assert tried(content) == 0
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
