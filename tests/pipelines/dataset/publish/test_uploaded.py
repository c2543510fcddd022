"""Records of what is uploaded: on this machine and in the store, whole or not at all, and a store that takes none."""

from __future__ import annotations

from colabkit.core.errors import UsageError
from colabkit.io.places import Folder
from colabkit.pipelines.dataset.publish.uploaded import Records, ShardRecord

RECORD = ShardRecord(id="0" * 16, sha256="a" * 64, size=9, num_rows=3, seconds=1.5, left_out={"why": 1})


def test_what_is_added_is_read_by_this_machine_and_by_another(tmp_path):
    store = Folder(tmp_path / "store")
    mine = Records(tmp_path / "mine", store)
    mine.add(RECORD)
    other = Records(tmp_path / "other", store)
    assert mine.read() == other.read() == {RECORD.id: RECORD}
    other.forget([RECORD.id])
    assert other.read() == {} and mine.read() == {RECORD.id: RECORD}  # its own copy stays until it forgets


def test_records_that_are_cut_or_foreign_are_none(tmp_path):
    records = Records(tmp_path, None)
    for name, content in (("a", RECORD.to_json()[:40]), ("b", "[]"), ("c", '{"id": "x"}'), ("d", "")):
        (tmp_path / f"{name}.json").write_text(content)
    assert records.read() == {} and ShardRecord.of(RECORD.to_json()) == RECORD
    assert ShardRecord.of(RECORD.to_json().replace('"size": 9', '"size": "9"')) is None


def test_a_store_that_takes_nothing_is_told_once(tmp_path):
    class Refusing(Folder):
        def put(self, *args, **kwargs):
            raise UsageError("No right to write", fix="ask")

    said = []
    records = Records(tmp_path / "mine", Refusing(tmp_path / "store"), said.append)
    records.add(RECORD)
    records.add(ShardRecord(id="1" * 16, sha256="b" * 64, size=9, num_rows=3, seconds=1.5))
    assert len(records.read()) == 2 and len(said) == 1 and "No right" in said[0]
