"""A dataset repository on the Hugging Face Hub, pinned to a commit, read by byte ranges; nothing is written to disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from colabkit.core.errors import ColabkitError, UsageError
from colabkit.io.places.http.links import Link
from colabkit.io.places.http.patience import Patience, ordered_wait_seconds
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.http.ranges import Gone, RangeClient
from colabkit.io.places.names import check_range, is_listed, joined
from colabkit.io.places.place import Found, Place, StoredObject

_DEFAULT_ENDPOINT = "https://huggingface.co"
_OPENING_SECONDS = 60.0  # shorter than while reading: somebody waits for the first word
_LISTING_SECONDS = 300.0
_LOG_IN = "set HF_TOKEN or run `hf auth login` (in Colab: add HF_TOKEN under Secrets, the key on the left)"

_MOST_LINKS = 4096  # remembered: each holds the place that a redirect led to

T = TypeVar("T")


def parse_hub_address(address: str) -> tuple[str, list[str], str | None]:
    """Split "hub:ORG/NAME[/PART...][@REVISION]" into (repository, further parts, revision or None).

    "hub:NAME" alone is an old repository without a namespace, such as hub:squad; with further parts the first two are
    always ORG/NAME. The revision follows the last "@" and may hold "/", as refs/convert/parquet does. Raises:
    UsageError.
    """
    body, at, revision = address.removeprefix("hub:").rpartition("@")
    if not at:
        body, revision = revision, ""
    parts = [part for part in body.split("/") if part]
    if not parts or not address.startswith("hub:") or (at and not revision):
        raise UsageError(
            "This is no address of a Hub dataset",
            got=address,
            expected="hub:ORG/NAME or hub:ORG/NAME@REVISION",
            fix="copy the name from the top of the dataset's page, for example hub:openslr/librispeech_asr",
        )
    return "/".join(parts[:2]), parts[2:], revision or None


class HubDataset(Place):
    """A dataset of the Hub, or a folder of it, at the commit `revision` (a branch, tag or commit) names at opening.

    `endpoint` is HF_ENDPOINT unless given, `token` what huggingface_hub finds. It is read and never written; the commit
    in its `address` pins what is read, so that no answer tells a version. A body that breaks off is taken up at its
    last byte. Safe for many threads; each process has connections of its own, after a fork too. Raises: UsageError when
    the dataset or the revision does not exist or wants a token; Unreachable.
    """

    def __init__(
        self,
        repo_id: str,
        revision: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
        folder: str = "",
    ):
        import huggingface_hub

        self.repo_id, self.folder = repo_id, folder.strip("/")
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")
        self._given_token, self._token = token, token or huggingface_hub.get_token()
        self.page = f"{self.endpoint}/datasets/{repo_id}"
        info = self._ask(
            _OPENING_SECONDS,
            revision,
            lambda: self._api().dataset_info(
                repo_id, revision=revision, timeout=_OPENING_SECONDS / 2, expand=["sha", "gated"]
            ),
        )
        self.revision = info.sha
        if info.gated:
            self._ask(_OPENING_SECONDS, revision, lambda: self._api().auth_check(repo_id, repo_type="dataset"))
        self._client = RangeClient()
        self._links = PerProcess(self._make_links)

    @property
    def address(self) -> str:
        """Return where it lies, with the commit."""
        return f"hub:{joined(self.repo_id, self.folder)}@{self.revision}"

    @property
    def counts(self) -> dict[str, int]:
        """What was read in this process: requests, bytes, retries, resumed, throttled."""
        return self._client.counts

    def below(self, prefix: str) -> HubDataset:
        """Return what is below a prefix, at the same commit; it shares the connections."""
        if not prefix.strip("/"):
            return self
        inner = object.__new__(HubDataset)
        inner.__dict__ = {**self.__dict__, "folder": joined(self.folder, prefix)}
        inner._links = PerProcess(inner._make_links)
        return inner

    def must_exist(self) -> None:
        """Do nothing: opening has asked."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the files of the commit, sorted by name; the version of a file is its SHA-256 or its git blob id."""
        prefix = joined("", prefix)

        def fetch() -> list[Any]:
            return list(
                self._api().list_repo_tree(
                    self.repo_id,
                    joined(self.folder, prefix) or None,
                    recursive=True,
                    revision=self.revision,
                    repo_type="dataset",
                )
            )

        skip = len(self.folder) + 1 if self.folder else 0
        # Folders have no blob_id.
        files = [
            (entry.path[skip:], entry)
            for entry in self._ask(_LISTING_SECONDS, self.revision, fetch)
            if getattr(entry, "blob_id", None)
        ]
        return iter(
            sorted((_stored(name, entry) for name, entry in files if is_listed(name, prefix)), key=lambda o: o.name)
        )

    def find(self, name: str) -> StoredObject | None:
        """Return size and version of a file, None when it is not there."""
        path = joined(self.folder, name)
        found = self._ask(
            _LISTING_SECONDS,
            self.revision,
            lambda: self._api().get_paths_info(self.repo_id, [path], revision=self.revision, repo_type="dataset"),
        )
        return next((_stored(name, entry) for entry in found if getattr(entry, "blob_id", None)), None)

    def get_if_there(self, name: str, start: int = 0, stop: int | None = None, *, version: str = "") -> Found | None:
        """Return bytes start..stop, None when it is not there.

        Raises: as RangeClient.read; of a commit there is one version.
        """
        check_range(name, start, stop)
        try:
            return Found(self._client.read(self._links.get()(name), start, stop, f"{name} of {self.address}"), "")
        except Gone:
            return None

    def put(self, name: str, content: bytes | Path, *, only_if_absent: bool = False, only_if_version: str = "") -> str:
        """Refuse. Raises: UsageError."""
        raise self._not_written(name)

    def delete(self, name: str) -> None:
        """Refuse. Raises: UsageError."""
        raise self._not_written(name)

    def close(self) -> None:
        """Close the connections of this process; a later read opens new ones."""
        self._links.drop()
        self._client.close()

    def _not_written(self, name: str) -> UsageError:
        return UsageError(
            "A dataset of the Hub is read here, and not written",
            got=name,
            where=self.address,
            fix="write to a bucket of the Hub (hf://buckets/NAMESPACE/NAME), to s3://, gs:// or a folder; "
            "`colabkit run dataset` publishes what it made as a dataset",
        )

    def _make_links(self) -> Callable[[str], Link]:
        return lru_cache(_MOST_LINKS)(self._link)

    def _link(self, name: str) -> Link:
        path = quote(joined(self.folder, name))
        url = f"{self.endpoint}/datasets/{self.repo_id}/resolve/{self.revision}/{path}"

        def make() -> tuple[str, dict[str, str]]:
            return url, {"Authorization": f"Bearer {self._token}"} if self._token else {}

        return Link(
            make,
            refresh=self._look_for_token,
            fix_refused=f"see at {self.page} whether you have access; to give a new "
            f"token {_LOG_IN}, then run the same command again",
        )

    def _look_for_token(self, refused: Mapping[str, str]) -> None:
        """Take the token of another login, which may have come since, if the refused one is still ours."""
        import huggingface_hub

        if not self._given_token and refused.get("Authorization", "").removeprefix("Bearer ") == (self._token or ""):
            self._token = huggingface_hub.get_token()

    def _api(self) -> Any:
        import huggingface_hub

        return huggingface_hub.HfApi(endpoint=self.endpoint, token=self._token or False)

    def _ask(self, deadline_seconds: float, revision: str | None, call: Callable[[], T]) -> T:
        """Call the Hub's API, again after faults that pass. Raises: UsageError with what mends it; Unreachable."""
        from huggingface_hub import errors

        patience = Patience(deadline_seconds)
        while True:
            ordered_seconds = None
            try:
                return call()
            except errors.HFValidationError as error:
                raise UsageError(
                    "This is no name of a Hub dataset",
                    got=self.repo_id,
                    expected="hub:ORG/NAME",
                    fix="copy the name from the top of the dataset's page",
                ) from error
            except errors.OfflineModeIsEnabled as error:
                raise UsageError(
                    "The Hub may not be asked: offline mode is on",
                    got=self.repo_id,
                    fix="unset HF_HUB_OFFLINE, or read a copy of the data in a folder",
                ) from error
            except (errors.HTTPError, OSError) as error:
                response = getattr(error, "response", None)
                status = response.status_code if response is not None else 0
                if 400 <= status < 500 and status not in (408, 429):
                    raise self._explain(error, status, revision) from error
                cause = f"status {status}" if status else type(error).__name__
                ordered_seconds = ordered_wait_seconds(response.headers) if status else None
            patience.wait(
                cause, f"{self.repo_id} at {urlsplit(self.endpoint).netloc.rpartition('@')[2]}", ordered_seconds
            )

    def _explain(self, error: Exception, status: int, revision: str | None) -> ColabkitError:
        """Turn a refusal into what the user can do about it."""
        from huggingface_hub import errors

        if isinstance(error, errors.GatedRepoError):
            who = " (the one whose token is in use did not)" if self._token else f", then {_LOG_IN}"
            return UsageError(
                "The dataset is open only to accounts that accepted its terms",
                got=self.repo_id,
                where=self.page,
                fix=f"accept the terms at {self.page} with your account{who}",
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return UsageError(
                "The dataset has no such revision",
                got=revision,
                where=self.page,
                fix=f"choose a branch, tag or commit at {self.page}/tree/main, or leave @{revision} out",
            )
        if isinstance(error, errors.DisabledRepoError):
            return UsageError(
                "The Hub has disabled this dataset", got=self.repo_id, where=self.page, fix="use another dataset"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            private = "check that the account of this token may read it" if self._token else _LOG_IN
            return UsageError(
                "There is no such dataset on the Hub, or it is private",
                got=self.repo_id,
                where=self.page,
                fix=f"check the name; if it is private, {private}",
            )
        if isinstance(error, errors.EntryNotFoundError):
            return UsageError(
                "The dataset has no such folder",
                got=self.folder,
                where=f"{self.page}/tree/{self.revision}",
                fix="correct what follows ORG/NAME in the address",
            )
        if status == 401:
            return UsageError(
                "The Hub does not accept the token",
                got="status 401",
                where=self.endpoint,
                fix=f"make a new token at {self.endpoint}/settings/tokens, then {_LOG_IN}",
            )
        return UsageError(
            "The Hub refuses",
            got=f"status {status}",
            where=self.page,
            fix=f"open {self.page} in a browser to see why; to log in {_LOG_IN}",
        )


def _stored(name: str, entry: Any) -> StoredObject:
    return StoredObject(name, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
