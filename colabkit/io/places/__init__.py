"""Places: folders, Hub datasets, buckets of S3 and of Google Cloud Storage, listed, read and written the same way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from colabkit.core.errors import UsageError, missing_extra
from colabkit.io.places.addresses import FORMS, meant, split_scheme, without_user
from colabkit.io.places.folder import FolderObjects, LocalStore
from colabkit.io.places.http.client import StoredObject
from colabkit.io.places.place import Objects, Store, Taken
from colabkit.io.places.s3_profile import S3Profile

if TYPE_CHECKING:
    from colabkit.io.places.s3 import S3Objects

__all__ = ["FolderObjects", "LocalStore", "Objects", "S3Profile", "Store", "StoredObject", "Taken", "open_objects", "open_store"]

_HUB_BUCKETS = "hf://buckets/"


def open_store(address: str | os.PathLike) -> Store:
    """Open "hub:ORG/NAME[/FOLDER][@REVISION]", "s3://BUCKET[/PREFIX]", "gs://BUCKET[/PREFIX]" or a folder.

    Raises: UsageError when it is not there or may not be read; StateError when a library is missing; Unreachable.
    """
    address = os.fspath(address)
    scheme, rest = split_scheme(address)
    try:
        if scheme == "hub":
            from colabkit.io.places.hub import HubStore, parse_hub_address

            repo_id, parts, revision = parse_hub_address(address)
            return HubStore(repo_id, revision=revision, folder="/".join(parts))
        if scheme in ("s3", "gs"):
            from colabkit.io.places.gcs import GcsStore
            from colabkit.io.places.s3 import S3Store

            bucket, _, prefix = rest.partition("/")
            return (S3Store if scheme == "s3" else GcsStore)(bucket, prefix)
    except ModuleNotFoundError as error:
        raise missing_extra(error, "streaming") from error
    if scheme:
        guess = meant(scheme, without_user(rest))
        raise UsageError("Cannot open this kind of address", got=without_user(address),
                         expected=f"{', '.join(FORMS.values())} or a folder",
                         fix=f"did you mean {guess}?" if guess else "copy the data into a folder or bucket first")
    return LocalStore(address)


def open_objects(address: str | os.PathLike, *, profile: S3Profile | None = None) -> Objects:
    """Open "s3://BUCKET[/PREFIX]", "gs://BUCKET[/PREFIX]", "hf://buckets/NAMESPACE/NAME[/PREFIX]" or a folder.

    `profile` says how to reach S3; without one it is found (S3Profile.find). Nothing is asked of the network yet, except the
    region of a bucket at Amazon where none is set. Raises: UsageError, StateError when a library is missing.
    """
    address = os.fspath(address)
    scheme, rest = split_scheme(address)
    try:
        if scheme == "s3":
            return _open_s3(rest, profile)
        if address.startswith(_HUB_BUCKETS):
            return _open_hub_bucket(address, profile)
        if scheme == "gs":
            from colabkit.io.places.gcs import GcsObjects
            bucket, _, prefix = rest.partition("/")
            return GcsObjects(bucket, prefix)
    except ModuleNotFoundError as error:
        raise missing_extra(error, "streaming") from error
    if scheme:
        guess = meant(scheme, without_user(rest))
        raise UsageError("Cannot open this kind of address", got=without_user(address),
                         expected=f"s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, {_HUB_BUCKETS}NAMESPACE/NAME or a folder",
                         fix=f"did you mean {guess}?" if guess and not guess.startswith("hub:") else
                             "give a bucket, or a folder with the data copied into it")
    return FolderObjects(address)


def _open_s3(rest: str, profile: S3Profile | None) -> S3Objects:
    from colabkit.io.places.s3 import S3Objects
    bucket, _, prefix = rest.partition("/")
    if not bucket and profile is not None:
        bucket = profile.bucket
    found = profile if profile is not None and profile.bucket == bucket else S3Profile.find(bucket, like=profile)
    return S3Objects(found, prefix)


def _open_hub_bucket(address: str, profile: S3Profile | None) -> S3Objects:
    """Open a bucket of the Hub through its S3 gateway, which takes path style and one region.

    Source: https://huggingface.co/docs/hub/storage-buckets-s3
    """
    from colabkit.io.places.s3 import S3Objects
    namespace, _, rest = address.removeprefix(_HUB_BUCKETS).partition("/")
    bucket, _, prefix = rest.partition("/")
    if not namespace or not bucket:
        raise UsageError("This is no address of a bucket of the Hub", got=without_user(address),
                         expected=f"{_HUB_BUCKETS}NAMESPACE/NAME or {_HUB_BUCKETS}NAMESPACE/NAME/PREFIX",
                         fix="copy both names from the bucket's page on huggingface.co")
    gateway = os.environ.get("COLABKIT_HUB_S3", "https://s3.hf.co").rstrip("/")
    found = profile or S3Profile.find(bucket, endpoint=f"{gateway}/{namespace}", region="us-east-1", path_style=True)
    return S3Objects(found, prefix, address=without_user(address).rstrip("/"))
