"""A bucket of Google Cloud Storage: signed in by gcsfs, listed over its JSON interface, read and written by obstore.

Listings are asked for here: gcsfs brings all pages or none and waits as it likes, obstore's listings lack the
generations, and neither hears Retry-After.
Source: https://cloud.google.com/storage/docs/json_api/v1/objects (list, and get with alt=media).
"""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from colabkit.core.errors import ColabkitError, DataError, UsageError
from colabkit.core.versions.differences import gcsfs_refusals
from colabkit.io.places.bucket import Bucket
from colabkit.io.places.http.client import Client, Fault, read_range, seconds_of
from colabkit.io.places.http.connections import Connections
from colabkit.io.places.http.obstore_client import PAGE_OBJECTS, ObstoreClient
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.names import unusable_name
from colabkit.io.places.place import Found, StoredObject

_DEFAULT_ENDPOINT = "https://storage.googleapis.com"
_TOKEN_SECONDS = 60  # then the credentials are asked whether their token is still young
_FIELDS = "nextPageToken,items(name,size,generation,updated)"
LOG_IN = (
    "run `gcloud auth application-default login` (in Colab: from google.colab import auth; auth.authenticate_user()) "
    "or set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account"
)
_RIGHTS = {
    "list": "storage.objects.list",
    "read": "storage.objects.get",
    "write": "storage.objects.create",
    "delete": "storage.objects.delete",
}


class GcsBucket(Bucket):
    """Objects below a prefix of a bucket; their version is the generation.

    The credentials are those that gcsfs finds: the login of gcloud or Colab, the machine's account, or nobody's.
    STORAGE_EMULATOR_HOST is honoured, without credentials. Raises: UsageError, DataError, Unreachable, Taken;
    StateError in a forked process.
    """

    scheme = "gs"

    def __init__(self, bucket: str, prefix: str = "", *, endpoint: str = ""):
        importlib.import_module("gcsfs")  # when it is missing, that is told before anything is asked
        super().__init__(bucket, prefix)
        self._account = _Account(bucket, endpoint)

    def client(self) -> Client:
        """Return the client of this process. Raises: UsageError, Fault."""
        return self._account.clients.get()

    def hearing_client(self, doing: str) -> Client | None:
        """Return the JSON interface for reading; what is written is tried again by obstore alone."""
        return self._account.json.get() if doing == "read" else None

    def other_way(self, refused: Client, fault: Fault) -> bool:
        """Take another token than the refused one. Raises: Fault."""
        return fault.status == 401 and self._account.renew(refused)

    def explain(self, fault: Fault, doing: str) -> ColabkitError:
        """Return the error that says what to do about a fault."""
        if fault.kind == "credentials":
            return UsageError(
                "The Google credentials are not accepted any more", got=fault.cause, where=self.address, fix=LOG_IN
            )
        if fault.kind == "name":
            return unusable_name(fault.cause, self.address)
        if fault.status == 404:
            return UsageError(
                "There is no such bucket",
                got=self.bucket,
                where=self.address,
                fix="check the name, and the endpoint if it is not the provider's own",
            )
        if fault.status in (400, 401, 403):
            what = f"The account has no right to {doing} {'' if doing == 'list' else 'in '}this bucket"
            if self._account.is_nobody():
                what = "The bucket is not public, and no Google credentials were found"
            return UsageError(
                what, got=fault.cause, expected=f"the right {_RIGHTS[doing]}", where=self.address, fix=LOG_IN
            )
        return DataError(
            f"Cannot {doing} in this bucket",
            got=fault.cause,
            where=f"{self.address} at {self._account.endpoint}",
            fix="check STORAGE_EMULATOR_HOST and the proxy",
        )


class _Account:
    """As whom and where a bucket is asked; shared by all that look below it."""

    def __init__(self, bucket: str, endpoint: str):
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
        if emulator and "://" not in emulator:
            emulator = f"http://{emulator}"
        self.bucket, self._given = bucket, endpoint
        self._is_emulator = bool(emulator) and not endpoint
        self.endpoint = (endpoint or emulator or _DEFAULT_ENDPOINT).rstrip("/")
        self._credentials, self._renewing = PerProcess(self._sign_in), PerProcess(threading.Lock)
        self.clients, self.json = PerProcess(partial(_GcsClient, self)), PerProcess(partial(_JsonClient, self))

    def is_nobody(self) -> bool:
        """Tell whether no credentials were found where some are needed."""
        return not self._is_emulator and not self.token()

    def token(self) -> str:
        """Return the token, renewed when it is old; "" for who is not logged in. Raises: Fault."""
        headers: dict[str, str] = {}
        _with_google(lambda: self._credentials.get().apply(headers))
        return next(iter(headers.values()), "").partition(" ")[2]

    def renew(self, refused: Client) -> bool:
        """Get another token than a refused client's, unless another thread has; False for who has none.

        Raises: Fault.
        """
        credentials = self._credentials.get().credentials
        if credentials is None:
            return False

        def fetch() -> None:
            from google.auth.transport.requests import Request

            credentials.refresh(Request())

        with self._renewing.get():
            if refused in (self.clients.made(), self.json.made()):
                _with_google(fetch)
                self.clients.drop()
                self.json.drop()
        return True

    def store(self, seconds: float, retries: int = 0, **extra: Any) -> Any:
        """Open obstore's client. Raises: Fault."""
        from obstore.store import GCSStore

        settings: dict[str, Any] = {
            "retry_config": {"max_retries": retries, "retry_timeout": timedelta(seconds=60)},
            "client_options": {
                "allow_http": self.endpoint.startswith("http:"),
                "timeout": timedelta(seconds=seconds),
                **extra,
            },
        }
        at = {"base_url": self.endpoint} if self._given else {}
        if self._is_emulator:
            key = {
                **dict.fromkeys(("client_email", "private_key", "private_key_id"), ""),
                "gcs_base_url": self.endpoint,
                "disable_oauth": True,
            }
            return GCSStore(self.bucket, config={"service_account_key": json.dumps(key)}, **settings)
        if self.token():
            return GCSStore(self.bucket, config=at, credential_provider=self._credential, **settings)
        return GCSStore(self.bucket, config={**at, "skip_signature": True}, **settings)

    def _credential(self) -> dict[str, Any]:
        return {"token": self.token(), "expires_at": datetime.now(UTC) + timedelta(seconds=_TOKEN_SECONDS)}

    def _sign_in(self) -> Any:
        from gcsfs.core import GCSFileSystem

        token = "anon" if self._is_emulator else None  # None: whatever login there is, or nobody
        return GCSFileSystem(token=token, access="read_write", skip_instance_cache=True).credentials


class _JsonClient:
    """The JSON interface: listings, which tell generations, and reads, whose refusals tell how long to wait."""

    def __init__(self, account: _Account):
        self._account, self._connections = account, Connections()
        self._next: dict[tuple[str, str], str] = {}  # by prefix and key: the token of the page that comes after it
        self.without_ranges = False

    def page(self, prefix: str, after: str) -> list[StoredObject]:
        """Return the next objects below a prefix; pages of nothing but markers are read over."""
        token = self._next.pop((prefix, after), "")
        while True:
            query = {
                "maxResults": PAGE_OBJECTS,
                "fields": _FIELDS,
                **({"prefix": f"{prefix}/"} if prefix else {}),
                **({"pageToken": token} if token else {}),
                **({"startOffset": after} if after and not token else {}),
            }
            _, body = self._ask(f"/storage/v1/b/{self._account.bucket}/o?{urlencode(query)}")
            try:
                page = json.loads(body)
            except ValueError:
                raise Fault("an answer that is no JSON", kind="answer") from None
            found = [
                StoredObject(
                    item["name"],
                    int(item.get("size", 0)),
                    str(item.get("generation", "")),
                    seconds_of(item.get("updated", "")),
                )
                for item in page.get("items", ())
                if item["name"] > after and not item["name"].endswith("/")
            ]
            token = page.get("nextPageToken", "")
            if found or not token:
                if found and token:
                    self._next[prefix, found[-1].name] = token
                return found

    def get(self, key: str, start: int, stop: int | None, version: str) -> Found:
        """Return bytes start..stop, fewer where it is shorter."""
        query = urlencode({"alt": "media", **({"ifGenerationMatch": version} if version else {})})
        path = f"/download/storage/v1/b/{self._account.bucket}/o/{quote(key, safe='')}?{query}"
        fields, body = read_range(self, lambda span: self._ask(path, span), start, stop)
        return Found(body, fields.get("x-goog-generation", ""))

    def _ask(self, path: str, headers: dict[str, str] | None = None) -> tuple[dict[str, str], bytes]:
        token = self._account.token()
        signed = {"Authorization": f"Bearer {token}"} if token else {}
        return self._connections.answer("GET", self._account.endpoint + path, {**signed, **(headers or {})})


class _GcsClient(ObstoreClient):
    """obstore for objects, and the JSON interface for listings."""

    def __init__(self, account: _Account):
        super().__init__(account.store, versions="version")
        self.page = _JsonClient(account).page


def _with_google(call: Callable[[], None]) -> None:
    """Ask Google's servers for a token. Raises: Fault."""
    from google.auth.exceptions import GoogleAuthError, TransportError

    try:
        call()
    except TransportError as error:
        raise Fault(f"no token from Google: {type(error).__name__}") from None
    except (GoogleAuthError, *gcsfs_refusals()) as error:
        raise Fault(type(error).__name__, kind="credentials") from None
