"""Notebooks in buckets, for papermill: read and written by obstore, with the credentials that data is read with.

These replace papermill's own handlers of s3:// and gs:// (they need boto3, and ask elsewhere for credentials): a run
whose data could be read and whose notebook was saved all along must not fail when papermill writes it a last time.
"""

from __future__ import annotations

from colabkit.core.errors import UsageError
from colabkit.headless.failures import told_by_papermill
from colabkit.io.places import open_place
from colabkit.io.places.addresses import meant, split_scheme, without_user
from colabkit.io.places.bucket import Bucket

_SECONDS = 60.0  # for one notebook, waiting for a network that comes back included


class BucketNotebooks:
    """Notebooks of all buckets, which are opened once."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def read(self, path: str) -> str:
        """Return a notebook's text. Raises: UsageError when it is not there."""
        found = self.find(path)
        if found is None:
            raise UsageError(
                "There is no such notebook", got=path, fix="check the address: list the bucket in its console"
            )
        return found

    def find(self, path: str) -> str | None:
        """Return a notebook's text, or None when it is not there."""
        bucket, key = self.bucket_of(path)
        found = bucket.with_patience(_SECONDS).get_if_there(key)
        return None if found is None else found[0].decode("utf-8")

    def write(self, buf: str, path: str, *, seconds: float = _SECONDS) -> None:
        """Replace an object: readers find the old one or the new one.

        Raises: UsageError, Unreachable after `seconds`.
        """
        bucket, key = self.bucket_of(path)
        bucket.with_patience(seconds).put(key, buf.encode("utf-8"))

    def bucket_of(self, address: str) -> tuple[Bucket, str]:
        """Return the bucket of an address, kept open, and the key in it. Raises: UsageError."""
        scheme, rest = split_scheme(address)
        name, _, key = rest.partition("/")
        if scheme not in ("s3", "gs") or not key or key.endswith("/"):
            raise UsageError(
                "This is no address of a notebook",
                got=without_user(address),
                expected="s3://BUCKET/PATH.ipynb or gs://BUCKET/PATH.ipynb",
                fix=f"did you mean {meant(scheme, without_user(rest)) or 's3://my-bucket/notebook.ipynb'}?",
            )
        if (scheme, name) not in self._buckets:
            self._buckets[scheme, name] = open_place(f"{scheme}://{name}")
        return self._buckets[scheme, name], key


notebooks = BucketNotebooks()


class Handler:
    """What papermill wants of a handler; its command tells our errors as such."""

    def read(self, path: str) -> str:
        with told_by_papermill():
            return notebooks.read(path)

    def write(self, buf: str, path: str) -> None:
        with told_by_papermill():
            notebooks.write(buf, path)

    def listdir(self, path: str) -> list[str]:
        """Return the addresses of everything below a prefix."""
        with told_by_papermill():
            return [f"{path.rstrip('/')}/{found.name}" for found in open_place(path).list()]

    def pretty_path(self, path: str) -> str:
        return without_user(path)


handler = Handler()


def register() -> None:
    """Let papermill use these here even where this package's entry points are not installed."""
    from papermill.iorw import papermill_io

    for scheme in ("s3://", "gs://"):
        if papermill_io.get_handler(scheme) is not handler:
            papermill_io.register(scheme, handler)
