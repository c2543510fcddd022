"""Objects of a bucket of Google Cloud Storage: signed in as data is read, listed as it is, read and written by obstore."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from colabkit.core.errors import ColabkitError, DataError, UsageError
from colabkit.io.objects.bucket import BucketObjects
from colabkit.io.objects.names import joined
from colabkit.io.objects.obstore_client import ObstoreClient
from colabkit.io.stores.client import Client, Fault, Listed
from colabkit.io.stores.gcs import LOG_IN, GcsBucket
from colabkit.io.stores.per_process import PerProcess
from colabkit.io.stores.ranges import RangeClient
from colabkit.io.stores.s3 import need_threads

_RIGHTS = {"list": "storage.objects.list", "read": "storage.objects.get", "write": "storage.objects.create",
           "delete": "storage.objects.delete"}


class GcsObjects(BucketObjects):
    """Objects below a prefix of a bucket; their version is the generation. STORAGE_EMULATOR_HOST is honoured.

    Safe for many threads, not for a process forked after obstore was loaded. Raises: UsageError, DataError, Unreachable, Taken.
    """

    def __init__(self, bucket: str, prefix: str = ""):
        super().__init__(bucket, prefix, "gs://" + joined(bucket, prefix))
        self._account = _Account(bucket)
        self._clients = PerProcess(self._open)

    def client(self, doing: str) -> Client:
        """Return the client of this process. Raises: StateError in a forked one."""
        need_threads("used", self.address)
        return self._clients.get()

    def explain(self, fault: Fault, doing: str) -> ColabkitError:
        """Return the error that says what to do about a fault."""
        if fault.status == 404:
            return self._account.missing()
        if fault.status in (400, 401, 403):
            return UsageError(f"The account has no right to {doing} in this bucket", got=fault.cause,
                              expected=f"the right {_RIGHTS[doing]}", where=self.address, fix=LOG_IN)
        if fault.kind == "name":
            return DataError("An object has a name that cannot be used", got=fault.cause, where=self.address, fix="rename it")
        return DataError(f"Cannot {doing} in this bucket", got=fault.cause, where=self.address,
                         fix="check STORAGE_EMULATOR_HOST and the proxy")

    def _open(self) -> Client:
        return _GcsClient(self._account)


class _Account(GcsBucket):
    """The bucket as somebody who may write."""

    access = "read_write"

    def store(self, seconds: float, retries: int, **extra: Any) -> Any:
        """Open obstore's client. Raises: UsageError."""
        from obstore.store import GCSStore
        options = {"allow_http": self.is_emulator, "timeout": timedelta(seconds=seconds), **extra}
        retry = {"max_retries": retries, "retry_timeout": timedelta(seconds=60)}
        if self.is_emulator:
            key = {**dict.fromkeys(("client_email", "private_key", "private_key_id"), ""), "gcs_base_url": self.endpoint,
                   "disable_oauth": True}
            config = {"service_account_key": json.dumps(key)}
            return GCSStore(self.bucket, config=config, retry_config=retry, client_options=options)
        if self.headers():
            return GCSStore(self.bucket, credential_provider=self._token, retry_config=retry, client_options=options)
        return GCSStore(self.bucket, config={"skip_signature": True}, retry_config=retry, client_options=options)

    def _token(self) -> dict[str, Any]:
        token = {name.lower(): value for name, value in self.headers().items()}["authorization"].partition(" ")[2]
        return {"token": token, "expires_at": datetime.now(UTC) + timedelta(minutes=1)}


class _GcsClient(ObstoreClient):
    """obstore for objects, and the JSON interface for listings: that tells generations."""

    def __init__(self, account: _Account):
        super().__init__(account.store, versions="version")
        self._account, self._client = account, RangeClient()
        self._tokens: dict[tuple[str, str], str] = {}  # of the page that follows a key

    def page(self, prefix: str, after: str) -> list[Listed]:
        """Return the next objects below a prefix."""
        token, start = self._tokens.pop((prefix, after), ""), after
        while True:
            page = self._account.page(self._client, after=token, start=start, prefix=prefix)
            found = [Listed(item["name"], int(item.get("size", 0)), str(item.get("generation", "")), _seconds(item))
                     for item in page.get("items", ()) if item["name"] > after and not item["name"].endswith("/")]
            token = page.get("nextPageToken", "")
            if found or not token:
                if found and token:
                    self._tokens[prefix, found[-1].name] = token
                return found


def _seconds(item: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(item.get("updated", "").replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
