"""Google Cloud Storage on loopback: read and written by obstore, listed by generations, refused in words."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from colabkit.core.errors import ChangedError, UsageError
from colabkit.io.places import open_objects
from colabkit.loopback.messages import Answer
from tests.servers.gcs import GcsServer


class Gcs(GcsServer):
    """The real service's XML interface, as far as obstore insists on it."""

    def answer(self, request):
        bucket = request.path[1:].partition("/")[0]
        if request.method == "PUT" and (bucket in self.denied or not self._storage.get_bucket(bucket)):
            return Answer(403 if bucket in self.denied else 404, {"Content-Type": "application/xml"}, b"<Error></Error>")
        answer = super().answer(request)
        if answer.status in (200, 206) and request.method in ("GET", "PUT", "HEAD"):
            answer.fields.setdefault("Last-Modified", formatdate(usegmt=True))
            answer.fields.setdefault("ETag", '"1"')
        return answer


@pytest.fixture
def gcs(monkeypatch):
    with Gcs() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        server.put("bucket", "there", b"x")
        server.put("closed", "there", b"x")
        server.deny("closed")
        yield server


def test_read_write_list(gcs):
    objects = open_objects("gs://bucket/some/prefix")
    assert objects.get_if_there("a b/ü") is None and list(objects.list()) == []
    for number in range(5):
        objects.put(f"{number}", b"%d" % number)
    gcs.put("bucket", "some/prefix/a b/ü", b"0123456789")
    assert objects.get("a b/ü", 2, 5) == b"234"
    listed = list(objects.list())
    assert [found.name for found in listed] == ["0", "1", "2", "3", "4", "a b/ü"]
    assert len({found.version for found in listed}) == 6
    assert [found.name for found in objects.list("a b")] == ["a b/ü"] and objects.below("a b").address.endswith("prefix/a b")
    with pytest.raises(ChangedError):
        objects.get("a b/ü", version="another")


def test_refusals(gcs):
    with pytest.raises(UsageError, match="no such bucket"):
        open_objects("gs://nowhere-at-all").put("x", b"x")
    with pytest.raises(UsageError, match="no right to write") as caught:
        open_objects("gs://closed").put("x", b"x")
    assert "storage.objects.create" in caught.value.expected and "gcloud auth" in caught.value.fix
    with pytest.raises(UsageError, match="list this bucket|not public"):
        list(open_objects("gs://closed").list())
