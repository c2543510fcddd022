"""A bucket of Google Cloud Storage: credentials by gcsfs, listing and reading by the same HTTP client as all else.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects (list, and get with alt=media).
"""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from colabkit.core.errors import DataError, UsageError
from colabkit.core.versions.differences import gcsfs_refusals
from colabkit.io.stores.buckets import OPENING_SECONDS, BucketStore
from colabkit.io.stores.links import Link
from colabkit.io.stores.patience import Patience
from colabkit.io.stores.per_process import PerProcess
from colabkit.io.stores.ranges import RangeClient
from colabkit.io.stores.store import StoredObject

_DEFAULT_ENDPOINT = "https://storage.googleapis.com"
_TOKEN_SECONDS = 60.0  # then the credentials are asked whether their token is still young
_FIELDS = "nextPageToken,items(name,size,generation,updated)"
LOG_IN = ("run `gcloud auth application-default login` (in Colab: from google.colab import auth; auth.authenticate_user()) "
          "or set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account")


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
