"""The progress file says how far all runs together are, and a full disk does not end the work for its sake."""

from __future__ import annotations

import errno
import json

import pytest

from colabkit.core import files
from colabkit.core.errors import StateError
from colabkit.pipelines.dataset.encode.accounts import Tally
from colabkit.pipelines.dataset.encode.credits import Credits
from colabkit.pipelines.dataset.encode.journal import Journal
from colabkit.pipelines.dataset.encode.progress_file import NAME, Record
from colabkit.pipelines.dataset.encode.task import Encoded

BEFORE = Encoded(num_items=10, num_done=4, num_pieces=3, num_pieces_done=1)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite", {})
    yield journal
    journal.close()


def test_it_counts_what_earlier_runs_did_and_this_ones_failures(tmp_path, journal):
    journal.add("seconds", 100.0)
    journal.encoded([], num_batches=7)
    credits = Credits(1000)
    assert credits.acquire({0: 300})
    written = Record(tmp_path / NAME, journal, credits, BEFORE)
    written.write(Tally(num_items=5, num_left_aside=2, num_pieces=1), is_last=True)
    told = json.loads((tmp_path / NAME).read_text())
    assert told["seconds"] >= 100 and told.pop("items_per_second") > 0 and told.pop("updated")[:2] == "20"
    assert {name: value for name, value in told.items() if name != "seconds"} == {
        "items": 10,
        "items_done": 9,
        "items_failed": 2,
        "batches_done": 7,
        "pieces": 3,
        "pieces_done": 2,
        "bytes_on_disk": 300,
    }
    assert journal.count("seconds") > 100, "the next run counts on"


def test_it_is_written_once_a_second_and_at_the_end(tmp_path, journal):
    written = Record(tmp_path / NAME, journal, Credits(1), BEFORE)
    for num_items, is_last, expected in ((1, False, 5), (2, False, 5), (3, True, 7)):
        written.write(Tally(num_items=num_items), is_last=is_last)
        assert json.loads((tmp_path / NAME).read_text())["items_done"] == expected


@pytest.mark.parametrize("code, ends", [(errno.ENOSPC, False), (errno.EACCES, True)])
def test_a_full_disk_alone_is_let_pass(tmp_path, journal, monkeypatch, code, ends):
    def write(path, *args, **kwargs):
        raise files.disk_fault(OSError(code, "told"), path, "write")

    monkeypatch.setattr(files, "write_json", write)
    written = Record(tmp_path / NAME, journal, Credits(1), BEFORE)
    if ends:
        with pytest.raises(StateError):
            written.write(Tally())
    else:
        written.write(Tally())
    assert not (tmp_path / NAME).exists()
