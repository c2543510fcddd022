"""The Hub that other tests stand on behaves like the real one, asked by huggingface_hub, datasets and plain HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import urllib3

from colabkit.loopback.hub import HubServer
from tests.servers.clients import run_client

LARGE = random.Random(0).randbytes(3_000_000)
CARD = b"""---
configs:
- config_name: clean
  data_files: [{split: train, path: clean/train/*.parquet}, {split: test, path: clean/test/*.parquet}]
- config_name: other
  data_files: [{split: train, path: other/train/*.parquet}]
---
# Speech
"""


@pytest.fixture(scope="module")
def http():
    return urllib3.PoolManager(maxsize=32, retries=urllib3.Retry(2, connect=0, read=0))


@pytest.fixture
def hub():
    with HubServer(page_entries=3) as server:
        yield server


def link(http, hub: HubServer, path: str) -> str:
    answer = http.request("GET", f"{hub.url}/datasets/{path}", redirect=False)
    assert answer.status == 302 and answer.headers["Location"].startswith(f"http://localhost:{hub.port}/cdn/")
    return answer.headers["Location"]


READ_HUB = """
import json, sys
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
api, old = HfApi(), sys.argv[1]
def name_of(call, *args, **kwargs):
    try:
        return repr(call(*args, **kwargs))
    except Exception as error:
        return f"{type(error).__name__} {error.response.status_code}"
def get(repo, path, **kwargs):
    return open(hf_hub_download(repo, path, repo_type="dataset", **kwargs), "rb").read()
import hashlib
sums = lambda data: hashlib.sha256(data).hexdigest()
info, fs = api.dataset_info("o/s", files_metadata=True), HfFileSystem()
tree = list(api.list_repo_tree("o/s", recursive=True, expand=True, repo_type="dataset"))
told = {"sha": info.sha, "card": info.card_data.to_dict()}
told["siblings"] = {s.rfilename: [s.size, bool(s.lfs)] for s in info.siblings}
told["tree"] = [f.path for f in tree]
told["folder"] = [f.path for f in api.list_repo_tree("o/s", "d\\u00e4ta", repo_type="dataset")]
told["paths_info"] = [p.path for p in api.get_paths_info("o/s", ["README.md", "d\\u00e4ta", "nothing"], \
repo_type="dataset")]
refs = api.list_repo_refs("o/s", repo_type="dataset")
told["refs"] = {r.ref: r.target_commit for r in [*refs.branches, *refs.converts]}
told["files"] = [sums(get("o/s", p)) for p in ("d\\u00e4ta/a b.bin", "d\\u00e4ta/small")]
told["old"] = get("o/s", "README.md", revision=old).decode()
told["converted"] = sums(get("o/s", "p.bin", revision="refs/convert/parquet"))
with fs.open("datasets/o/s/d\\u00e4ta/a b.bin", block_size=1 << 16) as file:
    file.seek(1_000_000)
    told["middle"] = file.read(100_000).hex()
told["fs"] = sorted(fs.find("datasets/o/s@refs/convert/parquet/"))
told["errors"] = [
    name_of(get, "o/s", "nothing"), name_of(get, "o/s", "README.md", revision="nothing"), \
name_of(api.dataset_info, "o/nothing"),
    name_of(get, "o/gated", "x", token=False), name_of(get, "o/gated", "x", token="stranger"),
    name_of(api.dataset_info, "o/private", token=False), name_of(api.dataset_info, "o/private", token="stranger"),
    name_of(api.auth_check, "o/gated", repo_type="dataset"), name_of(api.whoami, token="expired")]
told["snapshot"] = name_of(snapshot_download, "o/gated", repo_type="dataset", token="good")[:1]
told["gated"], told["private"] = get("o/gated", "x", token="good").decode(), \
api.dataset_info("o/private", token="good").private
told["known"], told["who"] = api.dataset_info("o/gated").gated, api.whoami(token="good")["name"]
print(json.dumps(told))
"""


def test_huggingface_hub_reads(hub, tmp_path):
    (tmp_path / "large").write_bytes(LARGE)
    hub.tokens, hub.tokens_without_access = {"good"}, {"stranger"}
    old = hub.add_dataset("o/s", {"README.md": b"old"})
    files = {
        "README.md": CARD,
        "däta/a b.bin": tmp_path / "large",
        "däta/small": b"s",
        "däta/deep/er/x": b"x",
        "empty": b"",
    }
    new = hub.add_dataset("o/s", files)
    converted = hub.add_dataset("o/s", {"p.bin": LARGE[::-1]}, revision="refs/convert/parquet")
    hub.add_dataset("o/gated", {"x": b"inside", "large": LARGE}, gated=True)
    hub.add_dataset("o/private", {"x": b"inside"}, private=True)
    told = run_client(READ_HUB, hub.environment(), tmp_path, old)
    assert told["sha"] == new != old and told["card"]["configs"][1]["config_name"] == "other"
    sizes = dict.fromkeys(files, 1) | {"README.md": len(CARD), "däta/a b.bin": len(LARGE), "empty": 0}
    assert told["siblings"] == {path: [size, path.endswith("bin")] for path, size in sizes.items()}
    assert told["tree"] == sorted([*files, "däta", "däta/deep", "däta/deep/er"])  # over three pages
    assert told["folder"] == ["däta/a b.bin", "däta/deep", "däta/small"]
    assert told["paths_info"] == ["README.md", "däta"]
    assert told["refs"] == {"refs/heads/main": new, "refs/convert/parquet": converted}
    assert told["files"] == [hashlib.sha256(data).hexdigest() for data in (LARGE, b"s")]
    assert (told["old"], told["converted"]) == ("old", hashlib.sha256(LARGE[::-1]).hexdigest())
    assert bytes.fromhex(told["middle"]) == LARGE[1_000_000:1_100_000]
    assert told["fs"] == ["datasets/o/s@refs/convert/parquet/p.bin"] and told["snapshot"] == "'"
    assert told["errors"] == [
        "RemoteEntryNotFoundError 404",
        "RevisionNotFoundError 404",
        "RepositoryNotFoundError 401",
        "GatedRepoError 401",
        "GatedRepoError 403",
        "RepositoryNotFoundError 401",
        "RepositoryNotFoundError 404",
        "GatedRepoError 401",
        "HfHubHTTPError 401",
    ]
    assert (told["gated"], told["private"], told["known"], told["who"]) == ("inside", True, "auto", "tester")
    assert any(path.startswith("/cdn/") and span and status == 206 for _, path, span, status in hub.requests)


STREAM = """
import json, sys
from datasets import Audio, load_dataset
def rows(config, split):
    stream = load_dataset("o/s", config, split=split, streaming=True).cast_column("audio", Audio(decode=False))
    return [[row["id"], row["audio"]["bytes"].hex()] for row in stream]
print(json.dumps({"train": rows("clean", "train"), "test": rows("clean", "test"), "other": rows("other", "train")}))
"""


def test_datasets_streams_the_configs_of_a_card(hub, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def shard(first: int, num_rows: int) -> bytes:
        rows = [
            {"id": i, "audio": {"bytes": random.Random(i).randbytes(20_000), "path": f"{i}.wav"}}
            for i in range(first, first + num_rows)
        ]
        pq.write_table(pa.Table.from_pylist(rows), sink := io.BytesIO(), row_group_size=3)
        return sink.getvalue()

    hub.add_dataset(
        "o/s",
        {
            "README.md": CARD,
            "clean/train/0.parquet": shard(0, 7),
            "clean/train/1.parquet": shard(7, 5),
            "clean/test/0.parquet": shard(100, 1),
            "other/train/0.parquet": shard(200, 2),
        },
    )
    told = run_client(STREAM, hub.environment(), tmp_path)
    ids = {"train": range(12), "test": [100], "other": [200, 201]}
    assert told == {
        name: [[i, random.Random(i).randbytes(20_000).hex()] for i in numbers] for name, numbers in ids.items()
    }


def test_a_signed_link_expires_and_is_one_of_this_hub(hub, http):
    hub.link_seconds = 1
    hub.add_dataset("o/s", {"a.bin": LARGE})
    address = link(http, hub, "o/s/resolve/main/a.bin")
    assert http.request("GET", address, headers={"Range": "bytes=5-9"}).data == LARGE[5:10]
    assert http.request("GET", address.replace("signature=", "signature=0")).status == 403
    assert http.request("GET", address, headers={"Authorization": "Bearer x"}).status == 400
    time.sleep(1.01)
    refused = http.request("GET", address)
    assert refused.status == 403 and b"expired" in refused.data


def test_a_token_expires_while_the_hub_runs(hub, http):
    hub.tokens = {"good"}
    hub.add_dataset("o/gated", {"x": b"inside"}, gated=True)

    def ask():
        address = f"{hub.url}/datasets/o/gated/resolve/main/x"
        return http.request("GET", address, headers={"Authorization": "Bearer good"})

    assert ask().data == b"inside"
    hub.tokens = set()
    assert ask().status == 401


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_ranges(hub, http, tmp_path, kept):
    (tmp_path / "a.bin").write_bytes(LARGE)
    hub.add_dataset("o/s", {"a.bin": LARGE if kept == "memory" else tmp_path / "a.bin", "empty": b""})
    address, size = link(http, hub, "o/s/resolve/main/a.bin"), len(LARGE)
    ask = lambda span, method="GET", **more: http.request(method, address, headers={"Range": span, **more})  # noqa: E731
    for span, part in (
        ("0-0", LARGE[:1]),
        ("-7", LARGE[-7:]),
        (f"{size - 3}-", LARGE[-3:]),
        ("9-99999999", LARGE[9:]),
        ("1-2500000", LARGE[1:2500001]),
        (f"-{size + 9}", LARGE),
    ):
        answer = ask(f"bytes={span}")
        start = LARGE.index(part) if len(part) < size else 0
        assert (answer.status, answer.data == part) == (206, True)
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{size}"
    for span in (f"{size}-", f"{size}-{size + 1}", "-0"):
        assert (ask(f"bytes={span}").status, ask(f"bytes={span}").headers["Content-Range"]) == (416, f"bytes */{size}")
    for span in ("bytes=9-3", "bytes=0-1,5-6", "lines=1-2", "bytes=-"):
        assert (ask(span).status, ask(span).data == LARGE) == (200, True)
    head = ask("bytes=0-9", method="HEAD")
    assert (head.status, head.headers["Content-Length"], head.data) == (206, "10", b"")
    etag = head.headers["ETag"]
    assert etag == f'"{hashlib.sha256(LARGE).hexdigest()}"' and head.headers["Accept-Ranges"] == "bytes"
    assert (
        ask("bytes=0-9", **{"If-Match": etag}).status == 206 and ask("bytes=0-9", **{"If-Match": '"x"'}).status == 412
    )
    assert (
        ask("bytes=0-9", **{"If-Range": '"x"'}).status == 200
        and ask("bytes=0-9", **{"If-None-Match": etag}).status == 304
    )
    empty = http.request("GET", f"{hub.url}/datasets/o/s/resolve/main/empty", headers={"Range": "bytes=0-"})
    assert empty.status == 416


def test_commits_are_named_by_their_content(hub):
    with HubServer() as other:
        shas = [[server.add_dataset("o/s", {"x": data}) for data in (b"1", b"2", b"2")] for server in (hub, other)]
    assert shas[0] == shas[1] and len(set(shas[0])) == 3 and all(len(sha) == 40 for sha in shas[0])


def test_connections_are_kept_and_served_at_once(hub):
    hub.add_dataset("o/s", {"a.bin": LARGE})
    pool = urllib3.HTTPConnectionPool("127.0.0.1", hub.port, maxsize=8, block=True)
    address = link(pool, SimpleNamespace(url="", port=hub.port), "o/s/resolve/main/a.bin").partition(str(hub.port))[2]

    def read(i: int) -> bool:
        start = i * 1000
        return (
            pool.request("GET", address, headers={"Range": f"bytes={start}-{start + 4999}"}).data
            == LARGE[start : start + 5000]
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(2000)))
    assert pool.num_connections <= 8 and len(hub.requests) == 2001
    assert hub.requests[0] == ("GET", "/datasets/o/s/resolve/main/a.bin", None, 302)


def test_a_server_that_has_gone_answers_no_more(http):
    with HubServer() as hub:
        assert http.request("GET", f"{hub.url}/api/datasets/o/s").status == 401
    with pytest.raises(urllib3.exceptions.HTTPError):
        http.request("GET", f"{hub.url}/api/datasets/o/s")


def test_writes_need_a_right_a_signature_and_the_content_they_name(hub, http):
    hub.writers, hub.tokens = {"writer": ("me",)}, {"reader"}
    ask = lambda path, body, token="writer": http.request(  # noqa: E731
        "POST", hub.url + path, body=body, headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    make = json.dumps({"name": "m", "organization": "me", "type": "model", "visibility": "private"})
    tokens = (None, "reader", "writer", "writer")
    assert [ask("/api/repos/create", make, token).status for token in tokens] == [401, 403, 200, 409]
    assert ask("/api/repos/create", make.replace('"me"', '"you"')).status == 403
    head = json.dumps({"key": "header", "value": {"summary": "x"}})
    small = json.dumps({"key": "file", "value": {"path": "a.txt", "content": "aGVsbG8=", "encoding": "base64"}})
    assert ask("/api/models/me/m/commit/main", f"{head}\n{small}", "reader").status == 403
    done = ask("/api/models/me/m/commit/main", f"{head}\n{small}").json()
    assert hub.models["me/m"].commits[done["commitOid"]].files["a.txt"].content == b"hello"
    oid = hashlib.sha256(LARGE).hexdigest()
    wanted = json.dumps({"objects": [{"oid": oid, "size": len(LARGE)}]})
    assert ask("/me/m.git/info/lfs/objects/batch", wanted, "reader").status == 403
    action = ask("/me/m.git/info/lfs/objects/batch", wanted).json()["objects"][0]["actions"]["upload"]["href"]
    large = json.dumps({"key": "lfsFile", "value": {"path": "b.bin", "algo": "sha256", "oid": oid, "size": len(LARGE)}})
    assert ask("/api/models/me/m/commit/main", f"{head}\n{large}").status == 400  # not uploaded yet
    put = lambda address, body: http.request("PUT", address, body=body).status  # noqa: E731
    assert (put(action + "0", LARGE), put(action, LARGE[1:]), put(action, LARGE)) == (403, 400, 200)
    assert "actions" not in ask("/me/m.git/info/lfs/objects/batch", wanted).json()["objects"][0]
    old = json.dumps({"key": "header", "value": {"summary": "x", "parentCommit": "0" * 40}})
    assert ask("/api/models/me/m/commit/main", f"{old}\n{large}").status == 412
    assert ask("/api/models/me/m/commit/main", f"{head}\n{large}").status == 200
    read = http.request(
        "GET", f"{hub.url}/me/m/resolve/main/b.bin", headers={"Authorization": "Bearer writer"}, redirect=False
    )
    assert read.status == 302 and http.request("GET", read.headers["Location"]).data == LARGE
    assert http.request("GET", f"{hub.url}/me/m/resolve/main/b.bin").status == 401


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


def test_quotas_refuse_with_the_fields_of_the_real_one(hub, http):
    from colabkit.io.places.http.patience import ordered_wait_seconds
    from colabkit.loopback.hub_quota import Quota

    hub.add_dataset("o/s", {"a": b"x"})
    hub.api_quota = Quota(2, 0.5)
    ask = lambda: http.request("GET", f"{hub.url}/api/datasets/o/s", retries=False)  # noqa: E731
    answers = [ask() for _ in range(4)]
    assert [a.status for a in answers] == [200, 200, 429, 429] and hub.api_quota.refused == 2
    assert ordered_wait_seconds(answers[-1].headers) == 1 and "q=2;w=1" in answers[-1].headers["RateLimit-Policy"]
    time.sleep(0.55)
    assert ask().status == 200
    hub.api_quota = Quota(0, 60, with_retry_after=True)
    assert ask().headers["Retry-After"] == "60"


def test_commits_at_once_lose_nothing(hub, http):
    hub.writers = {"writer": ("me",)}
    fields = {"Authorization": "Bearer writer"}
    http.request(
        "POST", f"{hub.url}/api/repos/create", body=json.dumps({"name": "d", "type": "dataset"}), headers=fields
    )

    def commit(i: int) -> int:
        lines = [
            {"key": "header", "value": {"summary": "x"}},
            {"key": "file", "value": {"path": f"{i}.txt", "content": "YQ==", "encoding": "base64"}},
        ]
        return http.request(
            "POST", f"{hub.url}/api/datasets/me/d/commit/main", body="\n".join(map(json.dumps, lines)), headers=fields
        ).status

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(commit, range(40))) == {200}
    assert len(hub.repos["me/d"].find("main").files) == 41 and len(hub.repos["me/d"].commits) == 41
