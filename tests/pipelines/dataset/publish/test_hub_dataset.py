"""Publishing to a loopback Hub by real clients: read once, loaded in one line, killed, continued, raced, refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from colabkit.core.errors import StateError, Stopped, UsageError
from colabkit.core.versions.differences import cut_by_content
from colabkit.io.places import Folder
from colabkit.io.places.http.patience import Unreachable
from colabkit.loopback.hub import HubServer
from colabkit.loopback.hub_repos import make_file
from colabkit.pipelines.dataset.publish.hub_dataset import HubSettings, PublishSettings, publish_dataset
from tests.pipelines.dataset.publish.conftest import READER, TOKEN
from tests.pipelines.dataset.publish.sets import CountingObjects, decode, make_codes, make_segment, make_store
from tests.servers.busy_hub import Quota
from tests.servers.clients import run_client
from tests.servers.faults import FaultProxy
from tests.told import Told

ROOT = Path(__file__).resolve().parents[4]
SMALL = PublishSettings(shard_bytes=60_000, test_fraction=0.3)


def publish(
    hub, store: Path, scratch: Path, repo: str = "me/voices", *, token: str = TOKEN, settings=SMALL, codes=True, **how
):
    teller = Told(**({"stop": how.pop("stop")} if "stop" in how else {}))
    segments = CountingObjects(store / "segments")
    told = HubSettings(token=token, endpoint=how.pop("endpoint", hub.url if hub else ""), **how.pop("patience", {}))
    published = publish_dataset(
        segments,
        Folder(store) if codes else None,
        repo,
        settings=settings,
        hub=told,
        scratch=scratch,
        teller=teller,
        **how,
    )
    return published, segments, teller.said, teller.left_aside


def source_bytes(store: Path) -> int:
    return sum(p.stat().st_size for p in (store / "segments").rglob("*") if p.suffix in (".npz", ".tar"))


def files_of(hub, repo: str = "me/voices") -> dict:
    return hub.repos[repo].find("main").files


LOAD = """
import json, sys
import datasets
from datasets import Audio, load_dataset
told = {}
for streaming in (True, False):
    for split in ("train", "test"):
        dataset = load_dataset("me/voices", split=split, streaming=streaming)
        told.setdefault("features", str(dataset.features))
        rows = list(dataset.cast_column("audio", Audio(decode=False)))
        told[f"{split} {streaming}"] = [[r["key"], r["audio"]["bytes"].hex(), r["audio"]["path"], r["codes"], r["text"],
                                         r["speaker"], r["channel"], r["seconds"]] for r in rows]
print(json.dumps(told))
"""


@pytest.mark.parametrize("layout, num_codebooks", [("npz", 1), ("tar", 3)])
def test_a_dataset_loads_in_one_line_as_it_was_recorded_and_encoded(hub, tmp_path, layout, num_codebooks):
    store = make_store(tmp_path / "store", 48, layout=layout, num_codebooks=num_codebooks)
    published, segments, said, problems = publish(hub, store, tmp_path / "scratch")
    assert not problems and published.num_rows == 48 and published.private and hub.repos["me/voices"].private
    told = run_client(LOAD, hub.environment() | {"HF_TOKEN": TOKEN}, tmp_path)
    assert "Audio(sampling_rate=16000" in told["features"]
    assert told["train True"] == told["train False"] and told["test True"] == told["test False"]
    rows = told["train True"] + told["test True"]
    assert len(told["train True"]) == published.splits["train"] > len(told["test True"]) == published.splits["test"] > 0
    assert {r[5] for r in told["train True"]}.isdisjoint({r[5] for r in told["test True"]})
    by_key = {row[0]: row for row in rows}
    assert len(by_key) == 48
    for i in range(48):
        segment = make_segment(i)
        key, audio, path, codes, text, speaker, channel, seconds = by_key[segment.key]
        assert np.abs(decode(bytes.fromhex(audio)) - segment.wave).max() <= 1 / 32768 and path == f"{key}.flac"
        wanted = make_codes(i, len(segment.wave), num_codebooks)
        assert codes == (wanted[0] if num_codebooks == 1 else wanted).tolist()
        assert (text, speaker, channel, seconds) == (segment.text, segment.speaker, segment.channel, segment.seconds)
    read = sum(segments.read_bytes.values())
    assert 0.85 * source_bytes(store) <= read <= source_bytes(store)
    again, segments, _, _ = publish(hub, store, tmp_path / "elsewhere")
    assert (again.num_made, again.num_commits, again.splits) == (0, 0, published.splits) and not segments.read_bytes
    assert not list((tmp_path / "scratch").rglob("*.parquet"))


def test_without_codes_all_segments_are_published(hub, tmp_path):
    store = make_store(tmp_path / "store", 10, codes=False)
    with pytest.raises(UsageError, match="split_by=none"):
        publish(hub, store, tmp_path / "scratch", codes=False)
    loose = PublishSettings(shard_bytes=60_000, split_by="none")
    published, segments, _, problems = publish(hub, store, tmp_path / "scratch", settings=loose, codes=False)
    assert (
        published.splits == {"train": 10} and sum(segments.read_bytes.values()) == source_bytes(store) and not problems
    )
    import pyarrow.parquet as pq

    paths = [hub._keeper.contents / f.sha256 for name, f in files_of(hub).items() if name.endswith(".parquet")]
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    assert {row["key"]: row["speaker"] for row in rows} == {
        make_segment(i).key: make_segment(i).speaker for i in range(10)
    }
    assert all("codes" not in row and row["rate_hz"] == 16_000 and row["text"] for row in rows)


def test_codes_alone_are_published_without_reading_audio(hub, tmp_path):
    store = make_store(tmp_path / "store", 10)
    published, segments, _, _ = publish(
        hub, store, tmp_path / "scratch", settings=PublishSettings(with_audio=False, test_fraction=0)
    )
    assert published.splits == {"train": 10} and not segments.read_bytes


def test_segments_that_cannot_be_read_are_left_out_and_counted(hub, tmp_path):
    store = make_store(tmp_path / "store", 12)
    names = [make_segment(i).key for i in range(12)]
    (store / "segments" / f"{names[3]}.npz").unlink()
    (store / "segments" / f"{names[5]}.npz").write_bytes(b"PK\x03\x04 no zip at all")
    published, _, said, problems = publish(hub, store, tmp_path / "scratch")
    assert published.num_left_out == 2 and published.num_rows == 10 and {p[0] for p in problems} == {names[3], names[5]}
    card = hub._keeper.contents / files_of(hub)["README.md"].oid
    assert "Left out" in card.read_text() and any("2 segments left out" in line for line in said)
    told = run_client(
        "import json\nfrom datasets import load_dataset\n"
        "print(json.dumps({'n': sum(load_dataset('me/voices', split=s).num_rows for s in ('train', 'test'))}))",
        hub.environment() | {"HF_TOKEN": TOKEN},
        tmp_path,
    )
    assert told == {"n": 10}


def test_a_changed_object_is_not_published_with_the_codes_of_the_old(hub, tmp_path):
    store = make_store(tmp_path / "store", 24, layout="tar")
    shard = next((store / "segments").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    place = content.index(b"fLaC") + 2000
    content[place] ^= 1
    shard.write_bytes(content)
    published, _, _, problems = publish(hub, store, tmp_path / "scratch")
    assert published.num_left_out == 1 and "checksum" in problems[0][1]


def run_worker(
    hub, store: Path, scratch: Path, log: Path, settings: dict, records: Path | str = ""
) -> subprocess.Popen:
    environment = {**os.environ, **hub.environment(), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.pipelines.dataset.publish.worker",
            str(store),
            str(scratch),
            str(log),
            hub.url,
            TOKEN,
            "me/voices",
            json.dumps(settings),
            str(records),
        ],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_anywhere_no_finished_shard_is_made_again(hub, tmp_path):
    store, log = make_store(tmp_path / "store", 130), tmp_path / "log"
    settings, rng, kills = {"shard_bytes": 20_000, "test_fraction": 0.3}, random.Random(3), 0
    while True:
        before = len(log.read_text().splitlines()) if log.exists() else 0
        worker = run_worker(hub, store, tmp_path / "scratch", log, settings)
        wanted = before + rng.randint(1, 60)
        while worker.poll() is None and (len(log.read_text().splitlines()) if log.exists() else 0) < wanted:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        if worker.poll() is None and kills < 5:
            os.kill(worker.pid, signal.SIGKILL)
            worker.communicate()
            kills += 1
            continue
        out, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, err
        break
    events = [json.loads(line) for line in log.read_text().splitlines()]
    kept: set[str] = set()
    for event in events:
        assert event.get("making") not in kept  # what is kept is not made again
        kept |= {event["kept"]} if "kept" in event else set()
    making = Counter(event["making"] for event in events if "making" in event)
    assert kills >= 3 and sum(making.values()) <= len(kept) + 2 * kills  # two at once are in hand
    uploads = Counter(path for method, path, _, _ in hub.requests if method == "PUT" and "/uploads/" in path)
    assert max(uploads.values()) == 1 or sum(uploads.values()) <= len(uploads) + 2 * kills
    with HubServer(folder=tmp_path / "undisturbed") as other:  # the same work without kills gives the same bytes
        other.writers = hub.writers
        publish(other, store, tmp_path / "scratch-2", settings=PublishSettings(**settings))
        names = lambda server: {name: f.sha256 for name, f in files_of(server).items() if name.endswith(".parquet")}  # noqa: E731
        assert names(hub) == names(other)
        assert 0 <= len(names(hub)) - len(kept) <= kills  # killed after it was kept, before it could say so
        card = lambda server: server.repos["me/voices"].find("main").files["README.md"].oid  # noqa: E731
        assert card(hub) == card(other)


def test_a_lost_machine_goes_on_from_the_records_in_the_store(hub, tmp_path):
    store, log = make_store(tmp_path / "store", 60), tmp_path / "log"
    settings = {"shard_bytes": 20_000, "test_fraction": 0.0}
    worker = run_worker(hub, store, tmp_path / "scratch", log, settings, tmp_path / "records")
    while not log.exists() or sum('"kept"' in line for line in log.read_text().splitlines()) < 5:
        assert worker.poll() is None, worker.communicate()
        time.sleep(0.005)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    shutil.rmtree(tmp_path / "scratch")
    num_kept = len(list((tmp_path / "records").glob("*/*.json")))
    published, _, said, _ = publish(
        hub, store, tmp_path / "new machine", settings=PublishSettings(**settings), records=Folder(tmp_path / "records")
    )
    assert num_kept >= 5 and published.num_made == published.num_shards - num_kept and published.num_rows == 60


class Forgetful(HubServer):
    """A Hub that drops what was uploaded and not committed."""

    def forget(self):
        committed = {f.sha256 for repo in self.repos.values() for c in repo.commits.values() for f in c.files.values()}
        for sha256 in set(self._large) - committed:
            del self._large[sha256]


def test_what_the_hub_dropped_is_made_again(hub, tmp_path):
    store, count = make_store(tmp_path / "store", 30), []
    with Forgetful() as forgetful:
        forgetful.writers = hub.writers
        with pytest.raises(Stopped):
            publish(forgetful, store, tmp_path / "scratch", workers=1, stop=lambda: count.append(1) or len(count) > 12)
        uploaded = len(forgetful._large)
        assert uploaded >= 2
        forgetful.forget()
        published, _, said, _ = publish(forgetful, store, tmp_path / "scratch")
        assert published.num_made == published.num_shards and any("dropped" in line for line in said)
        assert published.num_rows == 30


def test_a_stop_keeps_what_is_uploaded(hub, tmp_path):
    store, count = make_store(tmp_path / "store", 30), []
    with pytest.raises(Stopped):
        publish(hub, store, tmp_path / "scratch", workers=1, stop=lambda: count.append(1) or len(count) > 12)
    kept = len(list((tmp_path / "scratch").rglob("uploaded/*/*.json")))
    assert kept >= 2 and not [n for n in files_of(hub) if n.endswith(".parquet")]
    published, _, _, _ = publish(hub, store, tmp_path / "scratch")
    assert published.num_made == published.num_shards - kept


def test_commits_are_few_and_name_what_is_uploaded(hub, tmp_path):
    store = make_store(tmp_path / "store", 150)
    settings = PublishSettings(shard_bytes=1, split_by="none", with_audio=False)  # a shard a segment
    published, _, _, _ = publish(hub, store, tmp_path / "scratch", settings=settings)
    assert published.num_shards == 150 and published.num_commits == 3
    assert len(hub.repos["me/voices"].commits) == 4  # one came with the repository


def test_more_data_leaves_full_shards_and_everybody_in_their_split(hub, tmp_path):
    store = make_store(tmp_path / "store", 60, layout="tar")
    publish(hub, store, tmp_path / "scratch")
    before = {name: f.sha256 for name, f in files_of(hub).items() if name.startswith("data/")}
    make_store(tmp_path / "store", 90, layout="tar")  # the same ones, and thirty more behind them
    published, segments, said, _ = publish(hub, store, tmp_path / "scratch")
    after = {name: f.sha256 for name, f in files_of(hub).items() if name.startswith("data/")}
    assert not set(before) & set(after) and published.num_rows == 90  # the old plan's folder is gone
    kept = set(before.values()) & set(after.values())
    assert len(kept) >= 0.5 * len(before) and published.num_made == len(after) - len(kept)


def test_an_authors_card_stays(hub, tmp_path):
    store = make_store(tmp_path / "store", 12)
    publish(hub, store, tmp_path / "scratch")
    repo = hub.repos["me/voices"]
    text = (hub._keeper.contents / files_of(hub)["README.md"].oid).read_text()
    mine = text.replace("pretty_name: voices", "pretty_name: My voices\nlicense: cc-by-4.0")
    mine = mine.replace("# voices\n", "# Mine\n\nAbout.\n")
    hub._put(repo, {**files_of(hub), "README.md": make_file(mine.encode(), large_bytes=1 << 20)}, "main")
    publish(hub, store, tmp_path / "scratch", settings=PublishSettings(shard_bytes=60_000, test_fraction=0))
    text = (hub._keeper.contents / files_of(hub)["README.md"].oid).read_text()
    assert "pretty_name: My voices" in text and "license: cc-by-4.0" in text and "# Mine\n\nAbout." in text
    assert text.count("colabkit: begin") == 1 and "split: test" not in text


@pytest.mark.parametrize(
    "repo, token, hint",
    [
        ("me/voices", "", "HF_TOKEN"),
        ("me/voices", "hf_expired", "does not accept"),
        ("me/voices", READER, "tester/voices"),
        ("other/voices", TOKEN, "publish.repo=me/voices"),
        ("other/taken", TOKEN, "publish.repo=me/taken"),
        ("other/hidden", TOKEN, "publish.repo=me/hidden"),
        ("voices", TOKEN, "ORG/NAME"),
        ("me/a--b", TOKEN, "ORG/NAME"),
    ],
)
def test_refusals_say_what_mends_them_and_nothing_secret(hub, tmp_path, repo, token, hint):
    store = make_store(tmp_path / "store", 4)
    hub.writers["hf_other"] = ("other",)
    hub.add_dataset("other/taken", {"README.md": b"theirs"})
    hub.add_dataset("other/hidden", {"README.md": b"theirs"}, private=True)
    with pytest.raises(UsageError) as caught:
        publish(hub, store, tmp_path / "scratch", repo, token=token)
    assert hint in str(caught.value) and caught.value.fix
    assert not any("/uploads/" in path for _, path, _, _ in hub.requests if path.startswith("/uploads"))
    told = str(caught.value) + repr(caught.value) + repr(caught.value.__cause__) + repr(HubSettings(token=TOKEN))
    assert TOKEN not in told and READER not in told and "hf_expired" not in told
    assert hub.repos["other/taken"].find("main").files.keys() == {"README.md"}


def test_a_repository_that_appears_in_between_is_taken_as_it_is(hub, tmp_path):
    store = make_store(tmp_path / "store", 6)

    class Appearing(HubServer):
        def _create(self, request, token):
            # somebody of the lab was faster
            public = {**json.loads(request.body), "visibility": "public", "private": False}
            super()._create(replace(request, body=json.dumps(public).encode()), token)
            return super()._create(request, token)

    with Appearing() as appearing:
        appearing.writers = hub.writers
        # what is to be private is not sent there
        with pytest.raises(UsageError, match="public one of this name") as caught:
            publish(appearing, store, tmp_path / "scratch", "lab/voices")
        assert "publish.private=no" in caught.value.fix and not any(
            method == "PUT" for method, *_ in appearing.requests
        )
        published, _, _, _ = publish(appearing, store, tmp_path / "scratch", "lab/voices", patience={"private": False})
        assert not published.private and published.num_rows == 6


class Racing(HubServer):
    """A Hub on which somebody else commits just before each of the first commits of ours arrives."""

    races = 0

    def _commit(self, request, repo, commit, path):
        if self.races < 3:
            self.races += 1
            self._put(
                repo,
                {**repo.find("main").files, f"notes-{self.races}.md": make_file(b"theirs", large_bytes=99)},
                "main",
            )
        return super()._commit(request, repo, commit, path)


def test_what_others_commit_meanwhile_stays(hub, tmp_path):
    store = make_store(tmp_path / "store", 12)
    with Racing() as racing:
        racing.writers = hub.writers
        published, _, _, _ = publish(racing, store, tmp_path / "scratch")
        files = files_of(racing)
        assert {"notes-1.md", "notes-2.md", "notes-3.md", "README.md"} <= files.keys() and published.num_commits == 1
        assert [status for _, path, _, status in racing.requests if "/commit/" in path] == [412, 412, 412, 200]


def test_two_machines_that_publish_the_same_end_with_one_dataset(hub, tmp_path):
    store, faults = make_store(tmp_path / "store", 40), []

    def one(k: int) -> None:
        try:
            publish(hub, store, tmp_path / f"scratch-{k}")
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=one, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again, _, _, _ = publish(hub, store, tmp_path / "scratch-3")
    assert not faults and again.num_made == 0 and again.num_commits == 0 and again.num_rows == 40


def test_a_storm_of_429_and_faults_is_waited_out(hub, tmp_path):
    store = make_store(tmp_path / "store", 20)
    hub.api_quota, hub.commit_quota = Quota(3, 1.0), Quota(1, 1.0, name="commits", with_retry_after=True)
    with FaultProxy(hub.url, seed=5, resets=0.08, refusals=0.08, truncations=0.05) as proxy:
        published, segments, _, _ = publish(hub, store, tmp_path / "scratch", endpoint=proxy.url)
    assert published.num_rows == 20 and hub.api_quota.refused >= 1 and proxy.counts["resets"] and proxy.counts["429"]
    # nothing is read or made again for a fault of the Hub
    assert sum(segments.read_bytes.values()) <= source_bytes(store)


def test_a_quota_longer_than_the_deadline_is_sat_out_or_told(hub, tmp_path):
    store = make_store(tmp_path / "store", 4)
    hub.commit_quota = Quota(0, 3600)
    with pytest.raises(Unreachable) as caught:
        publish(hub, store, tmp_path / "scratch", patience={"deadline_seconds": 2.0, "quota_seconds": 10.0})
    assert "wait" in caught.value.fix
    hub.commit_quota = Quota(0, 4)
    threading.Timer(2.0, lambda: setattr(hub, "commit_quota", None)).start()
    published, segments, said, _ = publish(
        hub, store, tmp_path / "scratch", patience={"deadline_seconds": 2.0, "quota_seconds": 10.0}
    )
    assert any("waiting" in line for line in said) and published.num_rows == 4 and not segments.read_bytes


def test_a_dry_run_sends_nothing(hub, tmp_path):
    store = make_store(tmp_path / "store", 12)
    published, segments, said, _ = publish(hub, store, tmp_path / "scratch", dry_run=True, token="")
    assert (
        published.num_rows == 12
        and not hub.requests
        and not segments.read_bytes
        and any("dry run" in line for line in said)
    )


def test_without_a_repository_the_dataset_is_a_folder(tmp_path):
    store = make_store(tmp_path / "store", 20)
    from colabkit.pipelines.dataset.publish.facts import CardSettings

    for number_made in (True, False):
        published, segments, _, _ = publish(
            None, store, tmp_path / "scratch", "", output=tmp_path / "out", card=CardSettings(with_durations_plot=True)
        )
        assert bool(published.num_made) == number_made and bool(segments.read_bytes) == number_made
    cut = next((tmp_path / "out").rglob("*.parquet"))
    cut.write_bytes(cut.read_bytes()[:-1])
    assert publish(None, store, tmp_path / "scratch", "", output=tmp_path / "out")[0].num_made == 1
    shutil.rmtree(tmp_path / "out" / ".colabkit")  # as a kill before the first commit leaves it
    assert publish(None, store, tmp_path / "scratch", "", output=tmp_path / "out")[0].num_made == 0
    assert (tmp_path / "out" / "durations.png").read_bytes()[:4] == b"\x89PNG"
    told = run_client(
        "import json, sys\nfrom datasets import load_dataset, Audio\n"
        "d = load_dataset(sys.argv[1], split='train', streaming=True).cast_column('audio', Audio(decode=False))\n"
        "print(json.dumps({'keys': [r['key'] for r in d]}))",
        {},
        tmp_path,
        str(tmp_path / "out"),
    )
    assert len(told["keys"]) == published.splits["train"]


def test_a_disk_smaller_than_a_shard_is_told_before_anything_is_made(hub, tmp_path):
    store = make_store(tmp_path / "store", 4)
    small = tmp_path / "small disk"
    small.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(small)]).returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        with pytest.raises(StateError, match="too little free disk") as caught:
            publish(hub, store, small)
        assert "make a shard" in str(caught.value) and not list(small.rglob("*.parquet"))
        published, _, _, _ = publish(hub, store, tmp_path / "scratch")  # elsewhere it goes on
        assert published.num_rows == 4
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_incomplete_codes_are_refused(hub, tmp_path):
    store = make_store(tmp_path / "store", 4)
    (store / "codes" / "MANIFEST.json").unlink()
    with pytest.raises(StateError, match="not all there"):
        publish(hub, store, tmp_path / "scratch")
    assert not hub.requests


def test_shards_are_made_for_streaming(hub, tmp_path):
    import pyarrow.parquet as pq

    store = make_store(tmp_path / "store", 12)
    publish(hub, store, tmp_path / "scratch")
    for name, stored in files_of(hub).items():
        if name.endswith(".parquet"):
            path = hub._keeper.contents / stored.sha256
            file = pq.ParquetFile(path)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == stored.sha256
            assert (b"content_defined_chunking" in file.metadata.metadata) is bool(cut_by_content({}))
            assert stored.size < SMALL.shard_bytes + (1 << 14)
            group = file.metadata.row_group(0)
            assert group.total_byte_size < 100 << 20 and group.column(0).has_offset_index


def test_the_records_of_one_hub_do_not_speak_for_another(hub, tmp_path):
    store = make_store(tmp_path / "store", 10)
    records = Folder(tmp_path / "records")
    first, _, _, _ = publish(hub, store, tmp_path / "scratch", records=records)
    other, _, said, _ = publish(hub, store, tmp_path / "scratch", "lab/voices", records=records)
    assert other.num_made == other.num_shards == first.num_made and not any("dropped" in line for line in said)
    with HubServer() as empty:  # another one at another port, under the same name: its lack is noticed
        empty.writers = hub.writers
        third, _, said, _ = publish(empty, store, tmp_path / "scratch", records=records)
        assert third.num_rows == 10 and third.num_made == third.num_shards and any("dropped" in line for line in said)
    assert first.card.startswith("---") and "load_dataset" in first.card and TOKEN not in first.card
