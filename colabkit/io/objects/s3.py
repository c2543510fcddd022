"""Objects of a bucket of S3 or of what speaks like it: on obstore, or by our own client where a certificate is pinned."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from colabkit.core.errors import ColabkitError, UsageError
from colabkit.io.objects.bucket import BucketObjects
from colabkit.io.objects.names import joined
from colabkit.io.objects.obstore_client import ObstoreClient
from colabkit.io.objects.profile import S3Profile
from colabkit.io.objects.refusals import explained
from colabkit.io.stores.buckets import OPENING_SECONDS
from colabkit.io.stores.client import Client, Fault
from colabkit.io.stores.per_process import PerProcess
from colabkit.io.stores.ranges import RangeClient
from colabkit.io.stores.s3 import need_threads
from colabkit.io.stores.signed_client import SignedClient
from colabkit.io.stores.signing import Signer
from colabkit.io.trust import pinned_for

_PAST = {"list": "listed", "read": "read", "write": "written", "delete": "changed"}
Kind = Literal["keys", "nobody", "role"]


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
