"""What stores honour is found out, told once, and nothing of it stays where it may be removed."""

from __future__ import annotations

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.places import open_place
from colabkit.io.places.probe import probe
from colabkit.loopback.s3 import refuse


def test_a_store_that_honours_all(objects, server):
    found = probe(objects)
    assert (
        found.can_commit
        and found.if_match
        and found.ranges
        and found.multipart
        and found.may_delete
        and found.version_is_md5
    )
    assert not found.left and server.buckets["bucket"].find("some/prefix/x") is None
    assert not server.buckets["bucket"]._objects
    asked = sum(server.counts.values())
    assert probe(objects.below("elsewhere")) is found and sum(server.counts.values()) == asked
    assert probe(objects, again=True) == found and sum(server.counts.values()) == 2 * asked
    assert "several machines may work" in str(found.table())


def test_an_old_store_that_ignores_conditions(objects, server):
    server.ignores_conditions = True
    found = probe(objects)
    assert not found.if_none_match and not found.one_of_a_race and not found.if_match and not found.can_commit
    assert found.ranges and found.may_delete and "own share" in str(found.table())


def test_without_the_right_to_delete(objects, server):
    server.undeletable.add("bucket")
    found = probe(objects)
    assert not found.may_delete and len(found.left) == 3 and all(".colabkit-probe-" in name for name in found.left)
    assert found.can_commit and not list(objects.list())  # hidden from listings


def test_without_parts_and_ranges(objects, server):
    def before(request):
        if request.method == "POST":
            return refuse("NotImplemented", "")
        request.fields.pop("range", None)
        return None

    server.before = before
    found = probe(objects)
    assert not found.multipart and not found.ranges and found.may_delete


def test_without_the_right_to_write(objects, server):
    server.before = lambda request: refuse("AccessDenied", "") if request.method == "PUT" else None
    with pytest.raises(UsageError, match="no right to write"):
        probe(objects)


def test_a_folder(tmp_path):
    found = probe(open_place(tmp_path / "store"))
    assert (
        found.can_commit
        and found.if_match
        and found.ranges
        and found.may_delete
        and not list((tmp_path / "store").iterdir())
    )
