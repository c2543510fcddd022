"""A bucket of S3 or of what speaks like it: on obstore, or by our own client where a certificate is pinned."""

from __future__ import annotations

import importlib
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from colabkit.core.errors import ColabkitError, UsageError
from colabkit.io.places.bucket import Bucket
from colabkit.io.places.http.client import Client, Fault
from colabkit.io.places.http.connections import Connections
from colabkit.io.places.http.obstore_client import ObstoreClient
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.http.signed_client import SignedClient
from colabkit.io.places.http.signing import Signer
from colabkit.io.places.http.trust import pinned_for
from colabkit.io.places.s3_profile import S3Profile, says_yes
from colabkit.io.places.s3_refusals import explained

Kind = Literal["keys", "nobody", "role"]


class S3Bucket(Bucket):
    """Objects below a prefix of a bucket, reached as a profile says.

    Where nothing identifies us the bucket is tried as a public one, then as the role of the machine. Errors say which
    right is missing. Raises: UsageError, DataError, Unreachable, Taken; StateError in a forked process.
    """

    scheme = "s3"

    def __init__(self, profile: S3Profile, prefix: str = "", *, address: str = ""):
        importlib.import_module("obstore")  # when it is missing, that is told before anything is asked
        super().__init__(profile.bucket, prefix, address)
        self.profile = profile
        self._way = _Way(profile, self.address)

    def __reduce__(self):
        # Keys that another process finds as well do not travel; it finds out anew in which way they are used.
        found, source = self.profile, self.profile.sources.get("access_key", "given")
        if source != "given" and not source.startswith("secret "):
            found = replace(found, access_key="", secret_key="", session_token="")
        return _reopened, (found, self.prefix, self.address, self.patience_seconds)

    def client(self) -> Client:
        """Return the client of this process. Raises: UsageError for settings that cannot be; Fault."""
        return self._way.clients.get()

    def hearing_client(self, doing: str) -> Client | None:
        """Return our own client, signed with the keys; None where these are a role's, which obstore alone fetches."""
        return self._way.hearing.get()

    def needs_threads(self) -> bool:
        """Tell whether obstore is asked."""
        return not self._way.is_pinned

    def other_way(self, refused: Client, fault: Fault) -> bool:
        """Go on from nobody to the machine's role, or to the region that the refusal names."""
        return self._way.change(refused, fault)

    def explain(self, fault: Fault, doing: str) -> ColabkitError:
        """Return the error that says what to do about a fault."""
        return explained(fault, doing, self.profile, self.address, self._way.kind)


def _reopened(profile: S3Profile, prefix: str, address: str, patience_seconds: float) -> S3Bucket:
    found = S3Bucket(S3Profile.find(profile.bucket, like=profile), prefix, address=address)
    return found.with_patience(patience_seconds)


class _Way:
    """As whom and in which region the bucket is asked, and the clients for that; shared by all that look below it."""

    def __init__(self, profile: S3Profile, address: str):
        self.profile, self.address, self.region = profile, address, profile.region
        self.is_pinned = profile.verify and bool(pinned_for(profile.endpoint))
        self._kinds = _kinds(profile)
        self.kind = self._kinds.pop(0)
        if not profile.verify:
            print(
                f"WARNING: {address} is reached WITHOUT verifying who answers (verify=False): anybody between here and "
                "there can read and change everything. What makes this needless: "
                f"colabkit trust {profile.endpoint or 'URL'}",
                file=sys.stderr,
                flush=True,
            )
        self.clients, self.hearing = PerProcess(self._open), PerProcess(self._open_hearing)
        self._changing = PerProcess(threading.Lock)

    def change(self, refused: Client, fault: Fault) -> bool:
        """Find another way than that of a refused client, unless another thread has; False when there is none."""
        with self._changing.get():
            if refused not in (self.clients.made(), self.hearing.made()):
                return True
            region = fault.region or (self._region_at_amazon() if fault.status == 301 else "")
            if region not in ("", self.region):
                self.region = region
            elif self._kinds:
                self.kind = self._kinds.pop(0)
            else:
                return False
            self.clients.drop()
            self.hearing.drop()
            return True

    def _open(self) -> Client:
        self.region = self.region or self._region_at_amazon()
        if self.is_pinned:
            return self._open_own()
        try:
            return ObstoreClient(_maker(self.profile, self.kind, self.region or "us-east-1"))
        except Exception as error:  # obstore's own kinds: the settings cannot be used
            if type(error).__module__.partition(".")[0] not in ("obstore", "builtins") or isinstance(
                error, ImportError
            ):
                raise
            raise UsageError(
                "The S3 settings cannot be used",
                got=type(error).__name__,
                where=self.profile.endpoint or self.address,
                fix="check the endpoint, the region and the certificates",
            ) from None

    def _open_hearing(self) -> Client | None:
        return self._open_own() if not self.is_pinned and (self.profile.has_keys or self.kind == "nobody") else None

    def _open_own(self) -> SignedClient:
        found, region = self.profile, self.region or "us-east-1"
        root = found.endpoint or f"https://s3.{region}.amazonaws.com"
        signer = Signer(found.access_key, found.secret_key, found.session_token, region) if found.has_keys else None
        return SignedClient(
            f"{root}/{found.bucket}" if found.path_style or not found.endpoint else root,
            signer,
            ca_bundle=found.ca_bundle,
            verify=found.verify,
        )

    def _region_at_amazon(self) -> str:
        """Ask Amazon where the bucket lies, which it tells to anybody; elsewhere there is mostly one region."""
        if self.profile.endpoint:
            return ""
        try:
            fields, _ = Connections().answer("HEAD", f"https://s3.amazonaws.com/{self.profile.bucket}", {})
        except Fault as fault:
            if fault.status == 404:
                raise UsageError(
                    "There is no such bucket",
                    got=self.profile.bucket,
                    where=self.address,
                    fix="check the name; if it is not at Amazon, set AWS_ENDPOINT_URL or S3_ENDPOINT_URL",
                ) from None
            if not 300 <= fault.status < 500:
                raise
            return fault.region
        return fields.get("x-amz-bucket-region", "")


def _maker(profile: S3Profile, kind: Kind, region: str) -> Any:
    """Return what opens obstore's clients with the profile's values only: it would take others from the environment."""
    from obstore.store import S3Store

    config: dict[str, Any] = {
        "region": region,
        "disable_bulk_delete": True,
        "skip_signature": kind == "nobody",
        "virtual_hosted_style_request": not profile.path_style,
        # A hash of the payload proves to the server what verified TLS proves already.
        "unsigned_payload": profile.verify and not profile.is_http,
    }
    if profile.endpoint:
        config |= {"endpoint": profile.endpoint, "aws_endpoint_url_s3": profile.endpoint}
    given = {
        "access_key_id": profile.access_key,
        "secret_access_key": profile.secret_key,
        "token": profile.session_token or None,
        "expires_at": None,
    }
    # Handed over by a function, so that no keys of the environment get between them.
    more: dict[str, Any] = {"credential_provider": lambda: given} if kind == "keys" and profile.has_keys else {}
    options: dict[str, Any] = {
        "allow_http": profile.is_http,
        "pool_max_idle_per_host": "256",
        "connect_timeout": timedelta(seconds=3 if kind == "role" else 10),
    }
    if not profile.verify:
        options["allow_invalid_certificates"] = True
    elif profile.ca_bundle:
        options["root_certificate"] = Path(profile.ca_bundle).read_bytes()

    def make(seconds: float, retries: int = 0, **extra: Any) -> Any:
        return S3Store(
            profile.bucket,
            config=config,
            client_options={**options, "timeout": timedelta(seconds=seconds), **extra},
            retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=60)},
            **more,
        )

    return make


def _kinds(profile: S3Profile) -> list[Kind]:
    if not profile.without_keys():
        return ["keys"]
    asks_machine = not (says_yes("AWS_SKIP_SIGNATURE") or says_yes("AWS_EC2_METADATA_DISABLED"))
    return ["nobody", "role"] if asks_machine else ["nobody"]
