"""The store in which the machines meet, and the Hub, opened; both served by this machine itself for the demo."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colabkit.io.places import Place, S3Profile, open_place
from colabkit.pipelines.dataset.config import LOOPBACK, PublishConfig, StoreConfig

SEGMENTS, CODES, ENCODED = "segments", "codes", "encoded"  # folders of a store
_BUCKET = "voices"
_OWN_STORE = "store"  # a run's folder with the store, where none is named

_served: dict[tuple[str, Path], Any] = {}
_serving = threading.Lock()


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A Hub and what identifies us there; empty: huggingface.co, and the token that is found."""

    endpoint: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"HubPlace({self.endpoint!r})"


def open_store(store: StoreConfig, run_folder: Path) -> Place:
    """Open the store of a run. Raises: UsageError, as open_place."""
    if store.address == LOOPBACK:
        return open_place(f"s3://{_BUCKET}", profile=_loopback_profile(run_folder))
    if not store.address:
        folder = Path(run_folder) / _OWN_STORE
        folder.mkdir(exist_ok=True)
        return open_place(folder)
    if not store.address.startswith("s3://"):
        return open_place(store.address)
    return open_place(store.address, profile=profile_of(store))


def profile_of(store: StoreConfig) -> S3Profile:
    """Return how an S3 store is reached: as set, and for the rest as found. Raises: UsageError."""
    bucket = store.address.removeprefix("s3://").partition("/")[0]
    given: dict[str, Any] = {"endpoint": store.endpoint, "region": store.region, "ca_bundle": store.ca_bundle}
    if store.path_style != "auto":
        given["path_style"] = store.path_style == "yes"
    if not store.verify:
        given["verify"] = False
    return S3Profile.find(bucket, **{name: value for name, value in given.items() if value != ""})


def open_hub(publish: PublishConfig, run_folder: Path) -> HubPlace:
    """Return the Hub to publish at; one on loopback is started where it is not yet."""
    if publish.endpoint != LOOPBACK:
        return HubPlace(publish.endpoint)
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_XET = True  # which the one on loopback does not speak
    server = _served_by("hub", run_folder, _start_hub)
    token = next(iter(server.writers))
    server.writers[token] = ("loopback", publish.repo.partition("/")[0])
    return HubPlace(server.url, token)


def _loopback_profile(run_folder: Path) -> S3Profile:
    server, profile = _served_by("s3", run_folder, _start_s3)
    return replace(profile, endpoint=server.url)


def _served_by(kind: str, run_folder: Path, start: Callable[[Path], Any]) -> Any:
    """Return a server of this process, which ends with it; what it keeps lies in the run's folder."""
    key = kind, Path(os.path.realpath(run_folder))
    with _serving:
        if key not in _served:
            _served[key] = start(key[1] / LOOPBACK)
        return _served[key]


def _start_s3(folder: Path) -> tuple[Any, S3Profile]:
    from colabkit.loopback.certificates import make_certificates
    from colabkit.loopback.s3 import S3Server

    certificates = make_certificates(folder / "certificates")
    access, secret = "loopback", secrets.token_hex(16)
    server = S3Server(folder / "s3", tls=certificates.server_context(), keys={access: secret})
    if _BUCKET not in server.buckets:
        server.make_bucket(_BUCKET)
    server.__enter__()
    return server, S3Profile(
        bucket=_BUCKET,
        endpoint=server.url,
        region="us-east-1",
        access_key=access,
        secret_key=secret,
        ca_bundle=str(certificates.authority),
    )


def _start_hub(folder: Path) -> Any:
    from colabkit.loopback.hub import HubServer

    server = HubServer(folder=folder / "hub")
    server.writers[f"hf_{secrets.token_hex(16)}"] = ("loopback",)
    server.__enter__()
    return server
