"""The Hub that other tests stand on behaves like the real one, asked by huggingface_hub, datasets and plain HTTP."""

from __future__ import annotations

import hashlib
import io
import random
import time

from tests.loopback.conftest import LARGE, link
from tests.servers.clients import run_client

CARD = b"""---
configs:
- config_name: clean
  data_files: [{split: train, path: clean/train/*.parquet}, {split: test, path: clean/test/*.parquet}]
- config_name: other
  data_files: [{split: train, path: other/train/*.parquet}]
---
# Speech
"""


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
