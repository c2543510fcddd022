"""A Hub that outlives its process: repositories and uploads are found again."""

from __future__ import annotations

import hashlib
import json

from colabkit.loopback.hub import HubServer
from tests.loopback.conftest import LARGE
from tests.servers.clients import run_client

WRITE = """
import json, sys
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
api = HfApi(token="writer")
api.create_repo("me/d", repo_type="dataset", private=True)
api.create_repo("me/d", repo_type="dataset", exist_ok=True)
large = bytes(range(256)) * 2000
files = {"data/a.parquet": large, "data/b.parquet": b"small", "README.md": b"x"}
add = [CommitOperationAdd(path, content) for path, content in files.items()]
api.create_commit("me/d", add, commit_message="one", repo_type="dataset")
api.create_commit("me/d", [CommitOperationDelete("data/b.parquet")], commit_message="two", repo_type="dataset")
print(json.dumps({"files": api.list_repo_files("me/d", repo_type="dataset"), \
"private": api.dataset_info("me/d").private}))
"""


READ_BACK = """
import hashlib, json
from huggingface_hub import HfApi, hf_hub_download
path = hf_hub_download("me/d", "data/a.parquet", repo_type="dataset", token="writer")
print(json.dumps({"sha256": hashlib.sha256(open(path, "rb").read()).hexdigest(),
                  "files": HfApi(token="writer").list_repo_files("me/d", repo_type="dataset")}))
"""


def test_datasets_are_written_and_outlive_the_process(tmp_path):
    with HubServer(folder=tmp_path / "hub") as hub:
        hub.writers = {"writer": ("me",)}
        told = run_client(WRITE, hub.environment(), tmp_path)
        assert told == {"files": [".gitattributes", "README.md", "data/a.parquet"], "private": True}
        port, commits = hub.port, list(hub.repos["me/d"].commits)
        assert len(commits) == 3
        hub.add_dataset("o/s", {"a.bin": LARGE}, private=True)
    with HubServer(folder=tmp_path / "hub", port=port) as hub:
        hub.writers = {"writer": ("me",)}
        assert list(hub.repos["me/d"].commits) == commits and hub.repos["o/s"].private and not hub.models
        told = run_client(READ_BACK, hub.environment(), tmp_path)
        assert (
            told["sha256"] == hashlib.sha256(bytes(range(256)) * 2000).hexdigest() and "data/a.parquet" in told["files"]
        )


def test_uploads_that_nobody_committed_outlive_the_process(http, tmp_path):
    oid = hashlib.sha256(LARGE).hexdigest()
    wanted, fields = json.dumps({"objects": [{"oid": oid, "size": len(LARGE)}]}), {"Authorization": "Bearer writer"}
    make = json.dumps({"name": "d", "organization": "me", "type": "dataset"})
    for number in range(2):
        with HubServer(folder=tmp_path) as hub:
            hub.writers = {"writer": ("me",)}
            if not number:
                assert http.request("POST", f"{hub.url}/api/repos/create", body=make, headers=fields).status == 200
            address = f"{hub.url}/datasets/me/d.git/info/lfs/objects/batch"
            batch = http.request("POST", address, body=wanted, headers=fields).json()
            assert ("actions" in batch["objects"][0]) == (not number)
            if not number:
                href = batch["objects"][0]["actions"]["upload"]["href"]
                assert http.request("PUT", href, body=LARGE[:-1]).status == 400  # cut on its way
                assert http.request("PUT", href, body=LARGE).status == 200
            else:
                lines = [
                    {"key": "header", "value": {"summary": "x"}},
                    {"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": oid, "size": len(LARGE)}},
                ]
                body = "\n".join(json.dumps(line) for line in lines)
                assert (
                    http.request("POST", f"{hub.url}/api/datasets/me/d/commit/main", body=body, headers=fields).status
                    == 200
                )
                assert hub.repos["me/d"].find("main").files["a.bin"].take(0, 10) is not None
