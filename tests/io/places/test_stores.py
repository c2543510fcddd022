"""Folders, Hub datasets and buckets on loopback servers: listed and read exactly, through faults, by many at once."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import pytest

from colabkit.core.errors import DataError, StateError, UsageError
from colabkit.io.places import Folder, Pinned, StoredObject, open_place
from colabkit.io.places.http.ranges import RangeClient, Refused, Unreachable
from colabkit.io.places.hub import HubDataset, parse_hub_address
from colabkit.loopback.hub import HubServer
from colabkit.loopback.messages import Answer, Request, answer_range
from colabkit.loopback.serving import HttpServer
from tests.servers.faults import FaultProxy
from tests.servers.gcs import GcsServer
from tests.servers.s3 import S3Server

NAMES = [
    "README.md",
    "a.wav",
    "dir/b c.flac",
    "dir/déjà vu/日本 🎧.wav",
    "dir/100%25 #1?x=y&z+.wav",
    "dir2/big.tar",
    "dir2/empty.wav",
]
OF_ENVIRONMENT = (
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AWS_SKIP_SIGNATURE",
    "STORAGE_EMULATOR_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HF_HUB_OFFLINE",
)
ROOT = Path(__file__).resolve().parents[2]
FAULTS = {"resets": 0.05, "truncations": 0.05, "refusals": 0.02}


def contents() -> dict[str, bytes]:
    dice = random.Random(1)
    sizes = dict(zip(NAMES, (900, 1, 70_000, 65_537, 5_000, 400_000, 0), strict=True))
    return {name: dice.randbytes(size) for name, size in sizes.items()}


FILES = contents()


@pytest.fixture(scope="module")
def hub():
    with HubServer(page_entries=3) as server:
        server.add_dataset("org/na-me_1.0", FILES | {".gitattributes": b"x"})
        yield server


@pytest.fixture(scope="module")
def s3():
    with S3Server() as server:
        for name, content in FILES.items():
            server.put("bucket", name, content)
            server.put("bucket", f"set/one/{name}", content)
        server.put("bucket", "set/one-not/x.wav", b"x")
        server.put("bucket", "set/one/.colabkit-x.tmp", b"x")
        server.put("bucket", "set/one/folder/", b"")
        yield server


@pytest.fixture(scope="module")
def gcs():
    with GcsServer() as server:
        for name, content in FILES.items():
            server.put("bucket", name, content)
            server.put("bucket", f"set/one/{name}", content)
        server.put("bucket", "set/one-not/x.wav", b"x")
        server.put("bucket", "set/one/folder/", b"")
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Nothing of the machine's own logins and settings counts."""
    import huggingface_hub.constants

    for name in OF_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", os.fspath(tmp_path / "no-token"))
    for name, value in {
        "AWS_SHARED_CREDENTIALS_FILE": tmp_path / "none",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_GCE_CHECK": "true",
        "GCE_METADATA_HOST": "127.0.0.1:1",
        "CLOUDSDK_CONFIG": tmp_path,
    }.items():
        monkeypatch.setenv(name, os.fspath(value))
    return monkeypatch


@pytest.fixture
def at(request, environment, tmp_path):
    """Return a function kind -> address, which sets the environment for it; through a proxy if its address is given."""

    def prepare(kind: str, proxy: str | None = None) -> str:
        if kind == "folder":
            for name, content in FILES.items():
                (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "data" / name).write_bytes(content)
            return os.fspath(tmp_path / "data")
        server = request.getfixturevalue(kind)
        for name, value in server.environment(proxy).items():
            environment.setenv(name, value)
        return {"hub": "hub:org/na-me_1.0", "s3": "s3://bucket/set/one/", "gcs": "gs://bucket/set/one"}[kind]

    return prepare


def pinned(address) -> Pinned:
    return Pinned(open_place(address))


KINDS = ["folder", "hub", "s3", "gcs"]
REMOTE = KINDS[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_lists_and_reads_exactly(kind, at):
    store = pinned(at(kind))
    listed = store.list()
    assert [(o.name, o.size) for o in listed] == sorted((name, len(content)) for name, content in FILES.items())
    assert all(o.version for o in listed) and len({o.version for o in listed}) == len(listed)
    assert store.list() == listed
    for name, content in FILES.items():
        assert store.read(name) == content
        size = len(content)
        for start, stop in (
            (0, min(1, size)),
            (size // 3, 2 * size // 3),
            (max(0, size - 1), size),
            (size, size),
            (size // 2, None),
        ):
            assert store.read(name, start, stop) == content[start:stop]
        with pytest.raises(DataError, match="shorter"):
            store.read(name, 0, size + 1)
    with pytest.raises(DataError, match="vanished") as caught:
        store.read("dir/absent é.wav", 0, 10)
    assert "dir/absent é.wav" in str(caught.value)
    store.close()
    assert store.read("a.wav") == FILES["a.wav"]  # opens again


@pytest.mark.parametrize("kind", KINDS)
def test_address_is_pinned_and_opens_again(kind, at, hub):
    store = pinned(at(kind))
    again = pinned(store.address)
    assert again.address == store.address and again.list() == store.list()
    expected = {
        "folder": store.address,
        "s3": "s3://bucket/set/one",
        "gcs": "gs://bucket/set/one",
        "hub": f"hub:org/na-me_1.0@{hub.repos['org/na-me_1.0'].find('main').sha}",
    }
    assert store.address == expected[kind] and store.address in repr(store)


def _read_elsewhere(store, queue):
    told = []
    for ask in (lambda: {o.name: store.read(o.name) for o in store.list()}, lambda: {"a.wav": store.read("a.wav")}):
        try:
            told.append(ask())
        except StateError as error:
            told.append(str(error))
    queue.put(told)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", KINDS)
def test_goes_to_another_process(kind, method, at):
    store = pinned(at(kind))
    assert store.read("a.wav") == FILES["a.wav"]
    assert pickle.loads(pickle.dumps(store)).read("a.wav") == FILES["a.wav"]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    worker = context.Process(target=_read_elsewhere, args=(store, queue))
    worker.start()
    everything, one = queue.get(timeout=60)
    if method == "fork" and kind in ("s3", "gcs"):  # obstore's threads stay behind: said, not waited for
        assert all("forked process" in told and "spawn" in told for told in (everything, one))
    else:
        assert everything == FILES and one == {"a.wav": FILES["a.wav"]}
    worker.join(30)
    assert store.read("a.wav") == FILES["a.wav"]


@pytest.mark.parametrize("kind", REMOTE)
def test_five_hundred_reads_on_a_bad_network(kind, at, request):
    server = request.getfixturevalue(kind)
    with FaultProxy(server.url, seed=3, **FAULTS) as proxy:
        place = open_place(at(kind, proxy.url))
        if kind == "hub":
            place._client = RangeClient(deadline_seconds=20, read_timeout_seconds=5, base_seconds=0.01, cap_seconds=0.1)
        store = Pinned(place if kind == "hub" else place.with_patience(20))
        assert len(store.list()) == len(FILES)
        names = [name for name in FILES if FILES[name]]

        def one(k):
            dice = random.Random(k)
            name = names[k % len(names)]
            start = dice.randrange(len(FILES[name]))
            stop = dice.randint(start, len(FILES[name]))
            return store.read(name, start, stop) == FILES[name][start:stop]

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(one, range(500)))
        assert (
            proxy.counts["resets"] >= 5
            and proxy.counts["truncations"] >= 5
            and proxy.counts["429"] + proxy.counts["503"] >= 2
        )
        assert store.counts["retries"] >= 12 and store.counts["throttled"] >= 2
        assert store.counts["requests"] >= 500 and (kind != "hub" or store.counts["resumed"] >= 1)


@pytest.mark.parametrize("kind", REMOTE)
def test_object_that_changes_after_it_was_listed(kind, at, request):
    server, address = request.getfixturevalue(kind), at(kind)
    change = {
        "hub": lambda name, content: server.add_dataset(
            "org/na-me_1.0", FILES | {name: content, ".gitattributes": b"x"}
        ),
        "s3": lambda name, content: server.put("bucket", f"set/one/{name}", content),
        "gcs": lambda name, content: server.put("bucket", f"set/one/{name}", content),
    }[kind]
    store = pinned(address)
    before = {o.name: o.version for o in store.list()}
    assert store.read("dir2/big.tar", 0, 10) == FILES["dir2/big.tar"][:10]
    time.sleep(0.01)
    change("dir2/big.tar", FILES["dir2/big.tar"][::-1])
    try:
        if kind == "hub":  # the commit stays
            assert store.read("dir2/big.tar", 10, 20) == FILES["dir2/big.tar"][10:20]
            assert {o.name: o.version for o in store.list()} == before
            assert pinned(address).read("dir2/big.tar") == FILES["dir2/big.tar"][::-1]
        else:
            with pytest.raises(DataError, match="changed"):
                store.read("dir2/big.tar", 10, 20)
            with pytest.raises(DataError, match="changed"):
                pickle.loads(pickle.dumps(store)).read("dir2/big.tar", 10, 20)
            assert {o.name: o.version for o in store.list()} != before  # and now the new content is known
            assert store.read("dir2/big.tar") == FILES["dir2/big.tar"][::-1]
    finally:
        change("dir2/big.tar", FILES["dir2/big.tar"])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3:bucket/x", "s3://bucket/x"),
        ("S3://bucket/x", "s3://bucket/x"),
        ("s3a://bucket/x", "s3://bucket/x"),
        ("gcs://b/x", "gs://b/x"),
        ("s4://bucket/x", "s3://bucket/x"),
        ("azure://c/x", "copy the data"),
        ("hf://datasets/org/name", "hub:org/name"),
        ("hub://org/name", "hub:org/name"),
        ("HUB:org/name", "hub:org/name"),
        ("https://huggingface.co/datasets/org/name/tree/main?x=SECRET", "hub:org/name"),
        ("file:///data/x", "/data/x"),
        ("https://user:SECRET@example.org/x.tar", "copy the data"),
    ],
)
def test_other_schemes_are_told_what_was_meant(address, words):
    with pytest.raises(UsageError) as caught:
        pinned(address)
    assert words in caught.value.fix and "SECRET" not in str(caught.value)


@pytest.mark.parametrize("address", ["hub:org/name", "s3://bucket", "gs://bucket"])
def test_missing_library_is_told_with_its_cure(address):
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("huggingface_hub", "obstore", "gcsfs", "urllib3"):
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Absent())
from colabkit.io.places import open_place
try:
    open_place({address!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith(StateError.__name__) and 'pip install "colabkit[streaming] @ git+' in done.stdout, (
        done
    )


# ---- folders


def test_folder_leaves_out_what_is_hidden_unfinished_or_no_file(at, tmp_path, caplog):
    root = at("folder")
    inside = tmp_path / "data"
    (inside / ".git").mkdir()
    (inside / ".git" / "x.wav").write_bytes(b"x")
    (inside / ".hidden.wav").write_bytes(b"x")
    (inside / ".colabkit-a.wav-1-abcd.tmp").write_bytes(b"x")
    (inside / "nowhere.wav").symlink_to(tmp_path / "absent.wav")
    os.mkfifo(inside / "pipe.wav")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked.wav").write_bytes(b"linked")
    (inside / "folder").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(inside)  # a circle
    store = Pinned(Folder(root))
    names = [o.name for o in store.list()]
    assert names == sorted([*FILES, "folder/linked.wav"])
    assert store.read("folder/linked.wav") == b"linked"
    assert "nowhere.wav" in caplog.text


def test_folder_that_is_missing_or_a_file(tmp_path):
    (tmp_path / "speech").mkdir()
    (tmp_path / "file.tar").write_bytes(b"x")
    with pytest.raises(UsageError, match="no such folder") as caught:
        pinned(tmp_path / "spech")
    assert "speech" in caught.value.fix
    with pytest.raises(UsageError, match="a file, not a folder"):
        pinned(tmp_path / "file.tar")
    with pytest.raises(UsageError) as caught:
        pinned("openslr/librispeech_asr")
    assert "hub:openslr/librispeech_asr" in caught.value.fix


def test_folder_sees_files_that_vanish_shrink_or_change(tmp_path):
    for name in "abcd":
        (tmp_path / name).write_bytes(bytes(1000))
    store = Pinned(Folder(tmp_path))
    store.list()
    (tmp_path / "a").unlink()
    with pytest.raises(DataError, match="vanished"):
        store.read("a", 0, 10)
    assert store.read("b", 0, 10) == bytes(10)
    os.truncate(tmp_path / "b", 100)
    with pytest.raises(DataError, match="shorter than the index says"):
        store.read("b", 90, 110)
    (tmp_path / "c").write_bytes(bytes(1001))
    with pytest.raises(DataError, match="changed"):
        store.read("c", 0, 10)
    for name in ("../c", "/etc/hostname", "x/../../c"):
        with pytest.raises(UsageError, match="leads out"):
            store.read(name, 0, 10)
    with pytest.raises(ValueError):
        store.read("d", 5, 4)


def test_folder_with_more_files_than_stay_open(tmp_path):
    for k in range(400):
        (tmp_path / f"{k}").write_bytes(k.to_bytes(4, "big") * 1000)
    store = Pinned(Folder(tmp_path))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def one(seed):
        dice = random.Random(seed)
        return all(
            store.read(str(k), 4 * i, 4 * i + 8) == k.to_bytes(4, "big") * 2
            for k, i in ((dice.randrange(400), dice.randrange(990)) for _ in range(500))
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(16)))
    if before:
        assert len(os.listdir("/proc/self/fd")) - before <= 130
        store.close()
        assert len(os.listdir("/proc/self/fd")) <= before


def test_folder_with_names_that_are_not_utf8(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(DataError, match="UTF-8") as caught:
        Pinned(Folder(tmp_path)).list()
    assert "convmv" in caught.value.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_folder_that_may_not_be_read(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataError, match="Permission"):
        Pinned(Folder(tmp_path)).list()


def test_folder_on_a_shaky_mount(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"content")
    store, faults, true_pread = Pinned(Folder(tmp_path)), [errno.EIO, errno.ESTALE, errno.ENOTCONN], os.pread

    def shaky(*arguments):
        if faults:
            raise OSError(faults.pop(), "shaky")
        return true_pread(*arguments)

    monkeypatch.setattr(os, "pread", shaky)
    assert store.read("a") == b"content"
    faults.append(errno.EISDIR)
    with pytest.raises(DataError, match="shaky"):
        store.read("a")


# ---- the Hub


def test_hub_addresses():
    assert parse_hub_address("hub:openslr/librispeech_asr/clean/train.100@abc") == (
        "openslr/librispeech_asr",
        ["clean", "train.100"],
        "abc",
    )
    assert parse_hub_address("hub:org/name@refs/convert/parquet") == ("org/name", [], "refs/convert/parquet")
    assert parse_hub_address("hub:squad") == ("squad", [], None)
    assert parse_hub_address("hub:org/name/") == ("org/name", [], None)
    for address in ("hub:", "hub:@main", "hub:org/name@", "org/name", "hub:/"):
        with pytest.raises(UsageError, match="no address of a Hub dataset"):
            parse_hub_address(address)


def test_hub_revisions_and_folders(at, hub):
    first = hub.add_dataset("org/revisions", {"x.wav": b"first", "sub/é/y.wav": b"sub"})
    converted = hub.add_dataset("org/revisions", {"0.parquet": b"converted"}, revision="refs/convert/parquet")
    hub.add_dataset("org/revisions", {"x.wav": b"second!"})
    at("hub")
    assert pinned("hub:org/revisions").read("x.wav") == b"second!"
    old = pinned(f"hub:org/revisions@{first}")
    assert old.read("x.wav") == b"first" and old.address == f"hub:org/revisions@{first}"
    store = pinned("hub:org/revisions@refs/convert/parquet")
    assert store.address == f"hub:org/revisions@{converted}" and store.read("0.parquet") == b"converted"
    folder = pinned(f"hub:org/revisions/sub@{first}")
    assert [o.name for o in folder.list()] == ["é/y.wav"] and folder.read("é/y.wav") == b"sub"
    assert folder.address == f"hub:org/revisions/sub@{first}" and pinned(folder.address).list() == folder.list()
    with pytest.raises(UsageError, match="no such folder"):
        pinned("hub:org/revisions/nowhere").list()


def test_hub_is_a_place_as_others_are_but_not_written(at):
    place = open_place(at("hub"))
    inner = place.below("dir")
    assert [found.name for found in place.list("dir")] == [f"dir/{found.name}" for found in inner.list()]
    assert place.find("a.wav").size == 1 and place.find("nowhere") is None and place.get_if_there("nowhere") is None
    assert inner.get("b c.flac", 2, 5) == FILES["dir/b c.flac"][2:5] and inner.find("b c.flac").size == 70_000
    assert inner.address == place.address.replace("@", "/dir@")
    for write in (lambda: place.put("x", b"x"), lambda: inner.delete("b c.flac")):
        with pytest.raises(UsageError, match="read here, and not written") as caught:
            write()
        assert "hf://buckets/" in caught.value.fix


def test_hub_says_what_opens_a_dataset(at, hub, environment):
    hub.add_dataset("org/gated", {"x.wav": b"gated"}, gated=True)
    hub.add_dataset("org/private", {"x.wav": b"private"}, private=True)
    hub.tokens, hub.tokens_without_access = {"hf_good"}, {"hf_other"}
    at("hub")

    def refusal(address):
        with pytest.raises(UsageError) as caught:
            pinned(address)
        assert "hf_" not in str(caught.value)
        return str(caught.value)

    text = refusal("hub:org/gated")
    assert (
        f"accept the terms at {hub.url}/datasets/org/gated" in text and "HF_TOKEN" in text and "hf auth login" in text
    )
    assert "private" in refusal("hub:org/private") and "HF_TOKEN" in refusal("hub:org/private")
    assert "org/absent" in refusal("hub:org/absent")
    assert "no such revision" in refusal("hub:org/na-me_1.0@nowhere")
    assert "no name of a Hub dataset" in refusal("hub:org/na--me..x")
    environment.setenv("HF_TOKEN", "hf_other")
    assert "accept the terms" in refusal("hub:org/gated") and "account of this token" in refusal("hub:org/private")
    environment.setenv("HF_TOKEN", "hf_wrong")
    assert "settings/tokens" in refusal("hub:org/gated")
    environment.setenv("HF_TOKEN", "hf_good")
    for name in ("gated", "private"):
        assert pinned(f"hub:org/{name}").read("x.wav") == name.encode()
    environment.delenv("HF_TOKEN")
    assert HubDataset("org/private", token="hf_good").get("x.wav") == b"private"


def test_hub_offline_and_unreachable(at, hub, environment, monkeypatch):
    at("hub")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="offline mode"):
        pinned("hub:org/na-me_1.0")
    monkeypatch.undo()
    monkeypatch.setattr("colabkit.io.places.hub._OPENING_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
        HubDataset("org/na-me_1.0", endpoint=f"http://127.0.0.1:{port}")


def test_hub_token_that_expires_while_reading(at, hub, environment):
    big = random.Random(2).randbytes(100_000)
    hub.add_dataset("org/expires", {"x.tar": big, "y.wav": b"small"}, private=True)
    hub.tokens = {"hf_first"}
    at("hub")
    environment.setenv("HF_TOKEN", "hf_first")
    store = pinned("hub:org/expires")
    assert store.read("y.wav") == b"small" and store.read("x.tar", 5, 10) == big[5:10]
    hub.tokens = {"hf_second"}
    assert store.read("x.tar", 10, 20) == big[10:20]  # the signed link works still
    environment.setenv("HF_TOKEN", "hf_second")  # somebody logs in again
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: store.read("y.wav"), range(40))) == {b"small"}
    hub.tokens = {"hf_third"}
    with pytest.raises(Refused) as caught:
        store.read("y.wav")
    assert "HF_TOKEN" in caught.value.fix and "hf_" not in str(caught.value) and caught.value.status == 401


def test_hub_signed_links_that_expire(environment):
    with HubServer(link_seconds=0.2) as hub:
        hub.add_dataset("org/name", {"x.tar": FILES["dir2/big.tar"]})
        environment.setenv("HF_ENDPOINT", hub.url)
        store = pinned("hub:org/name")
        for _ in range(3):
            assert store.read("x.tar", 7, 300_000) == FILES["dir2/big.tar"][7:300_000]
            assert store.read("x.tar", 9, 12) == FILES["dir2/big.tar"][9:12]
            time.sleep(0.25)
        resolved = [path for _, path, _, _ in hub.requests if "/resolve/" in path]
        assert len(resolved) == 3  # once a link, not once a read
        assert not any(status == 400 for *_, status in hub.requests)  # the token never went along


def test_hub_writes_nothing_to_disk(at, hub, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    code = f"""
from colabkit.io.places import Pinned, open_place
store = Pinned(open_place({at("hub")!r}))
print(sum(len(store.read(o.name)) for o in store.list()))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_HOME", "XDG_", "HUGGINGFACE"))}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, "HOME": os.fspath(home)},
    )
    assert done.stdout.strip() == str(sum(map(len, FILES.values()))), done.stderr
    assert not [p for p in home.rglob("*") if p.is_file()]


# ---- buckets


@pytest.mark.parametrize(("kind", "address"), [("s3", "s3://no-such-bucket/x"), ("gcs", "gs://no-such-bucket/x")])
def test_bucket_that_does_not_exist(kind, address, at):
    at(kind)
    with pytest.raises(UsageError, match="no such bucket") as caught:
        pinned(address)
    assert "no-such-bucket" in str(caught.value)
    with pytest.raises(UsageError, match="no name of a bucket"):
        pinned(address.replace("no-such-bucket", "Büro"))


@pytest.mark.parametrize(("kind", "scheme"), [("s3", "s3"), ("gcs", "gs")])
def test_bucket_that_may_not_be_read(kind, scheme, at, request, environment):
    server = request.getfixturevalue(kind)
    server.put(f"denied-{kind}", "x.wav", b"x")
    server.put(f"later-{kind}", "x.wav", b"x")
    server.deny(f"denied-{kind}")
    at(kind)
    began = time.monotonic()
    with pytest.raises(UsageError, match="right|public") as caught:
        pinned(f"{scheme}://denied-{kind}")
    assert "status 403" in str(caught.value)
    store = pinned(f"{scheme}://later-{kind}")
    server.deny(f"later-{kind}")
    with pytest.raises(UsageError, match="no right to read") as caught:
        store.read("x.wav")
    assert "Amz" not in str(caught.value) and ("s3:GetObject" if kind == "s3" else "gcloud") in caught.value.fix
    if kind == "s3":
        environment.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(UsageError, match="One of the two S3 keys is missing"):
            pinned("s3://denied-s3")
        environment.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(UsageError, match="no credentials were found") as caught:
            pinned("s3://denied-s3")
        assert "AWS_ACCESS_KEY_ID" in caught.value.fix
    assert time.monotonic() - began < 5


def test_s3_keys_of_a_profile(at, environment, tmp_path):
    address = at("s3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.delenv(name)
    path = tmp_path / "credentials"
    path.write_text("[default]\naws_access_key_id = AK\naws_secret_access_key = SECRET%x\n[sso]\nsso_session = x\n")
    environment.setenv("AWS_SHARED_CREDENTIALS_FILE", os.fspath(path))
    store = pinned(address)
    assert store.read("a.wav") == FILES["a.wav"] and b"SECRET" not in pickle.dumps(store)
    environment.setenv("AWS_PROFILE", "sso")
    with pytest.raises(UsageError, match="no keys of its own") as caught:
        pinned(address)
    assert "export-credentials --profile sso" in caught.value.fix
    path.write_text("no section = 1\n")
    with pytest.raises(UsageError, match="credentials file"):
        pinned(address)


class PublicS3(HttpServer):
    """A public bucket in the manner of S3: unsigned requests only, and its region told to anybody."""

    def answer(self, request: Request) -> Answer:
        if "authorization" in request.fields or "X-Amz-Signature" in request.target:
            return Answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
        if request.path.startswith("/elsewhere"):
            return Answer(301, {"x-amz-bucket-region": "eu-north-1"}, b"<Error><Code>PermanentRedirect</Code></Error>")
        if request.path in ("/open", "/open/"):
            listing = (
                "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>é/a b%.wav</Key><Size>5</Size><ETag>"
                "&quot;e&quot;</ETag><LastModified>2024-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
            )
            return Answer(200, {"x-amz-bucket-region": "eu-north-1"}, listing.encode())
        return Answer(200, {"ETag": '"e"'}, b"12345") if request.target == "/open/%C3%A9/a%20b%25.wav" else Answer(404)


def test_s3_public_bucket_without_keys(environment):
    with PublicS3() as server:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
            environment.delenv(name, raising=False)
        store = pinned("s3://open")
        assert store.list() == [StoredObject("é/a b%.wav", 5, "e")]
        assert store.read("é/a b%.wav", 1, 4) == b"234"
        with pytest.raises(UsageError, match="another region"):
            pinned("s3://elsewhere")
        environment.setenv("AWS_ENDPOINT_URL", "localhost:9000")
        with pytest.raises(UsageError, match="no web address"):
            pinned("s3://open")


def test_s3_names_that_cannot_be_addressed(at, s3):
    s3.put("odd-names", "x//y.wav", b"x")
    at("s3")
    with pytest.raises(DataError, match="name that cannot be used") as caught:
        pinned("s3://odd-names").list()
    assert "x//y.wav" in str(caught.value)


class GuardedGcs(HttpServer):
    """A bucket that wants a bearer token, and the server that gives tokens to a service account."""

    def __init__(self):
        super().__init__()
        self.good, self.given = {"t1"}, ["t1", "t2", "t3"]

    def answer(self, request: Request) -> Answer:
        if request.path == "/token":
            self.good = {self.given[0]}
            text = json.dumps({"access_token": self.given.pop(0), "expires_in": 3600, "token_type": "Bearer"})
            return Answer(200, {"Content-Type": "application/json"}, text.encode())
        if request.fields.get("authorization", "").removeprefix("Bearer ") not in self.good:
            return Answer(401, {}, b"{}")
        if not request.path.startswith("/storage/"):
            fields = {"ETag": '"e"', "X-Goog-Generation": "7", "Last-Modified": formatdate(usegmt=True)}
            return answer_range(request, 5, lambda start, stop: b"12345"[start:stop], fields)
        first = "pageToken" not in request.target
        page = {"items": [{"name": "a.wav" if first else "b.wav", "size": "5", "generation": "7"}]}
        return Answer(200, {}, json.dumps(page | ({"nextPageToken": "x"} if first else {})).encode())


def test_gcs_tokens_come_and_are_renewed(environment, tmp_path):
    key = tmp_path / "key.pem"
    made = subprocess.run(["openssl", "genrsa", "-out", key, "2048"], capture_output=True)
    if made.returncode:
        pytest.skip("openssl makes no key here")
    from colabkit.io.places.gcs import GcsBucket

    with GuardedGcs() as server:
        account = {
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "k",
            "private_key": key.read_text(),
            "client_email": "a@b.c",
            "client_id": "1",
            "token_uri": f"{server.url}/token",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        environment.setenv("GOOGLE_APPLICATION_CREDENTIALS", os.fspath(tmp_path / "account.json"))
        store = Pinned(GcsBucket("bucket", endpoint=server.url))
        assert [o.name for o in store.list()] == ["a.wav", "b.wav"] and store.read("a.wav") == b"12345"
        assert store.read("b.wav", 0, 2) == b"12"
        server.good = set()  # revoked before its time
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda k: store.read(("a.wav", "b.wav")[k % 2], 1, 3), range(20))) == {b"23"}
        assert len(server.given) == 1  # one new token was enough
        assert pickle.loads(pickle.dumps(store)).read("b.wav", 0, 2) == b"12"
        server.good, server.given = set(), ["wrong"]
        server.answer = lambda request: Answer(401, {}, b"{}") if request.path != "/token" else Answer(400, {}, b"{}")
        with pytest.raises(UsageError, match="credentials") as caught:
            store.read("a.wav", 1, 3)
        assert "gcloud" in caught.value.fix
    environment.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    with GuardedGcs() as server, pytest.raises(UsageError, match="no Google credentials were found"):
        Pinned(GcsBucket("bucket", endpoint=server.url))
