"""A repository of the Hugging Face Hub to write to: asked with patience, and refusals turned into what mends them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from colabkit.core.errors import ColabkitError, StateError, Stopped, UsageError
from colabkit.core.teller import Teller
from colabkit.io.places.http.patience import Patience, Unreachable, ordered_wait_seconds

LOG_IN = "set HF_TOKEN or run `hf auth login` (in Colab: add HF_TOKEN under Secrets, the key on the left)"
DEADLINE_SECONDS = 300.0  # without progress
_ENDPOINT = "https://huggingface.co"
_NAME = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]{0,95}")
QUOTA_SECONDS = 4000.0  # the Hub counts commits by the hour: who pushes for hours waits out as much
_PASSING = (408, 409, 412, 429)  # 409 and 412: somebody else commits, or has committed since

T = TypeVar("T")


class HubPush:
    """One repository to push to.

    The same questions are asked again after faults that pass, since each finds what was done.

    setting: the name of the setting that holds ORG/NAME, for errors. quota_seconds: the longest wait that the Hub may
    order past the deadline. Raises: UsageError for a name or a token that is missing.
    """

    def __init__(
        self,
        repo: str,
        kind: Literal["model", "dataset"],
        *,
        token: str | None = None,
        endpoint: str | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        quota_seconds: float = 0.0,
        setting: str = "publish.repo",
        teller: Teller = Teller(),
    ):
        import huggingface_hub

        self.repo, self.kind, self.setting = require_name(repo, kind, setting), kind, setting
        self.deadline_seconds, self.quota_seconds = deadline_seconds, quota_seconds
        self.teller = teller
        self.endpoint, self.page = hub_endpoint(endpoint), hub_page(repo, kind, endpoint)
        self._token = token or huggingface_hub.get_token()
        if not self._token:
            raise UsageError(
                "Cannot push without a token",
                where=self.page,
                expected="a token that may write",
                fix=f"make one of the kind write at {self.endpoint}/settings/tokens, then {LOG_IN}",
            )
        self.api = huggingface_hub.HfApi(endpoint=self.endpoint, token=self._token)

    def make(self, *, private: bool) -> Any:
        """Return what the Hub says of the repository, made where there is none; one that is there stays as it is."""
        info = self.ask(lambda: self._make(private))
        if bool(info.private) != private:
            self.teller.say(f"  {self.page} was there and stays {'private' if info.private else 'public'}")
        return info

    def require_namespace(self) -> None:
        """Raise UsageError when neither the token's account nor one of its organisations is the repository's owner."""
        who = self.ask(self.api.whoami)
        names = {who.get("name"), *(org.get("name") for org in who.get("orgs") or ())}
        if who.get("type") == "user" and self.repo.partition("/")[0] not in names:
            raise self._explain(403, None)

    def info(self) -> Any:
        """Return what the Hub says of the repository, once: call it within `ask`."""
        return self.api.repo_info(self.repo, repo_type=self.kind)

    def tree(self, revision: str, folder: str = "") -> dict[str, Any]:
        """Return the files of a revision by path, {} for a folder that is not there; call it within `ask`."""
        from huggingface_hub import errors

        try:
            entries = list(
                self.api.list_repo_tree(
                    self.repo, folder or None, recursive=True, revision=revision, repo_type=self.kind
                )
            )
        except errors.EntryNotFoundError:
            return {}
        return {entry.path: entry for entry in entries if getattr(entry, "blob_id", None)}  # folders have none

    def commit_lines(self, lines: Sequence[Mapping[str, Any]], message: str, parent: str) -> str:
        """Commit what is in large file storage already, without content, and return the commit; call it within `ask`.

        A line is {"key": "lfsFile", "value": {path, algo, oid, size}}, or another of the Hub's commit format. `parent`
        is the commit that was looked at: one that somebody made since is answered with status 412.
        """
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        head = {"key": "header", "value": {"summary": message, "description": "", "parentCommit": parent}}
        body = "".join(json.dumps(line) + "\n" for line in (head, *lines)).encode()
        fields = {"Content-Type": "application/x-ndjson", **build_hf_headers(token=self._token)}
        answer = get_session().post(
            f"{self.endpoint}/api/{self.kind}s/{self.repo}/commit/main", headers=fields, content=body
        )
        hf_raise_for_status(answer)
        return answer.json()["commitOid"]

    def read(self, path: str, revision: str) -> bytes:
        """Return the content of a small file; call it within `ask`."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(self.repo, path, repo_type=self.kind, revision=revision, endpoint=self.endpoint)
        answer = get_session().get(url, headers=build_hf_headers(token=self._token), follow_redirects=True)
        hf_raise_for_status(answer)
        return answer.content

    def ask(
        self,
        call: Callable[[], T],
        *,
        refused: Callable[[int, str], BaseException | None] = lambda status, told: None,
        more_seconds: float = 0.0,
    ) -> T:
        """Call the Hub's API, again after faults that pass; `refused` may make a status and what is told its own error.

        `more_seconds` is how long a call may take by itself: the deadline begins behind it. Raises: UsageError with
        what mends it; Unreachable; Stopped.
        """
        from huggingface_hub import errors

        patience = Patience(self.deadline_seconds + more_seconds)
        while True:
            try:
                return call()
            except errors.OfflineModeIsEnabled as error:
                raise UsageError(
                    "The Hub may not be asked: offline mode is on",
                    got=self.repo,
                    fix=f"unset HF_HUB_OFFLINE; the {self.kind} stays where it is until then",
                ) from error
            except (errors.HTTPError, OSError, RuntimeError) as error:
                cause = error
                if isinstance(error, RuntimeError) and not isinstance(error, errors.HTTPError):
                    if not isinstance(error.__cause__, (errors.HTTPError, OSError)):
                        raise  # the client wraps what happens to an upload
                    cause = error.__cause__
                self._wait(cause, patience, refused)

    def _make(self, private: bool) -> Any:
        from huggingface_hub import errors

        try:
            return self.info()
        except errors.RepositoryNotFoundError:  # or it is private and somebody else's: then it cannot be made either
            try:
                self.api.create_repo(self.repo, repo_type=self.kind, private=private)
            except errors.HfHubHTTPError as error:
                if error.response.status_code != 409:  # somebody else made it meanwhile, or our first try did
                    raise
            return self.info()

    def _wait(self, error: Exception, patience: Patience, refused: Callable[[int, str], BaseException | None]) -> None:
        """Wait until a question may be asked again, or raise why that has no sense."""
        if isinstance(error, FileNotFoundError):
            raise StateError(
                f"A file of the {self.kind} vanished while it was pushed",
                got=error.filename,
                fix="do the step that made it again",
            ) from error
        response = getattr(error, "response", None)
        status = response.status_code if response is not None else 0
        if 400 <= status < 500 and status not in _PASSING:
            raise refused(status, _told(response)) or self._explain(status, response) from error
        ordered = ordered_wait_seconds(response.headers) if status else None
        if status == 429 and ordered is not None and self.deadline_seconds < ordered <= self.quota_seconds:
            self._sit_out(ordered)
            return
        cause = f"status {status}" if status else type(error).__name__
        try:
            patience.wait(cause, f"{self.repo} at {self.endpoint.rpartition('@')[2]}", ordered)
        except Unreachable as unreachable:
            fix = (
                "the Hub lets this account push no more for a while: wait, then run the same command again"
                if status == 429
                else "check the network and https://status.huggingface.co, then run the same command again"
            )
            raise Unreachable(
                "Cannot push to the Hub",
                got=unreachable.got,
                expected="an answer",
                where=self.page,
                fix=f"{fix}; what was uploaded is not sent twice",
            ) from error

    def _sit_out(self, seconds: float) -> None:
        """Sleep as long as the Hub orders. Raises: Stopped."""
        self.teller.say(f"  the Hub lets this account push no more for {seconds / 60:.0f} minutes: waiting")
        until = time.monotonic() + seconds + 1.0
        while (left := until - time.monotonic()) > 0:
            if self.teller.stop_requested:
                raise Stopped(
                    "Stopped while waiting for the Hub's quota",
                    where=self.page,
                    fix="run the same command again later: what was uploaded is not sent twice",
                )
            time.sleep(min(left, 1.0))

    def _explain(self, status: int, response: Any) -> ColabkitError:
        """Turn a refusal into what the user can do about it."""
        if status == 401:
            return UsageError(
                "The Hub does not accept the token",
                got="status 401",
                where=self.endpoint,
                fix=f"make a new one of the kind write at {self.endpoint}/settings/tokens, then {LOG_IN}",
            )
        if status in (403, 404):
            who = self._name()
            namespace, name = self.repo.split("/")
            ours = who == namespace
            mend = (
                f"the token of {who} may only read: make one of the kind write at {self.endpoint}/settings/tokens"
                if ours
                else f"choose a name of your own: {self.setting}={who or 'YOUR_ACCOUNT'}/{name}"
            )
            return UsageError(
                "This token may not write there",
                got=self.repo,
                where=self.page,
                fix=mend,
                expected="a repository of the token's account or of an organisation it may write to",
            )
        if status in (402, 413):
            return UsageError(
                "The Hub takes no more",
                got=f"status {status}",
                where=self.page,
                fix=f"see {self.endpoint}/settings/billing: private storage is limited; or set publish.private=false",
            )
        told = _told(response)
        return UsageError(
            f"The Hub refuses the {self.kind}",
            got=f"status {status}" + (f": {told}" if told else ""),
            where=self.page,
            fix=f"open {self.page} in a browser to see why",
        )

    def _name(self) -> str:
        """Return the account's name, "" where it cannot be had."""
        from huggingface_hub import errors

        try:
            return str(self.api.whoami().get("name", ""))
        except (errors.HTTPError, OSError):
            return ""


@contextmanager
def without_upload_bars() -> Iterator[None]:
    """Keep huggingface_hub from showing a bar for each file, where somebody else shows how far all of them are."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def require_name(repo: str, kind: str, setting: str = "publish.repo") -> str:
    """Return the name of a repository. Raises: UsageError where the Hub would take it for none."""
    if not _NAME.fullmatch(repo) or "--" in repo or ".." in repo:
        raise UsageError(
            f"This is no name of a {kind} on the Hub",
            got=repo,
            expected="ORG/NAME",
            where=setting,
            fix="write your account's name, a slash, and a name of letters, digits, dots and dashes",
        )
    return repo


def hub_endpoint(endpoint: str | None = None) -> str:
    """Return the address of the Hub: the one given, HF_ENDPOINT, or the public one."""
    return (endpoint or os.environ.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/")


def hub_page(repo: str, kind: str, endpoint: str | None = None) -> str:
    """Return the address of a repository's page."""
    return f"{hub_endpoint(endpoint)}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def _told(response: Any) -> str:
    return response.headers.get("X-Error-Message", "")[:200]
