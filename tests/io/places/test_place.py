"""What the protocol says, for every kind of place: S3 on obstore, S3 with a pinned certificate, a folder."""

from __future__ import annotations

import threading

import pytest

from colabkit.core.errors import ChangedError, DataError
from colabkit.io.places import Found, Place, Taken

NAME = "a folder/ünï #1?.txt"


def test_put_get_find_list_delete(any_objects):
    objects = any_objects
    assert objects.get_if_there(NAME) is None and objects.find(NAME) is None and list(objects.list()) == []
    version = objects.put(NAME, b"0123456789")
    assert version and objects.get(NAME) == b"0123456789" and objects.get_if_there(NAME) == (b"0123456789", version)
    found = objects.find(NAME)
    assert (found.name, found.size, found.version) == (NAME, 10, version) and list(objects.list()) == [found]
    assert objects.get(NAME, 2, 5) == b"234" and objects.get(NAME, 7) == b"789" and objects.get(NAME, 3, 3) == b""
    assert objects.get(NAME, version=version) == b"0123456789"
    second = objects.put(NAME, b"other")
    assert second != version
    with pytest.raises(ChangedError):
        objects.get(NAME, version=version)
    objects.delete(NAME)
    objects.delete(NAME)
    assert objects.find(NAME) is None


def test_what_is_not_there(any_objects):
    with pytest.raises(DataError, match="no such object"):
        any_objects.get("nowhere")
    any_objects.put("short", b"123")
    for start, stop in ((0, 4), (5, 8)):
        with pytest.raises(DataError, match="shorter"):
            any_objects.get("short", start, stop)
    for name in ("", "a//b", "../x", "a/./b", "/a", "a/"):
        with pytest.raises(DataError, match="cannot be used"):
            any_objects.put(name, b"x")
    with pytest.raises(ValueError):
        any_objects.get("short", 3, 1)


def test_below_and_prefixes(any_objects):
    for name in ("a/1", "a/b/2", "ab/3", "a-b", "c"):
        any_objects.put(name, b"x")
    assert [found.name for found in any_objects.list()] == ["a-b", "a/1", "a/b/2", "ab/3", "c"]
    assert (
        [found.name for found in any_objects.list("a")] == ["a/1", "a/b/2"] == [f.name for f in any_objects.list("a/")]
    )
    inner = any_objects.below("a")
    assert [found.name for found in inner.list()] == ["1", "b/2"] and inner.get("b/2") == b"x"
    assert inner.address == any_objects.address + "/a" and any_objects.below("") is any_objects
    inner.put(".hidden/x", b"x")
    assert [found.name for found in inner.list()] == ["1", "b/2"]
    assert [found.name for found in inner.list(".hidden")] == [".hidden/x"]


def test_conditional_puts(any_objects, tmp_path):
    version = any_objects.put("x", b"first", only_if_absent=True)
    with pytest.raises(Taken, match="there already"):
        any_objects.put("x", b"second", only_if_absent=True)
    file = tmp_path / "third"
    file.write_bytes(b"third")
    third = any_objects.put("x", file, only_if_version=version)
    with pytest.raises(Taken, match="another version"):
        any_objects.put("x", b"fourth", only_if_version=version)
    with pytest.raises(Taken):
        any_objects.put("not there", b"x", only_if_version=version)
    assert any_objects.get_if_there("x") == (b"third", third) and any_objects.find("not there") is None


def test_of_many_threads_that_put_one_wins(any_objects):
    start, wins = threading.Barrier(8), []

    def run(number):
        start.wait()
        for race in range(5):
            try:
                any_objects.put(f"race {race}", b"%d" % number, only_if_absent=True)
                wins.append((race, number))
            except Taken:
                pass

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(race for race, _ in wins) == [0, 1, 2, 3, 4]
    for race, number in wins:
        assert any_objects.get(f"race {race}") == b"%d" % number


def test_counting_by_versions_loses_nothing(any_objects):
    any_objects.put("count", b"0")

    def run():
        for _ in range(5):
            while True:
                content, version = any_objects.get_if_there("count")
                try:
                    any_objects.put("count", b"%d" % (int(content) + 1), only_if_version=version)
                    break
                except Taken:
                    continue

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any_objects.get("count") == b"20"


def test_large_objects_from_files(any_objects, tmp_path):
    file = tmp_path / "large"
    block = bytes(range(256)) * 4096
    with open(file, "wb") as opened:
        for number in range(66):
            opened.write(number.to_bytes(4, "big") + block[4:])
    any_objects.put("large", file)
    assert any_objects.find("large").size == 66 << 20
    assert any_objects.get("large", (65 << 20), (65 << 20) + 8) == (65).to_bytes(4, "big") + block[4:8]
    assert any_objects.get("large") == file.read_bytes()
    with pytest.raises(Exception, match="not there"):
        any_objects.put("nothing", tmp_path / "no such file")


class Fixed(Place):
    """A place of one object, which says what any kind of place makes of a read."""

    address = "fixed://place"

    def get_if_there(self, name, start=0, stop=None, *, version=""):
        return Found(b"0123456789"[start:stop], "v") if name == "x" else None


def test_content_is_what_was_asked_for_or_an_error():
    place = Fixed()
    assert place.get("x", 2, 5) == b"234" and place.get("x", 8) == b"89" and repr(place) == "Fixed('fixed://place')"
    with pytest.raises(DataError, match="no such object") as caught:
        place.get("y", 0, 5)
    assert "fixed://place" in str(caught.value)
    with pytest.raises(DataError, match="shorter") as caught:
        place.get("x", 2, 12)
    assert "x: 10 bytes" in str(caught.value) and "12 bytes" in str(caught.value)
