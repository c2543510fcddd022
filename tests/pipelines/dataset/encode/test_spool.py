"""What waits comes back whole or not at all."""

from __future__ import annotations

import os

import pytest

from colabkit.pipelines.dataset.encode.spool import Spool


def test_payloads_come_back(tmp_path):
    spool = Spool(tmp_path / "spool")
    for name, content in (("a", b""), ("b", b"x" * 5000), ("c", os.urandom(70_000))):
        spool.put(name, content)
        assert spool.take(name) == content
    assert dict(spool.names()) == {"a": spool.cost(0), "b": spool.cost(5000), "c": spool.cost(70_000)}
    spool.drop("b")
    spool.drop("b")
    assert spool.take("b") is None and sorted(name for name, _ in spool.names()) == ["a", "c"]
    assert spool.free() > 1 << 20


def test_a_file_takes_no_more_than_its_cost(tmp_path):
    spool = Spool(tmp_path)
    for size in (0, 1, 4080, 4081, 4096, 100_000):
        spool.put("a", b"x" * size)
        assert os.stat(tmp_path / "a.part").st_blocks * 512 <= spool.cost(size)


@pytest.mark.parametrize("spoil", ["cut", "empty", "one bit", "longer", "of another"])
def test_what_is_not_whole_is_not_used(spoil, tmp_path):
    content = os.urandom(10_000)
    Spool(tmp_path).put("a", content)
    path = tmp_path / "a.part"
    stored = path.read_bytes()
    path.write_bytes(
        {
            "cut": stored[:5000],
            "empty": b"",
            "longer": stored + b"x",
            "of another": os.urandom(len(stored)),
            "one bit": stored[:77] + bytes([stored[77] ^ 1]) + stored[78:],
        }[spoil]
    )
    spool = Spool(tmp_path)
    assert spool.take("a") is None and [name for name, _ in spool.names()] == ["a"]
    spool.put("a", content)
    assert spool.take("a") == content
