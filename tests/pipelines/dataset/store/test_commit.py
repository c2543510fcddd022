"""Pieces are committed once, by the first; their codes come back as they were."""

from __future__ import annotations

import threading

import pytest

from colabkit.core.errors import ChangedError, DataError, StateError
from colabkit.pipelines.dataset.store.commit import MANIFEST, Committer, read_codes, read_manifest, write_manifest
from tests.pipelines.dataset.encode.memory_objects import MemoryObjects
from tests.pipelines.dataset.store.small_rows import FACTS, rows


def test_the_first_of_many_commits_and_the_others_find_the_same():
    store, found, start = MemoryObjects(), [], threading.Barrier(8)

    def commit(i):
        start.wait()
        found.append(
            Committer(store, FACTS, worker=f"w{i}").commit("p", "inputs-of-the-piece", rows(), [("bad", "why")], i)
        )

    threads = [threading.Thread(target=commit, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len({one.worker for one in found}) == 1 and found[0].left_aside == (("bad", "why"),)
    assert store.puts["codes/manifest/p.json"] == 1 and store.puts[found[0].object] == 1
    assert Committer(store, FACTS).committed_ids() == {"p"}


def test_other_codes_of_the_same_segments_do_not_replace_what_is_committed():
    store, said = MemoryObjects(), []
    first = Committer(store, FACTS, worker="a").commit("p", "i" * 32, rows(), [])
    second = Committer(store, FACTS, worker="b", say=said.append).commit("p", "i" * 32, rows(value=9), [])
    assert second == first and any("committed other codes" in text for text in said)
    write_manifest(store, [first], FACTS, source={}, settings={}, num_items=5, num_changed=0)
    assert next(read_codes(store))[1]["codes"][0].as_py()[0] == 7
    with pytest.raises(ChangedError, match="from other segments or with another codec"):
        Committer(store, FACTS).commit("p", "j" * 32, rows(), [])


def test_a_store_that_gives_back_something_else_is_told():
    store = MemoryObjects(conditions=False)
    committer = Committer(store, FACTS, honours_absent=False)
    made = committer.commit("p", "i" * 32, rows(), [])
    assert committer.commit("p", "i" * 32, rows(), []) == made and store.puts["codes/manifest/p.json"] == 1

    def spoil(method, name):
        if method == "get" and name.endswith(".parquet"):
            store.content[name] = b"other", "v"

    store.hook(spoil)
    with pytest.raises(StateError, match="gives back something else"):
        committer.commit("q", "i" * 32, rows(), [])


def test_the_newest_codes_of_a_segment_count_and_damage_is_told():
    store = MemoryObjects()
    committer = Committer(store, FACTS)
    with pytest.raises(StateError, match="codes are not all there"):
        list(read_codes(store))
    pieces = [
        committer.commit("00000-00000", "i" * 32, rows(), []),
        committer.commit("00001-00000", "i" * 32, rows(2, 1, 90), []),
    ]
    write_manifest(store, pieces, FACTS, source={}, settings={}, num_items=5, num_changed=0)
    found = {
        key: codes[0]
        for _, table in read_codes(store)
        for key, codes in zip(table["key"].to_pylist(), table["codes"].to_pylist(), strict=True)
    }
    assert found == {"k000": 7, "k001": 91, "k002": 92, "k003": 10, "k004": 11}
    store.content[pieces[0].object] = store.content[pieces[1].object]
    with pytest.raises(DataError, match="not what was committed"):
        list(read_codes(store))
    store.put(MANIFEST, b"{")
    with pytest.raises(DataError, match="manifest of the codes is damaged"):
        read_manifest(store)
    store.put("codes/manifest/p.json", b"[]")
    with pytest.raises(DataError, match="piece's manifest is damaged"):
        committer.read("p")
