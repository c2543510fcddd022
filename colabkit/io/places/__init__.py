"""Places: folders, datasets of the Hub, buckets of S3, of Google Cloud Storage and of the Hub, behind one door."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from colabkit.core.errors import UsageError, missing_extra
from colabkit.io.places.addresses import FORMS, HUB_BUCKETS, meant, split_scheme, without_user
from colabkit.io.places.folder import Folder
from colabkit.io.places.pinned import Pinned
from colabkit.io.places.place import Found, Place, StoredObject, Taken
from colabkit.io.places.s3_profile import S3Profile

if TYPE_CHECKING:
    from colabkit.io.places.s3 import S3Bucket

__all__ = ["Folder", "Found", "Pinned", "Place", "S3Profile", "StoredObject", "Taken", "open_place"]


def open_place(address: str | os.PathLike, *, profile: S3Profile | None = None) -> Place:
    """Open what an address names, to list, to read, and all but datasets of the Hub to write: "s3://BUCKET[/PREFIX]",
    "gs://BUCKET[/PREFIX]", "hf://buckets/NAMESPACE/NAME[/PREFIX]", "hub:ORG/NAME[/FOLDER][@REVISION]" or a folder.

    `profile` says how to reach S3; without one it is found (S3Profile.find). Nothing is asked of the network yet, but
    of the Hub which commit a dataset's revision is. Raises: UsageError; StateError when a library is missing;
    Unreachable.
    """
    address = os.fspath(address)
    scheme, rest = split_scheme(address)
    try:
        if scheme == "s3":
            return _open_s3(rest, profile)
        if address.startswith(HUB_BUCKETS):
            return _open_hub_bucket(address, profile)
        if scheme == "gs":
            from colabkit.io.places.gcs import GcsBucket

            bucket, _, prefix = rest.partition("/")
            return GcsBucket(bucket, prefix)
        if scheme == "hub":
            from colabkit.io.places.hub import HubDataset, parse_hub_address

            repo_id, parts, revision = parse_hub_address(address)
            return HubDataset(repo_id, revision=revision, folder="/".join(parts))
    except ModuleNotFoundError as error:
        raise missing_extra(error, "streaming") from error
    if scheme:
        guess = meant(scheme, without_user(rest))
        raise UsageError(
            "Cannot open this kind of address",
            got=without_user(address),
            expected=f"{', '.join(FORMS.values())}, {HUB_BUCKETS}NAMESPACE/NAME or a folder",
            fix=f"did you mean {guess}?" if guess else "copy the data into a folder or bucket first",
        )
    return Folder(address)


def _open_s3(rest: str, profile: S3Profile | None) -> S3Bucket:
    from colabkit.io.places.s3 import S3Bucket

    bucket, _, prefix = rest.partition("/")
    if not bucket and profile is not None:
        bucket = profile.bucket
    found = profile if profile is not None and profile.bucket == bucket else S3Profile.find(bucket, like=profile)
    return S3Bucket(found, prefix)


def _open_hub_bucket(address: str, profile: S3Profile | None) -> S3Bucket:
    """Open a bucket of the Hub through its S3 gateway, which takes path style and one region.

    Source: https://huggingface.co/docs/hub/storage-buckets-s3
    """
    from colabkit.io.places.s3 import S3Bucket

    namespace, _, rest = address.removeprefix(HUB_BUCKETS).partition("/")
    bucket, _, prefix = rest.partition("/")
    if not namespace or not bucket:
        raise UsageError(
            "This is no address of a bucket of the Hub",
            got=without_user(address),
            expected=f"{HUB_BUCKETS}NAMESPACE/NAME or {HUB_BUCKETS}NAMESPACE/NAME/PREFIX",
            fix="copy both names from the bucket's page on huggingface.co",
        )
    gateway = os.environ.get("COLABKIT_HUB_S3", "https://s3.hf.co").rstrip("/")
    found = profile or S3Profile.find(bucket, endpoint=f"{gateway}/{namespace}", region="us-east-1", path_style=True)
    return S3Bucket(found, prefix, address=without_user(address).rstrip("/"))
