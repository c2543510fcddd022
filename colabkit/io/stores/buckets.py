"""What buckets of S3 and of Google Cloud Storage have in common: prefixes, listings, versions."""

from __future__ import annotations

import re

from colabkit.core.errors import UsageError
from colabkit.io.stores.ranges import RangeClient
from colabkit.io.stores.remote import RemoteStore
from colabkit.io.stores.store import StoredObject, is_hidden

OPENING_SECONDS = 60.0  # shorter than while reading: somebody waits for the first word


class BucketStore(RemoteStore):
    """What both kinds of bucket have in common: a prefix, and the versions that were listed."""

    def __init__(self, scheme: str, bucket: str, prefix: str):
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
            raise UsageError("This is no name of a bucket", got=bucket, expected=f"{scheme}://BUCKET/PREFIX, in small letters",
                             fix="copy the bucket's name from its console page")
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self._versions: dict[str, str] = {}
        super().__init__(f"{scheme}://" + "/".join(filter(None, (bucket, self.prefix))))
        self._opening = RangeClient(deadline_seconds=OPENING_SECONDS)

    def key_of(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _listed(self, found: list[StoredObject]) -> list[StoredObject]:
        """Take the prefix off, leave out hidden ones and folder markers, and keep the versions, so that changes are seen."""
        skip = len(self.prefix) + 1 if self.prefix else 0
        kept = sorted((StoredObject(o.name[skip:], o.size, o.version) for o in found
                       if not o.name.endswith("/") and not is_hidden(o.name[skip:])), key=lambda o: o.name)
        self._versions = {o.name: o.version for o in kept}
        self._links.drop()
        return kept

    def missing(self) -> UsageError:
        return UsageError("There is no such bucket", got=self.bucket, where=self.address,
                          fix="check the name, and the endpoint if it is not the provider's own")
