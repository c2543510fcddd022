"""Notebooks in buckets, for papermill: read and written by obstore, with the credentials that data is read with.

These replace papermill's own handlers of s3:// and gs:// (they need boto3, and ask elsewhere for credentials): a run whose
data could be read and whose notebook was saved all along must not fail when papermill writes it a last time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

from colabkit.core.errors import DataError, UsageError, missing_extra
from colabkit.headless.failures import told_by_papermill
from colabkit.io.stores.addresses import meant, split_scheme, without_user
from colabkit.io.stores.patience import Patience

_SECONDS = 60.0  # for one notebook, waiting for a network that comes back included
_RETRIES = {"max_retries": 1, "retry_timeout": timedelta(seconds=5)}
T = TypeVar("T")


class BucketNotebooks:
    """Notebooks of all buckets, which are opened once."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], Any] = {}

    def read(self, path: str) -> str:
        """Return a notebook's text. Raises: UsageError when it is not there."""
        found = self.find(path)
        if found is None:
            raise UsageError("There is no such notebook", got=path, fix="check the address: list the bucket in its console")
        return found

    def find(self, path: str) -> str | None:
        """Return a notebook's text, or None when it is not there."""
        bucket, key = self.bucket_of(path)
        content = bucket.get(key)
        return None if content is None else content.decode("utf-8")

    def write(self, buf: str, path: str, *, seconds: float = _SECONDS) -> None:
        """Replace an object: readers find the old one or the new one. Raises: UsageError, Unreachable after `seconds`."""
        bucket, key = self.bucket_of(path)
        bucket.put(key, buf.encode("utf-8"), seconds)

    def bucket_of(self, address: str) -> tuple[Any, str]:
        """Return the bucket of an address, kept open, and the key in it. Raises: UsageError."""
        scheme, rest = split_scheme(address)
        name, _, key = rest.partition("/")
        if scheme not in ("s3", "gs") or not key or key.endswith("/"):
            raise UsageError("This is no address of a notebook", got=without_user(address),
                             expected="s3://BUCKET/PATH.ipynb or gs://BUCKET/PATH.ipynb",
                             fix=f"did you mean {meant(scheme, without_user(rest)) or 's3://my-bucket/notebook.ipynb'}?")
        if (scheme, name) not in self._buckets:
            try:
                self._buckets[scheme, name] = (_s3 if scheme == "s3" else _gcs)(name)
            except ModuleNotFoundError as error:
                raise missing_extra(error, "streaming") from error
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
        from colabkit.io.stores import open_store
        with told_by_papermill():
            return [f"{path.rstrip('/')}/{found.name}" for found in open_store(path).list()]

    def pretty_path(self, path: str) -> str:
        return without_user(path)


handler = Handler()


def _s3(name: str) -> Any:
    from colabkit.io.stores.s3 import S3Store, _ways_in

    class S3Bucket(S3Store):
        """Finds region, endpoint and keys as the data's store does, without needing the right to list."""

        def _find_access(self) -> None:
            """Nothing is asked before there is something to get or put."""

        def get(self, key: str) -> bytes | None:
            return self._in_some_way(lambda: _get(self._objects.get(), key), "read")

        def put(self, key: str, content: bytes, seconds: float) -> None:
            self._in_some_way(lambda: _put(self._objects.get(), key, content), "write", seconds)

        def _in_some_way(self, call: Callable[[], T], doing: str, seconds: float = _SECONDS) -> T:
            refusal = None
            for self._reads_as in _ways_in():
                self._objects.drop()
                try:
                    return self._ask(call, seconds)
                except UsageError as error:
                    refusal = refusal or error
            refusal.what = refusal.what.replace("list this bucket", f"{doing} in this bucket")
            raise refusal
    return S3Bucket(name)


def _gcs(name: str) -> Any:
    from colabkit.io.stores.gcs import _LOG_IN, GcsStore

    class GcsBucket(GcsStore):
        """Signs in as the data's store does, without needing the right to list."""

        def _page(self, *_: Any, **__: Any) -> dict[str, Any]:
            return {}

        @cached_property
        def _store(self) -> Any:
            from obstore.store import GCSStore
            config: dict[str, Any] = {}
            if self._is_emulator:
                config["service_account_key"] = json.dumps({
                    "gcs_base_url": self.endpoint, "disable_oauth": True, "client_email": "", "private_key": "",
                    "private_key_id": ""})
            elif self._headers():
                return GCSStore(self.bucket, credential_provider=self._token, retry_config=_RETRIES)
            else:
                config["skip_signature"] = True
            return GCSStore(self.bucket, config=config, retry_config=_RETRIES, client_options={"allow_http": self._is_emulator})

        def _token(self) -> dict[str, Any]:
            token = {k.lower(): v for k, v in self._headers().items()}["authorization"].partition(" ")[2]
            return {"token": token, "expires_at": datetime.now(UTC) + timedelta(minutes=1)}

        def get(self, key: str) -> bytes | None:
            return self._ask(lambda: _get(self._store, key), "read")

        def put(self, key: str, content: bytes, seconds: float) -> None:
            self._ask(lambda: _put(self._store, key, content), "write", seconds)

        def _ask(self, call: Callable[[], T], doing: str, seconds: float = _SECONDS) -> T:
            import obstore
            patience = Patience(seconds)
            while True:
                try:
                    return call()
                except (obstore.exceptions.BaseError, OSError) as error:
                    text = str(error)
                    status = re.search(r"status code: (\d{3})|status: (\d{3})", text)
                    status = int(status[1] or status[2]) if status else 0
                    if isinstance(error, FileNotFoundError) or status == 404:
                        raise self.missing() from None
                    if status in (400, 401, 403) or isinstance(error, PermissionError):
                        raise UsageError(f"The account has no right to {doing} in this bucket", got=f"status {status or 403}",
                                         where=self.address, fix=_LOG_IN) from None
                    cause = re.sub(r"\?\S*", "", text.partition("\n")[0])[-200:]
                    if status in (501, 505) or 300 <= status < 500 and status not in (408, 429):
                        raise DataError(f"Cannot {doing} in this bucket", got=cause, where=self.address,
                                        fix="check STORAGE_EMULATOR_HOST and the proxy") from None
                patience.wait(cause, self.address)
    return GcsBucket(name)


def _get(store: Any, key: str) -> bytes | None:
    import obstore
    try:
        return bytes(obstore.get(store, key).bytes())
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise
        return None


def _put(store: Any, key: str, content: bytes) -> None:
    import obstore
    obstore.put(store, key, content, use_multipart=False)


def register() -> None:
    """Let papermill use these here even where this package's entry points are not installed."""
    from papermill.iorw import papermill_io
    for scheme in ("s3://", "gs://"):
        if papermill_io.get_handler(scheme) is not handler:
            papermill_io.register(scheme, handler)


