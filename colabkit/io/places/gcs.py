"""A bucket of Google Cloud Storage: signed in by gcsfs, listed over its JSON interface, written by obstore.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects (list, and get with alt=media).
"""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from colabkit.core.errors import ColabkitError, DataError, UsageError
from colabkit.core.versions.differences import gcsfs_refusals
from colabkit.io.places.bucket import OPENING_SECONDS, BucketObjects, BucketStore
from colabkit.io.places.http.client import Client, Fault, Listed, StoredObject
from colabkit.io.places.http.links import Link
from colabkit.io.places.http.obstore_client import ObstoreClient
from colabkit.io.places.http.patience import Patience
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.http.ranges import RangeClient
from colabkit.io.places.names import joined
from colabkit.io.places.s3 import need_threads

_DEFAULT_ENDPOINT = "https://storage.googleapis.com"
_TOKEN_SECONDS = 60.0  # then the credentials are asked whether their token is still young
_FIELDS = "nextPageToken,items(name,size,generation,updated)"
LOG_IN = ("run `gcloud auth application-default login` (in Colab: from google.colab import auth; auth.authenticate_user()) "
          "or set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account")
_RIGHTS = {"list": "storage.objects.list", "read": "storage.objects.get", "write": "storage.objects.create",
           "delete": "storage.objects.delete"}


class GcsBucket(BucketStore):
    """A bucket or a prefix in it, with the credentials that gcsfs finds, or as a public one; nothing is asked of it yet.

    STORAGE_EMULATOR_HOST is honoured, without credentials.
    """

    access = "read_only"  # what a token is asked for

    def __init__(self, bucket: str, prefix: str = "", *, endpoint: str | None = None):
        importlib.import_module("gcsfs")  # when it is missing, that is told before anything is asked
        super().__init__("gs", bucket, prefix)
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
        if emulator and "://" not in emulator:
            emulator = f"http://{emulator}"
        self.is_emulator = bool(emulator) and not endpoint
        self.endpoint = (endpoint or emulator or _DEFAULT_ENDPOINT).rstrip("/")
        self._credentials, self._renewing = PerProcess(self._sign_in), PerProcess(threading.Lock)

    def page(self, client: RangeClient, *, after: str = "", num_most: int = 1000, start: str = "",
             prefix: str | None = None) -> dict[str, Any]:
        """Ask for one page of the listing, once more with a new token when it is refused. Raises: UsageError.

        `after` is the page before's nextPageToken, `start` the first key that is wanted.
        """
        prefix = self.prefix if prefix is None else prefix
        query = {"maxResults": num_most, "fields": _FIELDS, **({"prefix": f"{prefix}/"} if prefix else {}),
                 **({"pageToken": after} if after else {"startOffset": start} if start else {})}
        url = f"{self.endpoint}/storage/v1/b/{self.bucket}/o?{urlencode(query)}"
        for is_last in (False, True):
            headers = self.headers()
            status, _, body = client.ask("GET", url, headers, self.address)
            if status != 401 or is_last or not headers:
                break
            self._refresh(headers)
        if status == 404:
            raise self.missing()
        if status in (401, 403):
            what = "The account has no right to list this bucket" if headers else (
                "The bucket is not public, and no Google credentials were found")
            raise UsageError(what, got=f"status {status}", expected="the rights storage.objects.list and storage.objects.get",
                             where=self.address, fix=LOG_IN)
        try:
            return json.loads(body) if status == 200 else _reject(status)
        except ValueError as error:
            raise DataError("Cannot list the bucket: the answer is of no use", got=f"status {status}", expected="JSON",
                            where=f"{self.address} at {self.endpoint}",
                            fix="check STORAGE_EMULATOR_HOST and the proxy") from error

    def _sign_in(self) -> Any:
        from gcsfs.core import GCSFileSystem

        token = "anon" if self.is_emulator else None  # None: the login of gcloud or Colab, the machine's account, or nobody
        return GCSFileSystem(token=token, access=self.access, skip_instance_cache=True).credentials

    def headers(self) -> dict[str, str]:
        """Return the token as headers, renewed when it is old; none for who is not logged in."""
        headers: dict[str, str] = {}
        self._with_google(lambda: self._credentials.get().apply(headers))
        return headers

    def _refresh(self, refused: Mapping[str, str]) -> None:
        """Get another token than the refused one, unless another thread has done so since."""
        credentials = self._credentials.get().credentials

        def fetch() -> None:
            from google.auth.transport.requests import Request

            credentials.refresh(Request())
        with self._renewing.get():
            if credentials is not None and self.headers() == refused:
                self._with_google(fetch)

    def _with_google(self, call: Callable[[], None]) -> None:
        """Ask for a token, again after faults that pass. Raises: UsageError, Unreachable."""
        from google.auth.exceptions import GoogleAuthError, TransportError

        patience = Patience(OPENING_SECONDS)
        while True:
            try:
                return call()
            except TransportError as error:
                cause = f"no token from Google: {type(error).__name__}"
            except (GoogleAuthError, *gcsfs_refusals()) as error:
                raise UsageError("The Google credentials are not accepted any more", got=type(error).__name__,
                                 where=self.address, fix=LOG_IN) from None
            patience.wait(cause, self.address)


class GcsStore(GcsBucket):
    """A bucket or a prefix in it, to be read. Raises: UsageError when it does not exist or may not be read; Unreachable."""

    def __init__(self, bucket: str, prefix: str = "", *, endpoint: str | None = None):
        super().__init__(bucket, prefix, endpoint=endpoint)
        self.page(self._opening, num_most=1)

    def list(self) -> list[StoredObject]:
        """Return the objects below the prefix, sorted by name; their version is the generation."""
        found, after = [], ""
        while True:
            page = self.page(self._client, after=after)
            found += [StoredObject(item["name"], int(item.get("size", 0)), str(item.get("generation", "")))
                      for item in page.get("items", ())]
            after = page.get("nextPageToken", "")
            if not after:
                return self._listed(found)

    def link(self, name: str) -> Link:
        version = self._versions.get(name)
        query = urlencode({"alt": "media", **({"ifGenerationMatch": version} if version else {})})
        url = f"{self.endpoint}/download/storage/v1/b/{self.bucket}/o/{quote(self.key_of(name), safe='')}?{query}"
        return Link(lambda: (url, self.headers()), refresh=self._refresh, lifetime_seconds=_TOKEN_SECONDS,
                    fix_refused=f"{LOG_IN}, with an account that has storage.objects.get here")


def _reject(status: int) -> dict[str, Any]:
    raise ValueError(f"status {status}")


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
