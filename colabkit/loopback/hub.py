"""A Hugging Face Hub on loopback, for reading and pushing datasets and models.

It knows what huggingface_hub, datasets and transformers ask of it, and nothing else.

As on the real one, large files are answered with a redirect to a signed link on another origin (here the same server
under its other name), which expires and refuses requests that still carry an Authorization header. Small files are
answered with a relative redirect to the cache of resolved files. Anonymous readers see what a gated dataset is, not
what is in it. There are no Xet headers: clients read and write by plain HTTP.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode

from colabkit.loopback.hub_folder import HubFolder
from colabkit.loopback.hub_repos import Commit, HubFile, HubRepo, make_file
from colabkit.loopback.hub_writes import HubWrites, json_answer, refuse
from colabkit.loopback.messages import Answer, Fields, Request, answer_range
from colabkit.loopback.serving import HttpServer

_ID, _REVISION = r"(?P<id>[^/]+?(?:/[^/]+?)?)", r"(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+)"
_VERBS = "revision|tree|paths-info|refs|auth-check|preupload|commit"
_API = re.compile(rf"/api/(?P<kind>datasets|models)/{_ID}(?:/(?P<verb>{_VERBS})(?:/{_REVISION}(?:/(?P<path>.*))?)?)?")
_RESOLVE = re.compile(rf"(?:/(?P<kind>datasets))?/{_ID}/resolve/{_REVISION}/(?P<path>.+)")
_RESOLVED = re.compile(rf"/api/resolve-cache/(?P<kind>datasets|models)/{_ID}/(?P<revision>[0-9a-f]{{40}})/(?P<path>.+)")
_OTHER_NAME = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}


class HubServer(HubWrites, HttpServer):
    """Serve datasets and models; everything may be changed while it runs.

    tokens: accepted, with access to every dataset; tokens_without_access: of people who were not let into gated ones.
    writers: {token: names of the account and organisations it may write to}, the account first.
    link_seconds: how long a signed link works. page_entries: the most entries a page of a tree holds.
    folder: where repositories and what was uploaded outlive the process; without one they live in memory. port: 0 for
    any.
    """

    def __init__(
        self,
        *,
        link_seconds: float = 3600,
        large_bytes: int = 1 << 16,
        page_entries: int = 1000,
        folder: str | os.PathLike | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port=port)
        self.link_seconds, self.large_bytes, self.page_entries = link_seconds, large_bytes, page_entries
        self.tokens: set[str] = set()
        self.tokens_without_access: set[str] = set()
        self.writers: dict[str, tuple[str, ...]] = {}
        self.repos: dict[str, HubRepo] = {}
        self.models: dict[str, HubRepo] = {}
        self._large: dict[str, HubFile] = {}  # by sha256
        self._keeper = HubFolder(Path(folder)) if folder else None
        if self._keeper is not None:
            for repo in self._keeper.read_repos():
                (self.repos if repo.kind == "dataset" else self.models)[repo.id] = repo
            self._large |= self._keeper.read_uploads()
        self._secret, self._adding = secrets.token_bytes(16), threading.Lock()
        self._verbs: dict[tuple[str, str | None], Callable[[Request, HubRepo, Commit, str], Answer]] = {
            ("GET", None): self._info,
            ("GET", "revision"): self._info,
            ("GET", "tree"): self._tree,
            ("POST", "paths-info"): self._paths_info,
            ("GET", "refs"): self._refs,
            ("GET", "auth-check"): self._auth_check,
            ("POST", "preupload"): self._preupload,
            ("POST", "commit"): self._commit,
        }

    def add_dataset(
        self,
        repo_id: str,
        files: Mapping[str, bytes | Path],
        *,
        revision: str = "main",
        private: bool | None = None,
        gated: bool | None = None,
    ) -> str:
        """Make a commit that holds exactly `files` and return its sha; a file given by path is served from its place.

        The sha follows from the files and the commits before it. What is not said about `private` and `gated` stays.
        """
        made = {path: make_file(content, large_bytes=self.large_bytes) for path, content in files.items()}
        with self._adding:
            repo = self.repos.setdefault(repo_id, HubRepo(repo_id))
            repo.private = repo.private if private is None else private
            repo.gated = repo.gated if gated is None else gated
            self._large.update({file.sha256: file for file in made.values() if file.sha256})
            return self._put(repo, made, revision)

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return the variables that lead huggingface_hub and datasets here, or to a proxy before it.

        They are read when these packages are imported.
        """
        return {
            "HF_ENDPOINT": url or self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        }

    def answer(self, request: Request) -> Answer:
        """Route a request."""
        path = request.path
        if path.startswith("/cdn/"):
            return self._linked(request, path.removeprefix("/cdn/"))
        if path.startswith("/uploads/"):
            return self._take_upload(request, path.removeprefix("/uploads/"))
        token = self._token(request)
        if token and token not in self.tokens | self.tokens_without_access | self.writers.keys():
            return refuse(401, "", "Invalid credentials in Authorization header")
        if path == "/api/whoami-v2":
            return self._who_am_i(token)
        if (written := self._answer_write(request, token)) is not None:
            return written
        if match := _RESOLVE.fullmatch(path) or _RESOLVED.fullmatch(path):
            return self._resolve(request, match, token)
        if match := _API.fullmatch(path):
            return self._api(request, match, token)
        return refuse(404, "", "Sorry, we can't find the page you are looking for.")

    def _find(self, match: re.Match, token: str | None, *, content: bool) -> tuple[HubRepo, Commit] | Answer:
        """Return the dataset and commit of an address, or why not; `content` asks for what a gate protects."""
        repo = (self.repos if match["kind"] == "datasets" else self.models).get(match["id"])
        if repo is None or repo.private and token not in self.tokens and not self.may_write(token, repo.id):
            return refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        if content and repo.gated and token not in self.tokens:
            said = (
                "and you are not in the authorized list" if token else "You must have access to it and be authenticated"
            )
            return refuse(403 if token else 401, "GatedRepo", f"Access to {repo.kind} {repo.id} is restricted. {said}.")
        commit = repo.find(unquote(match["revision"] or "main"))
        if commit is None:
            return refuse(404, "RevisionNotFound", f"Invalid rev id: {match['revision'] or 'main'}")
        return repo, commit

    def _api(self, request: Request, match: re.Match, token: str | None) -> Answer:
        verb = self._verbs.get((request.method.replace("HEAD", "GET"), match["verb"]))
        if verb is None:
            return refuse(405, "", f"{request.method} is not offered here")
        found = self._find(match, token, content=match["verb"] in ("tree", "paths-info", "auth-check"))
        if match["verb"] in ("preupload", "commit") and not self.may_write(token, match["id"]):
            return (
                found if isinstance(found, Answer) else refuse(403, "", f"You are not allowed to push to {match['id']}")
            )
        return found if isinstance(found, Answer) else verb(request, *found, unquote(match["path"] or ""))

    def _info(self, request: Request, repo: HubRepo, commit: Commit, path: str) -> Answer:
        return json_answer(repo.info(commit, with_blobs=_is_true(request.query, "blobs")))

    def _refs(self, request: Request, repo: HubRepo, commit: Commit, path: str) -> Answer:
        return json_answer(repo.refs() | ({"pullRequests": []} if _is_true(request.query, "include_prs") else {}))

    def _auth_check(self, request: Request, repo: HubRepo, commit: Commit, path: str) -> Answer:
        return json_answer({})

    def _tree(self, request: Request, repo: HubRepo, commit: Commit, path: str) -> Answer:
        query, path = request.query, path.strip("/")
        if path and path not in commit.folders:
            return refuse(404, "EntryNotFound", "The path does not exist", {"X-Repo-Commit": commit.sha})
        entries = commit.tree(path, recursive=_is_true(query, "recursive"))
        start = int(base64.urlsafe_b64decode(query["cursor"][0])) if "cursor" in query else 0
        stop = start + min(int(query.get("limit", [self.page_entries])[0]), self.page_entries)
        fields = {"X-Repo-Commit": commit.sha}
        if stop < len(entries):
            query["cursor"] = [base64.urlsafe_b64encode(str(stop).encode()).decode()]
            address = f"http://{request.fields['host']}{request.path}?{urlencode(query, doseq=True)}"
            fields["Link"] = f'<{address}>; rel="next"'
        return json_answer([_entry(e, commit, _is_true(query, "expand")) for e in entries[start:stop]], fields)

    def _paths_info(self, request: Request, repo: HubRepo, commit: Commit, path: str) -> Answer:
        if request.fields.get("content-type", "").startswith("application/json"):
            asked = json.loads(request.body)
            paths, expand = asked["paths"], bool(asked.get("expand"))
        else:
            form = parse_qs(request.body.decode())
            paths, expand = form.get("paths", []), _is_true(form, "expand")
        found = [
            commit.files[p].json(p) if p in commit.files else commit.folders.get(p)
            for p in (p.strip("/") for p in paths)
        ]
        return json_answer([_entry(e, commit, expand) for e in found if e])

    def _resolve(self, request: Request, match: re.Match, token: str | None) -> Answer:
        """Answer where a file is to be had."""
        if request.method not in ("GET", "HEAD"):
            return refuse(405, "", f"{request.method} is not offered here")
        found = self._find(match, token, content=True)
        if isinstance(found, Answer):
            return found
        repo, commit = found
        file = commit.files.get(path := unquote(match["path"]))
        fields = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if file is None:
            return refuse(404, "EntryNotFound", "Entry not found", fields)
        if match.re is _RESOLVED and not file.sha256:
            return answer_range(request, file.size, file.take, {**fields, **_describe(file)})
        fields |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": file.etag}
        if file.sha256:
            return _redirect(302, self._link(file, request.fields.get("host", "")), fields)
        query = f"{quote(request.path, safe='')}=&etag={quote(file.etag, safe='')}"
        return _redirect(307, f"/api/resolve-cache/{repo.kind}s/{repo.id}/{commit.sha}/{quote(path)}?{query}", fields)

    def _link(self, file: HubFile, host: str) -> str:
        """Return a signed link on the other origin; a proxy stays in between, as `host` is what the client asked."""
        name, _, port = host.partition(":")
        expires = f"{time.time() + self.link_seconds:.3f}"
        query = urlencode({"expires": expires, "signature": self._sign(file.sha256, expires)})
        return f"http://{_OTHER_NAME.get(name, name)}:{port or self.port}/cdn/{file.sha256}?{query}"

    def _sign(self, sha256: str, expires: str) -> str:
        return hmac.new(self._secret, f"{sha256} {expires}".encode(), hashlib.sha256).hexdigest()

    def _linked(self, request: Request, sha256: str) -> Answer:
        """Answer a signed link."""
        query = {name: values[0] for name, values in request.query.items()}
        file, expires = self._large.get(sha256), query.get("expires", "0")
        if "authorization" in request.fields:
            return _xml(400, "InvalidArgument", "Only one auth mechanism allowed")
        if file is None or not hmac.compare_digest(query.get("signature", ""), self._sign(sha256, expires)):
            return _xml(403, "SignatureDoesNotMatch", "The request signature does not match")
        if float(expires) < time.time():
            return _xml(403, "AccessDenied", "Request has expired")
        if request.method not in ("GET", "HEAD"):
            return _xml(405, "MethodNotAllowed", "This link is for reading")
        return answer_range(request, file.size, file.take, _describe(file))


def _describe(file: HubFile) -> Fields:
    return {"ETag": file.etag, "Content-Type": "application/octet-stream"}


def _is_true(query: Mapping[str, list[str]], name: str) -> bool:
    return query.get(name, ["false"])[0].lower() in ("true", "1", "")


def _entry(entry: dict, commit: Commit, expand: bool) -> dict:
    return entry | {"lastCommit": {"id": commit.sha, "title": "Add files", "date": commit.date}} if expand else entry


def _redirect(status: int, address: str, fields: Fields) -> Answer:
    return Answer(status, {"Content-Type": "text/plain; charset=utf-8", "Location": address, **fields}, b"Redirecting")


def _xml(status: int, code: str, message: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status, {"Content-Type": "application/xml"}, text.encode())
