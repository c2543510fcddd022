"""Three machines that share a store and nothing else: the commands of the walk-through, each in its own process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from colabkit.io.voices import make_speakers, utterance
from colabkit.loopback.certificates import make_certificates
from colabkit.loopback.hub import HubServer
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.segment import Segment
from tests.servers.refusing_s3 import RefusingS3

SECRET, TOKEN = "the-secret-of-the-store", "hf_" + "w" * 34
SMALL = (
    "codec.name=kmeans-mel",
    "codec.fit_seconds=20",
    "codec.num_codebooks=2",
    "codec.codebook_size=16",
    "encode.piece_mib=0.5",
    "encode.quota_gib=0.02",
    "publish.shard_mb=0.5",
    "publish.test_fraction=0.5",
    "pairs.phonemes=no",
    "pairs.most_tokens=4096",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    """Loose npz files in folders of channels, as the walk-through has them."""
    folder = tmp_path_factory.mktemp("segments_cache")
    for number, speaker in enumerate(make_speakers(4, seed=5)):
        channel = folder / ("Atlas" if number % 2 else "Polaris")
        channel.mkdir(exist_ok=True)
        for turn in range(4):
            said = utterance(speaker, turn, seed=5, rate_hz=16_000)
            key = f"{speaker.name}_{turn}"
            (channel / f"{key}.npz").write_bytes(
                write_npz(
                    Segment(
                        key=key,
                        wave=said.wave,
                        rate_hz=16_000,
                        speaker=speaker.name,
                        channel=channel.name,
                        text=said.text,
                    )
                )
            )
    return folder


@pytest.fixture
def world(tmp_path):
    """A store with a certificate of its own and keys, a Hub, and what every machine is told of them."""
    certificates = make_certificates(tmp_path / "certificates", self_signed=True)
    with RefusingS3(tls=certificates.server_context(), keys={"mouse": SECRET}) as store, HubServer() as hub:
        store.make_bucket("aifiles")
        hub.writers[TOKEN] = ("me",)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "S3_", "HF_", "COLABKIT_"))}
        environment = kept | {
            "S3_ENDPOINT_URL": store.url,
            "S3_ACCESS_KEY": "mouse",
            "S3_SECRET_KEY": SECRET,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "COLABKIT_CERTIFICATES": str(tmp_path / "pinned"),
            "HOME": str(tmp_path / "home"),
            "HF_HOME": str(tmp_path / "hf"),
        }
        yield tmp_path, store, hub, environment


def colabkit(environment, *line: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "colabkit", *line],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    assert SECRET not in done.stdout and TOKEN not in done.stdout, "a secret was printed"
    return done.returncode, done.stdout


def run(world, machine: str, *more: str) -> tuple[int, str]:
    place, _, hub, environment = world
    settings = ("store.address=s3://aifiles/voices", f"publish.endpoint={hub.url}", *SMALL)
    return colabkit(
        environment,
        "run",
        "dataset",
        "--preset",
        machine,
        "--state",
        str(place / machine),
        *(word for setting in settings for word in ("--set", setting)),
        *more,
    )


def trust(world) -> None:
    _, store, _, environment = world
    code, text = colabkit(environment, "trust", store.url)
    assert code == 2 and "nobody said" in text, text
    fingerprint = re.search(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", text)[0]
    code, text = colabkit(environment, "trust", store.url, "--fingerprint", fingerprint)
    assert code == 0 and "pinned:" in text, text


def test_from_segments_to_a_dataset_that_loads(world, segments):
    place, store, hub, environment = world
    code, text = run(world, "gcp", "--set", f"segments.source={segments}")
    assert code == 2 and f"colabkit trust {store.url}" in text, text  # nobody has said that it is the right server
    trust(world)

    code, text = run(world, "gcp", "--set", f"segments.source={segments}", "--set", "upload.dry_run=yes")
    assert code == 0 and "would be sent" in text and not store.buckets["aifiles"].keys_after("voices/segments", 1), text
    code, text = run(world, "gcp", "--set", f"segments.source={segments}")
    assert code == 0 and "04_encode  skip: the machine with the GPU (preset h200) does it" in text, text
    assert len([k for k in store.buckets["aifiles"].keys_after("", 99) if k.endswith(".npz")]) == 16

    code, text = run(world, "hub", "--set", "publish.repo=me/voices")
    assert code == 2 and "holds no codes yet" in text, text  # too early
    code, text = run(world, "h200")
    assert code == 0 and "01_segments  skip: the machine that holds the recordings (preset gcp) does it" in text, text
    assert "06_publish  skip" in text
    code, text = run(world, "hub", "--set", "publish.repo=me/voices")
    assert code == 0, text
    report = json.loads((place / "hub/dataset/hub/report.json").read_text())
    assert report["metrics"]["published_rows"] == 16 and report["metrics"]["num_pairs"] > 0

    for machine, more in (
        ("gcp", ("--set", f"segments.source={segments}")),
        ("h200", ()),
        ("hub", ("--set", "publish.repo=me/voices")),
    ):
        before = dict(store.counts)
        code, text = run(world, machine, *more)  # once more: nothing is done
        assert code == 0 and "run:" not in text, text
        assert store.counts["put"] == before["put"], "nothing is written a second time"

    script = (
        "import json; from datasets import Audio, load_dataset;"
        "d = load_dataset('me/voices', split='train', streaming=True)"
        ".cast_column('audio', Audio(decode=False)); rows = list(d); r = rows[0]; "
        "print(json.dumps([len(rows), r['key'],"
        "r['speaker'], len(r['codes']), r['audio']['bytes'][:4].decode()]), flush=True);"
        "import os; os._exit(0)"  # pyarrow's threads may abort an interpreter that ends beside them
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, **hub.environment(), "HF_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    rows, key, speaker, codebooks, begin = json.loads(done.stdout.splitlines()[-1])
    assert 0 < rows < 16 and f"/{speaker}_" in key and (codebooks, begin) == (2, "fLaC")


def test_what_is_in_the_store_can_be_fetched_by_channel(world, segments):
    place, store, _, environment = world
    trust(world)
    code, text = colabkit(environment, "store", "look", "s3://aifiles/voices")
    assert code == 0 and "If-None-Match" in text and "S3_ENDPOINT_URL" in text, text
    code, text = colabkit(environment, "store", "upload", str(segments), "s3://aifiles/plain", "--limit", "10")
    # the manifest is the eleventh
    assert code == 0 and len(store.buckets["aifiles"].keys_after("plain/", 99)) == 11, text
    for more, number in (("--dry-run",), 0), (("--channel", "Atlas"), 8), ((), 10), ((), 10):
        code, text = colabkit(environment, "store", "download", "s3://aifiles/plain", str(place / "back"), *more)
        assert code == 0 and len(list((place / "back").rglob("*.npz"))) == number, text
    assert "nothing to fetch" in text
    assert all(
        p.read_bytes() == (segments / p.relative_to(place / "back")).read_bytes()
        for p in (place / "back").rglob("*.npz")
    )
    code, text = colabkit(
        environment, "store", "download", "s3://aifiles/plain", str(place / "small"), "--quota-gib", "0.0001"
    )
    assert code != 0 and "fix:" in text, text


def test_machines_without_a_store_in_common_are_told_so(world, segments):
    place, _, _, environment = world
    for machine in ("gcp", "h200", "hub"):
        code, text = colabkit(
            environment,
            "run",
            "dataset",
            "--preset",
            machine,
            "--state",
            str(place / machine),
            "--set",
            f"segments.source={segments}",
        )
        assert code == 2 and "need a store that all of them reach" in text and "fix:" in text, text
    code, text = run(world, "gcp")
    assert code == 2 and "segments.source" in text, text


def test_expired_keys_and_wrong_ones_are_told_without_the_secret(world, segments):
    _, store, _, environment = world
    trust(world)
    store.expired.add("mouse")
    code, text = run(world, "gcp", "--set", f"segments.source={segments}")
    assert code in (1, 2) and "fix:" in text and "Traceback" not in text, text
    store.expired.clear()
    environment["S3_SECRET_KEY"] = "not-the-secret-of-the-store"
    code, text = run(world, "gcp", "--set", f"segments.source={segments}")
    assert code in (1, 2) and "keys" in text and "not-the-secret" not in text, text
