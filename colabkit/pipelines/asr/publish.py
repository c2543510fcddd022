"""Push a model's folder to the Hugging Face Hub: one commit of what changed, nothing that is there already."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from colabkit.core.errors import ColabkitError, StateError, UsageError
from colabkit.core.files import TEMPORARY_PREFIX
from colabkit.io.stores.patience import Patience, Unreachable, ordered_wait_seconds
from colabkit.pipelines.asr.card import CardFacts, write_card

__all__ = ["CardFacts", "Pushed", "push", "write_card"]

_ENDPOINT = "https://huggingface.co"
_NAME = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]{0,95}")
_LOG_IN = "set HF_TOKEN or run `hf auth login` (in Colab: add HF_TOKEN under Secrets, the key on the left)"
_LEFT_OUT = ("*.tmp", "*.lock", "checkpoint-*/*", "checkpoints/*")
_DEADLINE_SECONDS = 300.0  # without progress

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where a model is now; `num_files` were sent, none where the Hub held the same files already."""

    repo: str
    url: str
    revision: str
    num_files: int
    num_bytes: int
    private: bool


def push(folder: Path, repo: str, *, private: bool = True, token: str | None = None, endpoint: str | None = None,
         message: str = "Upload model", left_out: Sequence[str] = _LEFT_OUT, say: Callable[[str], None] = print,
         deadline_seconds: float = _DEADLINE_SECONDS) -> Pushed:
    """Make the repository where there is none, and commit the files of `folder` that it does not hold yet.

    A repository that is there keeps its visibility, and files that are not in `folder`. Raises: UsageError for a name, a token
    or a right that is missing; StateError for an empty folder; Unreachable.
    """
    return _Push(Path(folder), repo, token, endpoint, deadline_seconds).run(private, message, left_out, say)


class _Push:
    """One push: the same questions are asked again after faults that pass, since each finds what was done before."""

    def __init__(self, folder: Path, repo: str, token: str | None, endpoint: str | None, deadline_seconds: float):
        import huggingface_hub
        if not _NAME.fullmatch(repo) or "--" in repo or ".." in repo:
            raise UsageError("This is no name of a model on the Hub", got=repo, expected="ORG/NAME", where="publish.repo",
                             fix="write your account's name, a slash, and a name of letters, digits, dots and dashes")
        self.folder, self.repo, self.deadline_seconds = folder, repo, deadline_seconds
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/")
        self.page = f"{self.endpoint}/{repo}"
        self._token = token or huggingface_hub.get_token()
        if not self._token:
            raise UsageError("Cannot push without a token", where=self.page, expected="a token that may write",
                             fix=f"make one of the kind write at {self.endpoint}/settings/tokens, then {_LOG_IN}")
        self.api = huggingface_hub.HfApi(endpoint=self.endpoint, token=self._token)

    def run(self, private: bool, message: str, left_out: Sequence[str], say: Callable[[str], None]) -> Pushed:
        local = self._local(left_out)
        info = self._ask(lambda: self._make(private))
        if bool(info.private) != private:
            say(f"  {self.page} was there and stays {'private' if info.private else 'public'}")
        changed = self._changed(local, info.sha)
        if not changed:
            say(f"  nothing to push: {self.page} holds the same {len(local)} files")
            return Pushed(self.repo, self.page, info.sha, 0, 0, bool(info.private))
        revision = self._ask(lambda: self._commit(local, message, say))
        num_bytes = sum((self.folder / name).stat().st_size for name in changed)
        say(f"  pushed {len(changed)} of {len(local)} files to {self.page}")
        return Pushed(self.repo, self.page, revision, len(changed), num_bytes, bool(info.private))

    def _make(self, private: bool) -> Any:
        """Return what the Hub says of the repository, which is made where there is none."""
        from huggingface_hub import errors
        try:
            return self.api.model_info(self.repo)
        except errors.RepositoryNotFoundError:  # or it is private and somebody else's: then it cannot be made either
            self.api.create_repo(self.repo, private=private, exist_ok=True)
            return self.api.model_info(self.repo)

    def _local(self, left_out: Sequence[str]) -> list[str]:
        """Return the names of the files to push."""
        names = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())
        names = [name for name in names if not any(part.startswith((".", TEMPORARY_PREFIX)) for part in name.split("/"))
                 and not any(fnmatch(name, pattern) for pattern in left_out)]
        if not names:
            raise StateError("There is no model to push", where=self.folder, expected="the files of a trained model",
                             fix="train first: the step before makes them")
        return names

    def _changed(self, names: list[str], revision: str) -> list[str]:
        """Return the files that the Hub does not hold with the same content."""
        tree = self._ask(lambda: list(self.api.list_repo_tree(self.repo, recursive=True, revision=revision)))
        there = {entry.path: entry for entry in tree if getattr(entry, "blob_id", None)}
        return [name for name in names if not _is_same(self.folder / name, there.get(name))]

    def _commit(self, names: list[str], message: str, say: Callable[[str], None]) -> str:
        """Commit what is still missing, on top of what was looked at, and return the commit that holds everything."""
        from huggingface_hub import CommitOperationAdd
        sha = self.api.model_info(self.repo).sha
        changed = self._changed(names, sha)  # of a commit whose answer was lost, all is there
        if not changed:
            return sha
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=os.fspath(self.folder / name)) for name in changed]
        return self.api.create_commit(self.repo, operations, commit_message=message, parent_commit=sha).oid

    def _ask(self, call: Callable[[], T]) -> T:
        """Call the Hub's API, again after faults that pass. Raises: UsageError with what mends it; Unreachable."""
        from huggingface_hub import errors
        patience = Patience(self.deadline_seconds)
        while True:
            try:
                return call()
            except errors.OfflineModeIsEnabled as error:
                raise UsageError("The Hub may not be asked: offline mode is on", got=self.repo,
                                 fix="unset HF_HUB_OFFLINE; the model stays in the run's folder until then") from error
            except (errors.HTTPError, OSError, RuntimeError) as error:
                cause = error
                if isinstance(error, RuntimeError) and not isinstance(error, errors.HTTPError):
                    if not isinstance(error.__cause__, (errors.HTTPError, OSError)):
                        raise  # the client wraps what happens to an upload
                    cause = error.__cause__
                self._wait(cause, patience)

    def _wait(self, error: Exception, patience: Patience) -> None:
        if isinstance(error, FileNotFoundError):
            raise StateError("A file of the model vanished while it was pushed", got=error.filename, where=self.folder,
                             fix="do the step that made it again") from error
        response = getattr(error, "response", None)
        status = response.status_code if response is not None else 0
        if 400 <= status < 500 and status not in (408, 412, 429):  # 412: somebody else has committed since
            raise self._explain(status, response) from error
        cause = f"status {status}" if status else type(error).__name__
        try:
            patience.wait(cause, f"{self.repo} at {self.endpoint.rpartition('@')[2]}",
                          ordered_wait_seconds(response.headers) if status else None)
        except Unreachable as unreachable:
            fix = ("the Hub lets this account push no more for a while: wait, then run the same command again"
                   if status == 429 else
                   "check the network and https://status.huggingface.co, then run the same command again")
            raise Unreachable("Cannot push to the Hub", got=unreachable.got, expected="an answer", where=self.page,
                              fix=f"{fix}; what was uploaded is not sent twice") from error

    def _explain(self, status: int, response: Any) -> ColabkitError:
        """Turn a refusal into what the user can do about it."""
        if status == 401:
            return UsageError("The Hub does not accept the token", got="status 401", where=self.endpoint,
                              fix=f"make a new one of the kind write at {self.endpoint}/settings/tokens, then {_LOG_IN}")
        if status in (403, 404):
            who = self._name()
            namespace, name = self.repo.split("/")
            ours = who == namespace
            mend = (f"the token of {who} may only read: make one of the kind write at {self.endpoint}/settings/tokens"
                    if ours else f"choose a name of your own: publish.repo={who or 'YOUR_ACCOUNT'}/{name}")
            return UsageError("This token may not write there", got=self.repo, where=self.page, fix=mend,
                              expected="a repository of the token's account or of an organisation it may write to")
        if status == 402 or status == 413:
            return UsageError("The Hub takes no more", got=f"status {status}", where=self.page,
                              fix=f"see {self.endpoint}/settings/billing: private storage is limited; "
                                  "or set publish.private=false")
        told = response.headers.get("X-Error-Message", "")[:200]
        return UsageError("The Hub refuses the push", got=f"status {status}" + (f": {told}" if told else ""), where=self.page,
                          fix=f"open {self.page} in a browser to see why")

    def _name(self) -> str:
        """Return the account's name, "" where it cannot be had."""
        from huggingface_hub import errors
        try:
            return str(self.api.whoami().get("name", ""))
        except (errors.HTTPError, OSError):
            return ""


def _is_same(path: Path, entry: Any) -> bool:
    """Compare a file with what the Hub holds, by the SHA-256 of large files and by git's name of small ones."""
    if entry is None or entry.size != path.stat().st_size:
        return False
    if entry.lfs:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.lfs.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == entry.blob_id
