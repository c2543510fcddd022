"""What writes to the Hub: repositories are made, files announced, large ones uploaded, and commits put them in place.

The commit is NDJSON: a header, then files with their content in base64, or the SHA-256 of what lies in large file storage.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from colabkit.io.loopback.hub_repos import Commit, HubFile, HubRepo, make_file
from colabkit.io.loopback.messages import Answer, Fields, Request

_LFS = re.compile(r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/(?P<verb>objects/batch|verify)")
_LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".onnx", ".msgpack")


class HubWrites:
    """The writing half of a HubServer, which has models, writers, repos, tokens and what reads."""

    writers: dict[str, tuple[str, ...]]
    models: dict[str, HubRepo]
    _large: dict[str, HubFile]
    large_bytes: int
    url: str

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
        return json_answer({"type": "user", "id": "0", "name": name, "fullname": name,
                            "orgs": [{"name": o} for o in organisations],
                            "auth": {"type": "access_token", "accessToken": access}})

    def _answer_write(self, request: Request, token: str | None) -> Answer | None:
        """Answer what is no matter of one revision; None for other requests."""
        if request.path == "/api/repos/create":
            return self._create(json.loads(request.body), token)
        if request.path == "/api/validate-yaml":
            return json_answer({"errors": [], "warnings": []})
        match = _LFS.fullmatch(request.path)
        if match is None:
            return None
        if not self.may_write(token, match["id"]):
            return refuse(403 if token else 401, "", f"You are not allowed to push to {match['id']}")
        asked = json.loads(request.body)
        if match["verb"] == "verify":
            stored = self._large.get(asked["oid"])
            return json_answer({}, status=200 if stored and stored.size == asked["size"] else 404)
        return json_answer({"transfer": "basic", "objects": [self._batch(o, match["id"], request) for o in asked["objects"]]})

    def _create(self, asked: dict, token: str | None) -> Answer:
        if not token:
            return refuse(401, "", "Invalid username or password.")
        namespace = asked.get("organization") or self.writers.get(token, ("tester",))[0]
        repo_id = f"{namespace}/{asked['name']}"
        if not self.may_write(token, repo_id):
            return refuse(403, "", f'You don\'t have the rights to create a {asked.get("type", "model")} under the namespace '
                                   f'"{namespace}"')
        if repo_id in self.models:
            return json_answer({"error": "You already created this model repo", "url": f"{self.url}/{repo_id}"}, status=409)
        repo = HubRepo(repo_id, kind="model", private=asked.get("visibility") == "private" or bool(asked.get("private")))
        self.models[repo_id] = repo
        attributes = make_file(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", large_bytes=1 << 20)
        repo.commit({".gitattributes": attributes}, "main")
        return json_answer({"url": f"{self.url}/{repo_id}", "id": repo_id, "name": repo_id})

    def _preupload(self, request: Request, repo: HubRepo, commit: Commit, path: str) -> Answer:
        def mode(file: dict) -> str:
            return "lfs" if file["size"] > self.large_bytes or file["path"].endswith(_LARGE_SUFFIXES) else "regular"
        there = {p: f.oid for p, f in commit.files.items()}
        told = [{"path": f["path"], "uploadMode": mode(f), "shouldIgnore": False, "oid": there.get(f["path"])}
                for f in json.loads(request.body)["files"]]
        return json_answer({"files": told, "commitOid": commit.sha})

    def _batch(self, wanted: dict, repo_id: str, request: Request) -> dict:
        oid, base = wanted["oid"], f"http://{request.fields['host']}"
        if oid in self._large:
            return wanted
        return {**wanted, "actions": {"upload": {"href": f"{base}/uploads/{oid}?signature={self._sign(oid, 'upload')}"},
                                      "verify": {"href": f"{base}/{repo_id}.git/info/lfs/verify"}}}

    def _take_upload(self, request: Request, oid: str) -> Answer:
        if request.query.get("signature") != [self._sign(oid, "upload")]:
            return Answer(403, {}, b"The request signature does not match")
        if hashlib.sha256(request.body).hexdigest() != oid:
            return Answer(400, {}, b"The content is not what its name says")
        self._large[oid] = make_file(request.body, large_bytes=-1)
        return Answer(200, {"ETag": f'"{oid}"'})

    def _commit(self, request: Request, repo: HubRepo, commit: Commit, path: str) -> Answer:
        files = dict(commit.files)
        for line in request.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit") not in (None, commit.sha):
                return refuse(412, "", "A commit has happened since. Please refresh and try again.")
            if item["key"] == "file":
                files[value["path"]] = make_file(base64.b64decode(value["content"]), large_bytes=1 << 30)
            elif item["key"] == "lfsFile":
                if value["oid"] not in self._large:
                    return refuse(400, "", f"Large file {value['path']} was not uploaded")
                files[value["path"]] = self._large[value["oid"]]
            elif item["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = repo.commit(files, "main")
        return json_answer({"success": True, "commitOid": sha, "commitUrl": f"{self.url}/{repo.id}/commit/{sha}",
                            "hookOutput": "", "pullRequestUrl": None})


def json_answer(value: Any, fields: Fields | None = None, status: int = 200) -> Answer:
    fields = {"Content-Type": "application/json; charset=utf-8", **(fields or {})}
    return Answer(status, fields, json.dumps(value, default=str).encode())


def refuse(status: int, code: str, message: str, fields: Fields | None = None) -> Answer:
    told = {"X-Error-Code": code} if code else {}
    return json_answer({"error": message}, {**(fields or {}), **told, "X-Error-Message": message}, status)
