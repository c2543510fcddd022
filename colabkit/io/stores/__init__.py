"""Where data lies: a folder, a Hub dataset, an S3 or GCS bucket, all listed and read the same way."""

from __future__ import annotations

import os

from colabkit.core.errors import UsageError, missing_extra
from colabkit.io.stores.addresses import FORMS, meant, split_scheme, without_user
from colabkit.io.stores.folders import LocalStore
from colabkit.io.stores.store import Store, StoredObject

__all__ = ["LocalStore", "Store", "StoredObject", "open_store"]


def open_store(address: str | os.PathLike) -> Store:
    """Open "hub:ORG/NAME[/FOLDER][@REVISION]", "s3://BUCKET[/PREFIX]", "gs://BUCKET[/PREFIX]" or a folder.

    Raises: UsageError when it is not there or may not be read; StateError when a library is missing; Unreachable.
    """
    address = os.fspath(address)
    scheme, rest = split_scheme(address)
    try:
        if scheme == "hub":
            from colabkit.io.stores.hub import HubStore, parse_hub_address

            repo_id, parts, revision = parse_hub_address(address)
            return HubStore(repo_id, revision=revision, folder="/".join(parts))
        if scheme in ("s3", "gs"):
            from colabkit.io.stores.gcs import GcsStore
            from colabkit.io.stores.s3 import S3Store

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
