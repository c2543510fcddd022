"""A bucket of S3 or of what speaks like it: on obstore, or by our own client where a certificate is pinned."""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from colabkit.core.errors import ColabkitError, StateError, UsageError
from colabkit.io.places.bucket import OPENING_SECONDS, BucketObjects, BucketStore
from colabkit.io.places.http.client import Client, Fault, StoredObject
from colabkit.io.places.http.links import Link
from colabkit.io.places.http.obstore_client import ObstoreClient
from colabkit.io.places.http.patience import Patience
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.http.ranges import RangeClient
from colabkit.io.places.http.signed_client import SignedClient
from colabkit.io.places.http.signing import Signer
from colabkit.io.places.http.trust import pinned_for
from colabkit.io.places.names import joined, unusable_name
from colabkit.io.places.s3_profile import (
    ENDPOINT_NAMES,
    KEYS_FIX,
    ROLE_NAMES,
    S3Profile,
    _keys_of_environment,
    keys_of_profile,
    ways_in,
)
from colabkit.io.places.s3_refusals import explained

_LISTING_SECONDS = 300.0
_SIGNED_SECONDS = 3600.0
T = TypeVar("T")
_forked = False  # after obstore was loaded: its threads stay with the parent, and what needs them would wait for ever
_PAST = {"list": "listed", "read": "read", "write": "written", "delete": "changed"}
Kind = Literal["keys", "nobody", "role"]


def _note_fork() -> None:
    global _forked
    _forked = _forked or "obstore" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def need_threads(what: str, address: str) -> None:
    """Raise StateError in a process that was forked after obstore was loaded: its threads stayed with the parent."""
    if _forked:
        raise StateError(f"S3 cannot be {what} in a forked process", where=address,
                         fix='do it before the fork, or start processes by multiprocessing.get_context("spawn")')


class S3Store(BucketStore):
    """A bucket or a prefix in it. Endpoint and keys come from the environment, keys from ~/.aws/credentials too; the bucket
    tells its region. Without keys it is read as a public one, then as the role of the machine.

    Raises: UsageError when it does not exist or may not be read; Unreachable.
    """

    def __init__(self, bucket: str, prefix: str = ""):
        importlib.import_module("obstore")  # when it is missing, that is told before anything is asked
        super().__init__("s3", bucket, prefix)
        self.endpoint = next((os.environ[name].rstrip("/") for name in ENDPOINT_NAMES if os.environ.get(name)), "")
        if not re.match(r"https?://[^/]|$", self.endpoint):
            raise UsageError("The S3 endpoint is no web address", got=self.endpoint, expected="https://HOST or http://HOST:PORT",
                             fix="correct AWS_ENDPOINT_URL, or unset it for Amazon's own S3")
        self._host_is_bucket = os.environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() in ("true", "1")
        self.region = self._find_region()
        self._reads_as: Literal["keys", "nobody", "role"] = "keys"
        self._objects = PerProcess(self._open)
        self._find_access()

    def list(self) -> list[StoredObject]:
        """Return the objects below the prefix, sorted by name; their version is the ETag."""
        return self._listed(self._ask(lambda: [o for page in self._pages() for o in page], _LISTING_SECONDS))

    def link(self, name: str) -> Link:
        key, version = self.key_of(name), self._versions.get(name)

        def make() -> tuple[str, dict[str, str]]:
            if self._reads_as == "nobody":
                return f"{self._root(f'https://s3.{self.region}.amazonaws.com')}/{quote(key)}", {}
            return self._sign(key), {}
        return Link(make, refresh=lambda refused: self._objects.drop(), lifetime_seconds=0.8 * _SIGNED_SECONDS,
                    etag=f'"{version}"' if version else None,
                    fix_refused=f"give keys that have s3:GetObject here, and AWS_SESSION_TOKEN if they are temporary: {KEYS_FIX}")

    def _sign(self, key: str) -> str:
        import obstore

        if self._reads_as == "role" or any(map(os.environ.get, ROLE_NAMES)):  # whose keys are fetched
            need_threads("read with the credentials of a role", self.address)
        try:
            return obstore.sign(self._objects.get(), "GET", key, timedelta(seconds=_SIGNED_SECONDS))
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:  # of a role's credentials, which are fetched
            raise ConnectionError(errno.ECONNABORTED, f"no signature: {type(error).__name__}") from None
        except TypeError:  # what obstore says of names such as a//b
            raise unusable_name(key, self.address) from None

    def _find_region(self) -> str:
        """Ask the bucket where it lies, which it tells to anybody. Raises: UsageError when there is none."""
        url = self._root("https://s3.amazonaws.com")
        status, headers, _ = self._opening.ask("HEAD", url, {}, f"{self.address} at {url}")
        if status == 404:
            raise self.missing()
        told = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return (told if self.endpoint else "") or headers.get("x-amz-bucket-region") or told or "us-east-1"

    def _root(self, own: str) -> str:
        """Return the bucket's web address; `own` is Amazon's, for when no endpoint is set."""
        if self.endpoint and self._host_is_bucket:
            return self.endpoint
        return f"{self.endpoint or own}/{self.bucket}"

    def _find_access(self) -> None:
        """Find out as whom the bucket can be listed. Raises: UsageError."""
        refusal = None
        for self._reads_as in ways_in():
            self._objects.drop()
            try:
                self._ask(lambda: next(iter(self._pages()), None), OPENING_SECONDS)
                return
            except UsageError as error:
                refusal = refusal or error
        raise refusal

    def _open(self) -> Any:
        from obstore.store import S3Store as ObjectStore

        config = {"region": self.region, **(keys_of_profile() if self._reads_as == "keys" else {})}
        if self.endpoint:
            config["endpoint"] = self.endpoint
        if self._reads_as == "nobody":
            config["skip_signature"] = True
        options: dict[str, Any] = {"allow_http": self.endpoint.startswith("http:"), "timeout": timedelta(seconds=30),
                                   "connect_timeout": timedelta(seconds=3 if self._reads_as == "role" else 10)}
        if os.path.isfile(bundle := os.environ.get("AWS_CA_BUNDLE", "")):
            options["root_certificate"] = Path(bundle).read_bytes()
        return ObjectStore(self.bucket, config=config, client_options=options,
                           retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=20)})

    def _pages(self) -> Iterator[list[StoredObject]]:
        import obstore

        if pinned_for(self.endpoint):
            yield from self._pages_of_pinned()
            return
        need_threads("listed", self.address)
        for page in obstore.list(self._objects.get(), prefix=self.prefix or None, chunk_size=1000):
            # obstore takes the slash off the empty objects that consoles make for folders.
            yield [StoredObject(meta["path"], meta["size"], (meta["e_tag"] or f"{meta['last_modified']}").strip('"'))
                   for meta in page if meta["size"] or "." in meta["path"].rpartition("/")[2]]

    def _pages_of_pinned(self) -> Iterator[list[StoredObject]]:
        """List where a certificate is pinned: obstore trusts authorities alone."""
        keys = {**_keys_of_environment(), **keys_of_profile()} if self._reads_as == "keys" else {}
        signer = Signer(keys["access_key_id"], keys["secret_access_key"], keys.get("session_token", ""), self.region) \
            if "secret_access_key" in keys else None
        client, after = SignedClient(self._root(""), signer), ""
        while True:
            try:
                page = client.page(self.prefix, after)
            except Fault as fault:
                if fault.kind == "certificate":
                    raise UsageError("The other side shows another certificate than the one that is pinned", where=self.address,
                                     fix=f"ask its owner, then look and pin it again: colabkit trust {self.endpoint}") from None
                raise ConnectionError(f"status code: {fault.status} <Code>{fault.code}</Code> {fault.cause}") from None
            if not page:
                return
            after = page[-1].name
            yield [StoredObject(found.name, found.size, found.version) for found in page]

    def _ask(self, call: Callable[[], T], deadline_seconds: float) -> T:
        """Call obstore, again after faults that pass. Raises: UsageError, DataError, Unreachable."""
        import obstore

        patience = Patience(deadline_seconds)
        while True:
            try:
                return call()
            except (obstore.exceptions.BaseError, OSError, ValueError) as error:
                explained = self._explain(error)
                if explained:
                    raise explained from None  # obstore's message may hold what was signed
                cause = re.sub(r"\?\S*", "", str(error).partition("\n")[0])[-200:]
            patience.wait(cause, self.address)

    def _explain(self, error: Exception) -> ColabkitError | None:
        """Turn an error into what the user can do about it; None when it may pass."""
        import obstore

        text = str(error)
        status, code = re.search(r"status code: (\d{3})", text), re.search(r"<Code>(\w+)</Code>", text)
        status, code = int(status[1]) if status else 0, code[1] if code else ""
        if isinstance(error, obstore.exceptions.InvalidPathError):
            return unusable_name(next(iter(re.findall(r'[Pp]ath "([^"]*)"', text)), ""), self.address)
        if status == 404 or isinstance(error, FileNotFoundError):
            return self.missing()
        if "redirect without LOCATION" in text or status == 301 or code == "AuthorizationHeaderMalformed":
            return UsageError("The bucket lies in another region", got=self.region, where=self.address,
                              fix="set AWS_REGION to the region that the bucket's console page shows")
        if "Missing AccessKeyId" in text or "Missing SecretAccessKey" in text:
            return UsageError("One of the two AWS keys is missing", got=text.partition("\n")[0], where=self.address, fix=KEYS_FIX)
        if "builder error" in text or isinstance(error, ValueError):
            return UsageError("The S3 settings cannot be used", got=type(error).__name__, where=self.endpoint or self.address,
                              fix="check the variables that begin with AWS_, above all AWS_ENDPOINT_URL")
        if status in (400, 401, 403) or (self._reads_as == "role" and "169.254" in text):
            return self._refused(status, code)
        return None

    def _refused(self, status: int, code: str) -> UsageError:
        got = " ".join(filter(None, (f"status {status}", code)))
        if self._reads_as != "keys":
            return UsageError("The bucket is not public, and no credentials were found", got=got, where=self.address,
                              fix=KEYS_FIX)
        if code == "RequestTimeTooSkewed":
            return UsageError("The clock of this machine is wrong", got=got, where=self.address, fix="set the clock")
        if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
            return UsageError("The keys are not accepted", got=got, where=self.address,
                              fix=f"{KEYS_FIX}, and AWS_SESSION_TOKEN if they are temporary")
        return UsageError("The keys give no right to list this bucket", got=got, where=self.address,
                          fix="allow s3:ListBucket and s3:GetObject for them, or use other keys")


class S3Objects(BucketObjects):
    """Objects below a prefix of a bucket; safe for many threads, not for a process forked after obstore was loaded.

    Where nothing identifies us the bucket is tried as a public one, then as the role of the machine. Errors say which right is
    missing. Raises: UsageError, DataError, Unreachable, Taken; StateError in a forked process.
    """

    def __init__(self, profile: S3Profile, prefix: str = "", *, address: str = ""):
        super().__init__(profile.bucket, prefix, address or "s3://" + joined(profile.bucket, prefix))
        self.profile = profile
        self._way = _Way(profile, self.address)

    def client(self, doing: str) -> Client:
        """Return the client of this process. Raises: StateError in a forked one."""
        if not self._way.is_pinned:
            need_threads(_PAST[doing], self.address)
        return self._way.clients.get()

    def next_way(self) -> bool:
        """Go on from nobody to the machine's role."""
        return self._way.next_kind()

    def explain(self, fault: Fault, doing: str) -> ColabkitError:
        """Return the error that says what to do about a fault."""
        return explained(fault, doing, self.profile, self.address, self._way.kind)


class _Way:
    """As whom the bucket is asked, and the client for that; shared by all that look below it."""

    def __init__(self, profile: S3Profile, address: str):
        self.profile, self.address = profile, address
        self.is_pinned = profile.verify and bool(pinned_for(profile.endpoint))
        self._kinds = _kinds(profile)
        self.kind = self._kinds.pop(0)
        if not profile.verify:
            print(f"WARNING: {address} is reached WITHOUT verifying who answers (verify=False): anybody between here and there "
                  "can read and change everything. What makes this needless: "
                  f"colabkit trust {profile.endpoint or 'URL'}", file=sys.stderr, flush=True)
        self.clients = PerProcess(self._open)

    def next_kind(self) -> bool:
        """Go on to the next way in; False when there is none."""
        if not self._kinds:
            return False
        self.kind = self._kinds.pop(0)
        self.clients.drop()
        return True

    def _open(self) -> Client:
        region = self.profile.region or self._find_region()
        if self.is_pinned:
            found = self.profile
            signer = Signer(found.access_key, found.secret_key, found.session_token, region) if found.has_keys else None
            return SignedClient(f"{found.endpoint}/{found.bucket}" if found.path_style else found.endpoint, signer)
        try:
            return ObstoreClient(_maker(self.profile, self.kind, region))
        except Exception as error:  # obstore's own kinds: the settings cannot be used
            if type(error).__module__.partition(".")[0] not in ("obstore", "builtins") or isinstance(error, ImportError):
                raise
            raise UsageError("The S3 settings cannot be used", got=type(error).__name__,
                             where=self.profile.endpoint or self.address,
                             fix="check the endpoint, the region and the certificates") from None

    def _find_region(self) -> str:
        """Ask Amazon where the bucket lies, which it tells to anybody; with an endpoint there is mostly one region."""
        if self.profile.endpoint:
            return "us-east-1"
        url = f"https://s3.amazonaws.com/{self.profile.bucket}"
        status, headers, _ = RangeClient(deadline_seconds=OPENING_SECONDS).ask("HEAD", url, {}, f"{self.address} at {url}")
        if status == 404:
            raise UsageError("There is no such bucket", got=self.profile.bucket, where=self.address,
                             fix="check the name; if it is not at Amazon, set AWS_ENDPOINT_URL or S3_ENDPOINT_URL")
        return headers.get("x-amz-bucket-region") or "us-east-1"


def _maker(profile: S3Profile, kind: Kind, region: str) -> Any:
    """Return what opens obstore's clients with the profile's values alone: it would take others from the environment."""
    from obstore.store import S3Store

    config: dict[str, Any] = {"region": region, "disable_bulk_delete": True, "skip_signature": kind == "nobody",
                              "virtual_hosted_style_request": not profile.path_style,
                              # A hash of the payload proves to the server what verified TLS proves already.
                              "unsigned_payload": profile.verify and not profile.is_http}
    if profile.endpoint:
        config |= {"endpoint": profile.endpoint, "aws_endpoint_url_s3": profile.endpoint}
    more: dict[str, Any] = {"credential_provider": _Given(profile)} if kind == "keys" and profile.has_keys else {}
    options: dict[str, Any] = {"allow_http": profile.is_http, "pool_max_idle_per_host": "256",
                               "connect_timeout": timedelta(seconds=3 if kind == "role" else 10)}
    if not profile.verify:
        options["allow_invalid_certificates"] = True
    elif profile.ca_bundle:
        options["root_certificate"] = Path(profile.ca_bundle).read_bytes()

    def make(seconds: float, retries: int, **extra: Any) -> Any:
        return S3Store(profile.bucket, config=config, client_options={**options, "timeout": timedelta(seconds=seconds), **extra},
                       retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=60)}, **more)
    return make


class _Given:
    """Hands obstore the profile's keys, so that none of the environment get between them."""

    def __init__(self, profile: S3Profile):
        self._profile = profile

    def __call__(self) -> dict[str, Any]:
        found = self._profile
        return {"access_key_id": found.access_key, "secret_access_key": found.secret_key, "token": found.session_token or None,
                "expires_at": None}


def _kinds(profile: S3Profile) -> list[Kind]:
    def yes(name: str) -> bool:
        return os.environ.get(name, "").lower() in ("true", "1")
    if not profile.without_keys():
        return ["keys"]
    return ["nobody", "role"] if not (yes("AWS_SKIP_SIGNATURE") or yes("AWS_EC2_METADATA_DISABLED")) else ["nobody"]
