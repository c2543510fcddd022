"""What an executed notebook says of its cells is true whenever it is read."""

from __future__ import annotations

import json
import time

import pytest
from nbformat import from_dict
from nbformat.v4 import new_output

from colabkit.core.errors import StateError
from colabkit.headless.places import FilePlace
from colabkit.headless.record import Record
from tests.headless.conftest import book, read, statuses

SECRET = "hunter2hunter2"


def record_of(notebook, path, **options) -> Record:
    for cell in notebook.cells:
        cell.metadata.setdefault("papermill", {})
    return Record(
        notebook,
        FilePlace(path) if path else None,
        **{"autosave_seconds": 0.1, "secrets": (SECRET,), "say": lambda line: None} | options,
    )


def test_statuses_at_every_moment(tmp_path):
    path = tmp_path / "x.ipynb"
    notebook = book("a", "b", "c")
    notebook.cells[2].outputs = [new_output("stream", text="old")]
    notebook.cells[2].execution_count = 7
    record = record_of(notebook, path)
    record.begin()
    saved = read(path)
    assert (
        statuses(saved) == ["pending"] * 4 and saved.cells[2].outputs == [] and saved.cells[2].execution_count is None
    )
    assert saved.metadata.papermill.start_time and saved.metadata.papermill.end_time is None
    for cell in notebook.cells[:4]:
        record.cell_begins(cell)
        if cell.cell_type == "code":
            assert statuses(read(path))[notebook.cells[::2].index(cell)] == "running"
            assert cell.metadata.papermill.exception is False
        record.cell_ends(cell)
    record.cell_begins(notebook.cells[4])
    record.cell_ends(notebook.cells[4], "Kernel killed", kind="KernelDied")
    record.end(whole=False)
    saved = read(path)
    assert (
        statuses(saved) == ["completed", "completed", "failed", "pending"]
        and saved.metadata.papermill.exception is True
    )
    assert [c.metadata.papermill.status for c in saved.cells] == ["completed"] * 4 + ["failed"] + ["pending"] * 2
    failed = saved.cells[4]
    assert failed.metadata.papermill.exception is True and failed.metadata.papermill.duration >= 0
    assert failed.outputs == [
        from_dict(
            {"output_type": "error", "ename": "KernelDied", "evalue": "Kernel killed", "traceback": ["Kernel killed"]}
        )
    ]
    assert saved.metadata.papermill.end_time and saved.metadata.papermill.duration >= 0


def test_an_error_that_is_shown_is_not_shown_twice():
    record = record_of(book("a"), None)
    record.begin()
    cell = record.notebook.cells[2]
    cell.outputs.append(new_output("error", ename="E", evalue="v", traceback=[]))
    record.cell_begins(cell)
    record.cell_ends(cell, "E: v", kind="E")
    assert len(cell.outputs) == 1


def test_stopped_between_two_cells():
    record = record_of(book("a"), None)
    record.begin()
    record.end(whole=False)
    assert statuses(record.notebook) == ["pending", "pending"] and record.notebook.metadata.papermill.exception is True


def test_no_secret_is_ever_written_and_none_stays_in_memory(tmp_path):
    path = tmp_path / "x.ipynb"
    notebook = book(f"token = '{SECRET}'")
    notebook.metadata["deep"] = {"x": [SECRET]}
    record = record_of(notebook, path)
    record.begin()
    assert SECRET not in path.read_text() and notebook.cells[2].source == f"token = '{SECRET}'", "which is what runs"
    cell = notebook.cells[2]
    record.cell_begins(cell)
    cell.outputs += [new_output("stream", text=SECRET[:9]), new_output("stream", text=SECRET[9:])]
    for _ in range(2):
        record.save()
        assert "hunter2" not in path.read_text()
        cell.outputs.pop()
    record.cell_ends(cell)
    record.end(whole=True)
    assert "hunter2" not in json.dumps(notebook) and "hunter2" not in path.read_text()
    assert notebook.metadata.papermill.exception is None


def test_autosave_when_something_changed_and_it_is_time(tmp_path):
    record = record_of(book("a"), tmp_path / "x.ipynb")
    record.begin()
    written = []
    record.place.write = lambda text, patient=False: written.append(patient)
    record.autosave()
    time.sleep(0.12)
    record.autosave()
    assert written == [], "nothing has changed"
    record.changed = True
    record.autosave()
    record.changed = True
    record.autosave()
    assert written == [False], "not so soon again"
    record._saved_at, record._saving_seconds = time.monotonic() - 5, 1.0
    record.autosave()
    assert written == [False], "a slow place is left in peace for ten times as long"
    record.autosave_seconds = 0
    record._saved_at = record._saving_seconds = 0.0
    record.autosave()
    assert written == [False], "turned off"


def test_saving_that_fails_does_not_stop_the_work_until_the_end(tmp_path):
    said = []
    record = record_of(book("a"), tmp_path / "x.ipynb", say=said.append)
    record.begin()
    write, record.place.write = record.place.write, _no_space
    cell = record.notebook.cells[2]
    record.cell_begins(cell)
    record.cell_ends(cell)
    assert len(said) == 1 and "the work goes on" in said[0] and SECRET not in said[0], "told once"
    assert record.changed or cell.metadata.papermill.status == "completed"
    with pytest.raises(StateError):
        record.end(whole=True)
    record.place.write = write
    record.save()
    assert read(tmp_path / "x.ipynb").cells[2].metadata.papermill.status == "completed"


def _no_space(text, patient=False):
    raise StateError(f"no space left for {SECRET}", fix="delete something")
