"""Notebooks in buckets on loopback servers: read, written, kept, saved while a cell runs, and refused in words."""

from __future__ import annotations

import os
import signal
from email.utils import formatdate

import nbformat
import papermill
import papermill.iorw
import pytest

from colabkit.core.errors import UsageError
from colabkit.headless.remote import BucketNotebooks, handler, notebooks, register
from colabkit.io.places.http.ranges import Unreachable
from colabkit.loopback.messages import Answer
from tests.headless.conftest import book, printed, statuses, wait_until
from tests.servers.gcs import GcsServer
from tests.servers.s3 import S3Server

OF_ENVIRONMENT = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AWS_SKIP_SIGNATURE",
    "STORAGE_EMULATOR_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
KEY = "runs/ünï codé #1.ipynb"


class Gcs(GcsServer):
    """The real service's XML interface, as far as obstore insists on it: headers, and what is refused."""

    def answer(self, request):
        bucket = request.path[1:].partition("/")[0].replace("%2D", "-")
        if request.method == "PUT":
            status = 403 if bucket in self.denied else 200 if self._storage.get_bucket(bucket) else 404
            if status != 200:
                return Answer(status, {"Content-Type": "application/xml"}, b"<Error></Error>")
        answer = super().answer(request)
        if request.method == "PUT" and answer.status == 200:
            answer.fields.setdefault("ETag", '"1"')
        if request.method == "GET" and answer.status == 200:
            answer.fields.setdefault("Last-Modified", formatdate(usegmt=True))
            answer.fields.setdefault("ETag", '"1"')
        return answer


@pytest.fixture(scope="module")
def servers():
    with S3Server() as s3, Gcs() as gcs:
        for server in (s3, gcs):
            server.put("bucket", "there.txt", b"x")
            server.put("closed", "there.txt", b"x")
            server.deny("closed")
        yield {"s3": s3, "gs": gcs}


@pytest.fixture(autouse=True)
def environment(servers, monkeypatch, tmp_path):
    for name in OF_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    for name, value in {k: v for s in servers.values() for k, v in s.environment().items()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    notebooks._buckets.clear()


@pytest.fixture(params=["s3", "gs"])
def scheme(request):
    return request.param


def test_read_and_write(scheme):
    address = f"{scheme}://bucket/{KEY}"
    assert notebooks.find(f"{scheme}://bucket/none.ipynb") is None
    for text in ("first ü", "x", "x" * 12_000_000):
        notebooks.write(text, address)
        assert notebooks.read(address) == text == BucketNotebooks().find(address)
    assert address in handler.listdir(f"{scheme}://bucket/runs") and handler.pretty_path(address) == address


def test_what_cannot_be_done(scheme, monkeypatch):
    with pytest.raises(UsageError, match="no such notebook"):
        notebooks.read(f"{scheme}://bucket/none.ipynb")
    with pytest.raises(UsageError, match="no such bucket"):
        notebooks.write("x", f"{scheme}://nowhere-at-all/x.ipynb")
    for address in (
        f"{scheme}://bucket",
        f"{scheme}://bucket/",
        f"{scheme}://bucket/folder/",
        f"{scheme}:bucket/x",
        "https://h/x",
    ):
        with pytest.raises(UsageError):
            notebooks.bucket_of(address)
    with pytest.raises(UsageError, match="no right to write in this bucket") as caught:
        notebooks.write("x", f"{scheme}://closed/x.ipynb")
    assert caught.value.exit_code == 2 and "test" not in str(caught.value.got)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    notebooks._buckets.clear()
    notebooks.bucket_of(f"{scheme}://bucket/x.ipynb")  # opening asks nothing: the network fails later
    with pytest.raises(Unreachable):
        notebooks.write("x", f"{scheme}://bucket/x.ipynb", seconds=1)


def test_papermill_runs_from_bucket_to_bucket(scheme):
    register()
    register()
    assert papermill.iorw.papermill_io.get_handler(f"{scheme}://x") is handler
    notebooks.write(nbformat.writes(book("print('in the bucket', TEXT)")), f"{scheme}://bucket/in.ipynb")
    output = f"{scheme}://bucket/out.ipynb"
    for text in ("one", "two"):
        papermill.execute_notebook(
            f"{scheme}://bucket/in.ipynb", output, {"TEXT": text}, engine_name="colabkit", progress_bar=False
        )
    assert printed(nbformat.reads(notebooks.read(output), 4)) == "in the bucket two\n"
    assert printed(nbformat.reads(notebooks.read(f"{scheme}://bucket/out.previous.ipynb"), 4)) == "in the bucket one\n"


def test_a_lost_machine_leaves_the_latest_state_in_the_bucket(start, scheme):
    """By papermill's own command, whose handlers come from the entry points."""
    notebooks.write(
        nbformat.writes(book("import time\nprint('before', flush=True)\ntime.sleep(600)", "print('never')")),
        f"{scheme}://bucket/long.ipynb",
    )
    output = f"{scheme}://bucket/lost.ipynb"
    process = start(
        "papermill",
        f"{scheme}://bucket/long.ipynb",
        output,
        "--engine",
        "colabkit",
        "--autosave-cell-every",
        "1",
        env=dict(os.environ),
    )
    process.wait_for("  before")
    wait_until(lambda: printed(nbformat.reads(notebooks.read(output), 4)) == "before\n")
    process.send(signal.SIGKILL)
    process.end()
    assert statuses(nbformat.reads(notebooks.read(output), 4)) == ["completed", "running", "pending"]


def test_papermills_command_ends_with_2(start, scheme):
    process = start("papermill", f"{scheme}://bucket/none.ipynb", "out.ipynb", "--engine", "colabkit")
    assert process.end() == 2
    assert "There is no such notebook" in process.text() and "Traceback" not in process.text()
