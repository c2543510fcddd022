"""Killed anywhere, again and again: nothing lost, nothing committed twice, at most one micro-batch encoded again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.pipelines.dataset.encode.killing import KINDS, Campaign, FolderStore

ROOT = Path(__file__).resolve().parents[4]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PROGRAM = """
import json, random, sys
from pathlib import Path
from tests.pipelines.dataset.encode.killing import KINDS, Campaign, FolderStore, Campaign, FolderStore
from tests.pipelines.dataset.encode.small_codec import fill
folder, kind, kills, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
segments = FolderStore(folder / "store").below("segments")
fill(segments, 100, shortest=4000, longest=15_999, step=4000)
segments.put("channel0/broken.npz", b"PK no zip")
campaign = Campaign(folder, lambda: FolderStore(folder / "store"), **KINDS[kind])
events = campaign.learn()
campaign.run_all(kills, events, random.Random(seed))
print(json.dumps(campaign.told() | {"events": events}))
"""


def campaign(folder: Path, kind: str, kills: int, seed: int = 0) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), kind, str(kills), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", list(KINDS))
def test_killed_runs_lose_nothing_and_do_nothing_twice(kind, kills, tmp_path):
    told = campaign(tmp_path, kind, kills, seed=random.Random(f"{kind} {kills}").randint(0, 1000))
    assert told["faults"] == [] and told["kills"] == kills and told["events"] > 300, told


def test_what_must_not_be_is_seen(tmp_path):
    judge, seen, committed = Campaign(tmp_path, lambda: None), Counter(), {}
    judge.check("t", [], committed, [[1, 2], [3, 4]], seen, -9)
    judge.check("t", [{"committed": "p", "crc32": 1}], committed, [[3, 4], [5]], seen, -9)
    assert judge.faults == [] and judge.most_encoded_again == 2
    judge.check("t", [], committed, [[1], [6]], seen, -9)
    assert len(judge.faults) == 1 and "in no batch in flight" in judge.faults[0]
    judge.check("t", [{"committed": "p", "crc32": 1}], committed, [], seen, 0)
    assert len(judge.faults) == 2 and "committed twice" in judge.faults[1]
    judge.expected = {"a": "1", "b": "2"}
    judge.open_store = lambda: FolderStore(tmp_path / "store")
    (tmp_path / "spool").mkdir()
    FolderStore(tmp_path / "store").put("t/codes/MANIFEST.json", b'{"pieces": [], "num_items": 0, "num_left_aside": 0}')
    assert "lost ['a', 'b']" in judge.compare("t", tmp_path)[0]
