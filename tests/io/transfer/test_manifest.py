"""The manifest of an upload: the same bytes for the same rows, merged by name, written by several at once."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from colabkit.core.errors import DataError, StateError
from colabkit.io.places import Taken, open_place
from colabkit.io.transfer.manifest import from_bytes, make_manifest, read_manifest, to_bytes, write_manifest


def rows(*names, size=1):
    count = len(names)
    return make_manifest(names, [size] * count, range(count), [2**32 - 1] * count, [f"v-{name}" for name in names])


def as_dict(manifest):
    return dict(zip(manifest.names.to_pylist(), manifest.sizes.tolist(), strict=True))


def test_bytes_and_back():
    one = rows("b", "ü/1", "a")
    content = to_bytes(one)
    assert content == to_bytes(rows("b", "ü/1", "a"))
    back = from_bytes(content, "here", "7")
    assert (
        back.version == "7" and as_dict(back) == {"b": 1, "ü/1": 1, "a": 1} and back.crc32.tolist() == [2**32 - 1] * 3
    )
    assert len(from_bytes(to_bytes(rows()), "here")) == 0
    for broken in (b"", b"PAR1", content[:-20], content[:40] + b"\0" * 40 + content[80:]):
        with pytest.raises(DataError, match="Cannot read the manifest"):
            from_bytes(broken, "here")


def test_rotten_bytes_are_found():
    names = [f"part {number} {number**7}" for number in range(40)]
    content = to_bytes(rows(*names))
    # from the first page that zstd packed
    for place in range(content.index(b"\x28\xb5\x2f\xfd"), len(content) // 2, 7):
        spoilt = content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]
        with contextlib.suppress(DataError):
            assert as_dict(from_bytes(spoilt, "here")) == dict.fromkeys(names, 1), place


def test_merging():
    whole = rows("a", "b", "c").merged(rows("d", "b", size=5))
    assert as_dict(whole) == {"a": 1, "b": 5, "c": 1, "d": 5} and whole.names.to_pylist() == ["a", "b", "c", "d"]
    assert as_dict(whole.without(["a", "x"])) == {"b": 5, "c": 1, "d": 5}
    assert whole.places_of(rows("d", "nowhere", "a").names).tolist() == [3, -1, 0]
    assert np.array_equal(rows().places_of(rows("a").names), [-1])


def test_nothing_of_another_writer_is_lost(tmp_path):
    objects = open_place(tmp_path / "store")
    before = write_manifest(objects, None, rows("a"))
    write_manifest(objects, before, rows("b"))
    last = write_manifest(objects, before, rows("c"), gone=["a"])  # of a version that is not there any more
    assert as_dict(last) == {"b": 1, "c": 1} == as_dict(read_manifest(objects))
    assert as_dict(write_manifest(objects, None, rows("d"))) == {"b": 1, "c": 1, "d": 1}


def test_a_store_where_others_are_always_faster_is_given_up():
    class Busy:
        address = "s3://busy"

        def get_if_there(self, name):
            return to_bytes(rows("a")), "1"

        def put(self, *_, **__):
            raise Taken("taken", fix="x")

    with pytest.raises(StateError, match="others write it all the time"):
        write_manifest(Busy(), None, rows("b"))
