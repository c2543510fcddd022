"""Writes to a Hub: repositories are made, files announced, large ones uploaded, and commits put them in place.

The commit is NDJSON: a header, then files with their content in base64, or the SHA-256 of what lies in large file
storage.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from typing import Any

from colabkit.loopback.hub_folder import HubFolder
from colabkit.loopback.hub_repos import Commit, HubFile, HubRepo, make_file
from colabkit.loopback.messages import Answer, Fields, Request

_LFS = re.compile(r"(?:/(?P<kind>datasets))?/(?P<id>[^/]+/[^/]+)\.git/info/lfs/(?P<verb>objects/batch|verify)")
_LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".onnx", ".msgpack", ".parquet", ".arrow", ".tar", ".flac", ".png")


class HubWrites:
    """The writing half of a HubServer, which has models, writers, repos, tokens, what keeps them, what reads."""

    writers: dict[str, tuple[str, ...]]
    models: dict[str, HubRepo]
    repos: dict[str, HubRepo]
    large_bytes: int
    url: str
    _large: dict[str, HubFile]
    _keeper: HubFolder | None
    _adding: threading.Lock

    def may_write(self, token: str | None, repo_id: str) -> bool:
        """Say whether a token may write to a repository: its namespace decides."""
        return bool(token) and repo_id.partition("/")[0] in self.writers.get(token, ())

    def _token(self, request: Request) -> str | None:
        return request.fields.get("authorization", "").removeprefix("Bearer ") or None

    def _who_am_i(self, token: str | None) -> Answer:
        if not token:
            return refuse(401, "", "Invalid username or password.")
        name, *organisations = self.writers.get(token, ("tester",))
        access = {"displayName": "test", "role": "write" if token in self.writers else "read"}
        return json_answer(
            {
                "type": "user",
                "id": "0",
                "name": name,
                "fullname": name,
                "orgs": [{"name": o} for o in organisations],
                "auth": {"type": "access_token", "accessToken": access},
            }
        )

    def _answer_write(self, request: Request, token: str | None) -> Answer | None:
        """Answer what is no matter of one revision; None for other requests."""
        if request.path == "/api/repos/create":
            return self._create(request, token)
        if request.path == "/api/validate-yaml":
            return json_answer({"errors": [], "warnings": []})
        match = _LFS.fullmatch(request.path)
        if match is None:
            return None
        if not self.may_write(token, match["id"]):
            return refuse(403 if token else 401, "", f"You are not allowed to push to {match['id']}")
        if match["id"] not in (self.repos if match["kind"] else self.models):
            return refuse(404, "RepoNotFound", "Repository not found")
        asked = json.loads(request.body)
        if match["verb"] == "verify":
            stored = self._large.get(asked["oid"])
            return json_answer({}, status=200 if stored and stored.size == asked["size"] else 404)
        return json_answer({"transfer": "basic", "objects": [self._batch(o, match, request) for o in asked["objects"]]})

    def _create(self, request: Request, token: str | None) -> Answer:
        asked = json.loads(request.body)
        if not token:
            return refuse(401, "", "Invalid username or password.")
        kind = asked.get("type") or "model"
        if kind not in ("model", "dataset"):
            return refuse(400, "", f"A {kind} cannot be made here")
        namespace = asked.get("organization") or self.writers.get(token, ("tester",))[0]
        repo_id = f"{namespace}/{asked['name']}"
        if not self.may_write(token, repo_id):
            return refuse(403, "", f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        page = _page(request, kind, repo_id)
        with self._adding:
            repos = self.repos if kind == "dataset" else self.models
            if repo_id in repos:
                return json_answer({"error": f"You already created this {kind} repo", "url": page}, status=409)
            repo = HubRepo(repo_id, kind=kind, private=private)
            lines = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LARGE_SUFFIXES)
            self._put(repo, {".gitattributes": make_file(lines.encode(), large_bytes=1 << 20)}, "main")
            repos[repo_id] = repo  # others see it with its first commit
        return json_answer({"url": page, "id": repo_id, "name": repo_id})

    def _put(self, repo: HubRepo, files: dict[str, HubFile], revision: str) -> str:
        """Make a commit, and keep it where this Hub outlives its process. The caller holds the lock."""
        if self._keeper is not None:
            files = {path: self._keeper.keep(file) for path, file in files.items()}
        sha = repo.commit(files, revision)
        if self._keeper is not None:
            self._keeper.write(repo)
        return sha

    def _preupload(self, request: Request, repo: HubRepo, commit: Commit, path: str) -> Answer:
        def mode(file: dict) -> str:
            return "lfs" if file["size"] > self.large_bytes or file["path"].endswith(_LARGE_SUFFIXES) else "regular"

        there = {p: f.oid for p, f in commit.files.items()}
        told = [
            {"path": f["path"], "uploadMode": mode(f), "shouldIgnore": False, "oid": there.get(f["path"])}
            for f in json.loads(request.body)["files"]
        ]
        return json_answer({"files": told, "commitOid": commit.sha})

    def _batch(self, wanted: dict, match: re.Match, request: Request) -> dict:
        oid, base = wanted["oid"], f"http://{request.fields['host']}"
        if oid in self._large:
            return wanted
        verify = f"{base}/{'datasets/' if match['kind'] else ''}{match['id']}.git/info/lfs/verify"
        return {
            **wanted,
            "actions": {
                "upload": {"href": f"{base}/uploads/{oid}?signature={self._sign(oid, 'upload')}"},
                "verify": {"href": verify},
            },
        }

    def _take_upload(self, request: Request, oid: str) -> Answer:
        if request.query.get("signature") != [self._sign(oid, "upload")]:
            return Answer(403, {}, b"The request signature does not match")
        if hashlib.sha256(request.body).hexdigest() != oid:
            return Answer(400, {}, b"The content is not what its name says")
        file = make_file(request.body, large_bytes=-1)
        self._large[oid] = self._keeper.keep(file) if self._keeper is not None else file
        return Answer(200, {"ETag": f'"{oid}"'})

    def _commit(self, request: Request, repo: HubRepo, commit: Commit, path: str) -> Answer:
        with self._adding:
            commit = repo.find("main")  # it may have moved since the request was read
            files = dict(commit.files)
            for line in request.body.splitlines():
                item = json.loads(line)
                refused = self._apply(item["key"], item["value"], files, commit)
                if refused is not None:
                    return refused
            sha = self._put(repo, files, "main")
        return json_answer(
            {
                "success": True,
                "commitOid": sha,
                "commitUrl": f"{_page(request, repo.kind, repo.id)}/commit/{sha}",
                "hookOutput": "",
                "pullRequestUrl": None,
            }
        )

    def _apply(self, key: str, value: dict, files: dict[str, HubFile], commit: Commit) -> Answer | None:
        """Do what one line of a commit says to the files, or say why not."""
        if key == "header" and value.get("parentCommit") not in (None, commit.sha):
            return refuse(412, "", "A commit has happened since. Please refresh and try again.")
        if key == "file":
            files[value["path"]] = make_file(base64.b64decode(value["content"]), large_bytes=1 << 30)
        elif key == "lfsFile":
            stored = self._large.get(value["oid"])
            if stored is None or stored.size != value.get("size", stored.size):
                return refuse(400, "", f"Large file {value['path']} was not uploaded")
            files[value["path"]] = stored
        elif key == "deletedFile":
            if files.pop(value["path"], None) is None:
                return refuse(404, "EntryNotFound", "A file with this name doesn't exist")
        elif key == "deletedFolder":
            folder = value["path"].rstrip("/") + "/"
            for name in [name for name in files if name.startswith(folder)]:
                del files[name]
        return None


def json_answer(value: Any, fields: Fields | None = None, status: int = 200) -> Answer:
    """Return an answer that holds a value as JSON."""
    fields = {"Content-Type": "application/json; charset=utf-8", **(fields or {})}
    return Answer(status, fields, json.dumps(value, default=str).encode())


def refuse(status: int, code: str, message: str, fields: Fields | None = None) -> Answer:
    """Return an error as the Hub tells it, in its headers too."""
    told = {"X-Error-Code": code} if code else {}
    return json_answer({"error": message}, {**(fields or {}), **told, "X-Error-Message": message}, status)


def _page(request: Request, kind: str, repo_id: str) -> str:
    """Return where a repository is shown, at the address that was asked: a proxy may stand in between."""
    return f"http://{request.fields['host']}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
