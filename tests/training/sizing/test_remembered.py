"""What was measured is found again, and a file that is cut, corrupt or foreign costs a word."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from colabkit.training.sizing.choose import size
from colabkit.training.sizing.devices import find
from colabkit.training.sizing.memory_model import MemoryModel, Phase
from colabkit.training.sizing.pool import Predictions
from colabkit.training.sizing.remembered import FILE_NAME, MOST_ENTRIES, Remembered, key_of
from colabkit.training.sizing.workload import Workload

WORK = Workload(name="w", identity="w 1", num_layers=1, build=None, layers=None, batch=None, loss=None)


def sizing_of(device="L4", **changes):
    model = MemoryModel(phases=(Phase(name="forward", base_bytes=2e9, bytes_per_second=5e7),), state_bytes=2e9)
    return size(
        replace(WORK, **changes),
        device=find(device),
        lengths=[1.0, 10.0],
        effective_batch=32,
        predictions=Predictions(1.0, 10.0, predict=lambda *a, **k: model),
    )


def test_entries_come_back(tmp_path):
    said = []
    Remembered(tmp_path).save("a", {"x": 1.5})
    Remembered(tmp_path).save("b", {"x": [1, 2]})
    kept = Remembered(tmp_path, say=said.append)
    assert kept.load("a") == {"x": 1.5} and kept.load("b") == {"x": [1, 2]} and kept.load("c") is None
    kept.save("a", {"x": 2})
    assert kept.load("a") == {"x": 2} and kept.load("b") and not said


def test_the_oldest_go_first(tmp_path):
    kept = Remembered(tmp_path)
    (tmp_path / FILE_NAME).write_text(
        json.dumps({"format": 1, "entries": {f"k{i}": {"i": i} for i in range(MOST_ENTRIES)}})
    )
    kept.save("new", {"i": -1})
    assert kept.load("k0") is None and kept.load("k1") == {"i": 1} and kept.load("new") == {"i": -1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 1}',
        '{"format": 99, "entries": {}}',
        "\x00\xff",
        '{"format": 1, "entries": {"a": 3}}',
        '{"other": "program"}',
    ],
)
def test_a_file_that_cannot_be_used_is_told_and_made_anew(tmp_path, text):
    said = []
    (tmp_path / FILE_NAME).write_bytes(text.encode("latin-1"))
    kept = Remembered(tmp_path, say=said.append)
    assert kept.load("a") is None
    assert len(said) == 1 and FILE_NAME in said[0]
    kept.save("a", {"x": 1})
    assert kept.load("a") == {"x": 1}


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    said = []
    (tmp_path / "file").write_text("")
    Remembered(tmp_path / "file", say=said.append).save("a", {})
    assert any("not remembered" in line for line in said)


def test_the_key_tells_apart_what_changes_what_is_measured():
    base = sizing_of()
    others = [
        sizing_of("A100-40"),
        sizing_of(identity="w 2"),
        replace(base, regime=replace(base.regime, checkpointing=True)),
        replace(base, regime=replace(base.regime, precision="fp32")),
        replace(base, device=replace(base.device, driver="1")),
    ]
    keys = [key_of(one) for one in (base, *others)]
    assert len(set(keys)) == len(keys) and key_of(sizing_of()) == keys[0]
