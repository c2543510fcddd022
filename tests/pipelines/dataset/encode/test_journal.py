"""The journal remembers what was said, and says when it cannot be what is asked for."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from colabkit.core.errors import StateError
from colabkit.pipelines.dataset.encode.journal import ENCODED, LEFT_ASIDE, UPLOADED, Journal

CODES = np.arange(12, dtype=np.uint16).reshape(2, 6)


def opened(tmp_path, said=None, **identity):
    return Journal(
        tmp_path / "journal.sqlite", identity or {"codec": "x"}, say=(said if said is not None else []).append
    )


def test_what_is_written_is_there_after_another_opening(tmp_path):
    journal = opened(tmp_path)
    journal.encoded([("p", 3, CODES, {"text": "مرحبا"}), ("p", 1, CODES[:, :0], {})])
    journal.encoded([("q", 0, CODES, {})])
    journal.left_aside("p", 2, "broken")
    journal.uploaded("p", 3)
    journal.add("seconds", 1.5)
    journal.add("seconds", 2)
    # Not closed: as if killed.
    again = opened(tmp_path)
    assert again.states("p") == {1: ENCODED, 2: LEFT_ASIDE, 3: UPLOADED} and again.pieces() == ["p", "q"]
    one, two, three = again.entries("p")
    assert np.array_equal(three.codes, CODES) and three.known == {"text": "مرحبا"} and one.codes.shape == (2, 0)
    assert two.codes is None and two.reason == "broken"
    assert again.count("batches") == 2 and again.count("seconds") == 3.5
    again.forget_left_aside("p")
    assert again.states("p") == {1: ENCODED, 3: UPLOADED}
    again.committed("p")
    assert again.pieces() == ["q"] and again.states("p") == {}


def test_a_batch_is_written_whole_or_not_at_all(tmp_path):
    journal = opened(tmp_path)
    with pytest.raises(TypeError):
        journal.encoded([("p", 0, CODES, {}), ("p", 1, CODES, {"not json": object()})])
    assert journal.states("p") == {}


@pytest.mark.parametrize("damage", ["text", "middle", "other", "other version"])
def test_a_journal_that_is_not_ours_is_set_aside_and_said(damage, tmp_path):
    said = []
    journal = opened(tmp_path, said)
    journal.encoded([("p", i, np.zeros((2, 500), np.uint16), {}) for i in range(200)])
    journal.close()
    path = tmp_path / "journal.sqlite"
    if damage == "text":
        path.write_bytes(b"not a database, but long enough to be looked at " * 100)
    elif damage == "middle":
        content = bytearray(path.read_bytes())
        content[4096 * 3 : 4096 * 9] = b"\xff" * 4096 * 6
        path.write_bytes(content)
    elif damage == "other version":
        with sqlite3.connect(path) as connection:
            connection.execute("update facts set value = '99' where name = 'format'")
        connection.close()
    journal = opened(tmp_path, said, codec="y" if damage == "other" else "x")
    assert journal.states("p") == {} and len(said) == 1 and "is set aside as journal.sqlite.aside-1" in said[0]
    assert (tmp_path / "journal.sqlite.aside-1").exists()
    journal.encoded([("p", 0, CODES, {})])
    journal.close()
    assert (
        opened(tmp_path, said, codec="y" if damage == "other" else "x").states("p") == {0: ENCODED} and len(said) == 1
    )


def test_it_stays_small_as_pieces_come_and_go(tmp_path):
    journal, sizes = opened(tmp_path), []
    for piece in range(40):
        for start in range(0, 200, 10):
            journal.encoded(
                [(str(piece), start + i, np.zeros((2, 200), np.uint16), {"text": "x" * 200}) for i in range(10)]
            )
        journal.committed(str(piece))
        sizes.append(journal.num_bytes)
    assert max(sizes) < 2 << 20 and max(sizes[20:]) <= max(sizes[:20]) * 1.2


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError):
        Journal(tmp_path / "file" / "journal.sqlite", {})
