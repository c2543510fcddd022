"""A bucket of S3, or of what speaks like it: listed by obstore, read through signed links by the same client as all else."""

from __future__ import annotations

import configparser
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

from colabkit.core.errors import ColabkitError, DataError, StateError, UsageError
from colabkit.io.stores.buckets import OPENING_SECONDS, BucketStore
from colabkit.io.stores.client import Fault
from colabkit.io.stores.links import Link
from colabkit.io.stores.patience import Patience
from colabkit.io.stores.per_process import PerProcess
from colabkit.io.stores.signed_client import SignedClient
from colabkit.io.stores.signing import Signer
from colabkit.io.stores.store import StoredObject
from colabkit.io.trust import pinned_for

_LISTING_SECONDS = 300.0
_SIGNED_SECONDS = 3600.0
ENDPOINT_NAMES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "S3_ENDPOINT_URL")
ROLE_NAMES = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_WEB_IDENTITY_TOKEN_FILE")
KEYS_FIX = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (in Colab: keep them under Secrets, the key on the left)"

T = TypeVar("T")

_forked = False  # after obstore was loaded: its threads stay with the parent, and what needs them would wait for ever


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


def ways_in() -> list[Literal["keys", "nobody", "role"]]:
    """Return as whom a bucket may be tried, one after the other, by what the environment and ~/.aws say."""
    anonymous = os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("true", "1")
    if not anonymous and (os.environ.get("AWS_ACCESS_KEY_ID") or any(map(os.environ.get, ROLE_NAMES)) or keys_of_profile()):
        return ["keys"]
    asks_machine = not anonymous and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() not in ("true", "1")
    return ["nobody", "role"] if asks_machine else ["nobody"]


def _keys_of_environment() -> dict[str, str]:
    names = ("access_key_id", "secret_access_key", "session_token")
    return {name: value for name in names if (value := os.environ.get(f"AWS_{name.upper()}"))}


def keys_of_profile() -> dict[str, str]:
    """Return the keys of S3_ACCESS_KEY and S3_SECRET_KEY, or else those that `aws configure` wrote, unless the environment has
    Amazon's own variables. Raises: UsageError.
    """
    if os.environ.get("AWS_ACCESS_KEY_ID") or any(map(os.environ.get, ROLE_NAMES)):
        return {}
    if os.environ.get("S3_ACCESS_KEY") and os.environ.get("S3_SECRET_KEY"):
        return {"access_key_id": os.environ["S3_ACCESS_KEY"], "secret_access_key": os.environ["S3_SECRET_KEY"]}
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    profile = os.environ.get("AWS_PROFILE") or "default"
    found = configparser.ConfigParser(interpolation=None)
    try:
        found.read(path, encoding="utf-8")
        keys = dict(found[profile]) if profile in found else {}
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        raise UsageError("Cannot read the AWS credentials file", got=type(error).__name__, where=path,
                         fix="write it again with `aws configure`") from None
    if os.environ.get("AWS_PROFILE") and "aws_access_key_id" not in keys:
        raise UsageError("The AWS profile has no keys of its own", got=profile, where=path,
                         fix=f'eval "$(aws configure export-credentials --profile {profile} --format env)"')
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return {name.removeprefix("aws_"): keys[name] for name in names if name in keys}


def unusable_name(name: str, address: str) -> DataError:
    """Return the error for a name that clients of S3 cannot ask for."""
    return DataError("An object has a name that cannot be used", got=name, where=address,
                     expected='names without empty parts, "." and ".." between the slashes',
                     fix="rename it, or give an address below which there is none")
