"""Notebook 01 trains from the Hub, S3 and Google Cloud Storage: real clients, real servers, faults between."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path

import boto3
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from colabkit.core.config import with_settings
from colabkit.core.errors import ColabkitError
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.launch import start
from colabkit.loopback.hub import HubServer
from colabkit.pipelines.diarization.config import demo
from tests.servers.faults import FaultProxy
from tests.servers.gcs import GcsServer
from tests.servers.s3 import S3Server

ROOT = Path(__file__).resolve().parents[4]
CARD = (
    b"---\nconfigs:\n- config_name: clean\n  data_files:\n"
    b"  - split: train.100\n    path: clean/train.100/*.parquet\n---\n"
)
NUM_SPEAKERS, NUM_EACH = 12, 3


@pytest.fixture(scope="module")
def utterances(request):
    """Return (key, speaker, flac) of a few speakers made of buzz."""
    from tests.pipelines.diarization.conftest import buzz

    return [
        (f"{100 + i}-{j}", str(100 + i), flac_bytes(buzz(4.0, f0_hz=95.0 + 13 * i, seed=10 * i + j), 16_000))
        for i in range(NUM_SPEAKERS)
        for j in range(NUM_EACH)
    ]


def parquet_shards(utterances, num_shards: int = 3) -> list[bytes]:
    """Write them as the Hub's LibriSpeech is: audio struct, numeric speaker, text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards = []
    for part in np.array_split(np.arange(len(utterances)), num_shards):
        chosen = [utterances[i] for i in part]
        table = pa.table(
            {
                "file": [f"{key}.flac" for key, _, _ in chosen],
                "audio": [{"bytes": flac, "path": f"{key}.flac"} for key, _, flac in chosen],
                "text": ["BUZZ"] * len(chosen),
                "speaker_id": [int(who) for _, who, _ in chosen],
                "id": [key for key, _, _ in chosen],
            }
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=5)
        shards.append(buffer.getvalue())
    return shards


def tar_shards(utterances, folder: Path) -> dict[str, bytes]:
    """Write them as colabkit's shard writer does; returns every file, the index among them."""
    with ShardWriter(folder, shard_bytes=400_000) as writer:
        for key, who, flac in utterances:
            writer.add(key, flac, ".flac", {"speaker": who})
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def hub(utterances, monkeypatch):
    with HubServer() as server, FaultProxy(server.url, resets=0.03, truncations=0.03, refusals=0.02) as proxy:
        files = {f"clean/train.100/{n:04d}.parquet": shard for n, shard in enumerate(parquet_shards(utterances))}
        server.add_dataset("openslr/librispeech_asr", {"README.md": CARD, **files})
        for name, value in {**server.environment(), "HF_ENDPOINT": proxy.url}.items():
            monkeypatch.setenv(name, value)
        yield server, "hub:openslr/librispeech_asr/clean/train.100"


@pytest.fixture
def s3(utterances, monkeypatch, tmp_path):
    with S3Server() as server:
        for name, content in tar_shards(utterances, tmp_path / "s3").items():
            if name.endswith(".tar"):  # without the index: it is built
                server.put("voices", f"set one/{name}", content)
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server, "s3://voices/set one"


@pytest.fixture
def gcs(utterances, monkeypatch, tmp_path):
    with GcsServer() as server:
        for name, content in tar_shards(utterances, tmp_path / "gcs").items():
            server.put("voices", f"train/{name}", content)
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server, "gs://voices/train"


def run_notebook(source: str, state: Path) -> tuple[str, dict]:
    """Run notebook 01 as papermill would, few steps; returns what it printed and its report."""
    notebook = copy.deepcopy(nbformat.read(ROOT / "notebooks" / "01_streaming_diarization.ipynb", as_version=4))
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    cell.source += f"\nSTATE = {str(state)!r}\nSPEECH_SOURCE = {source!r}\nTRAIN_STEPS = '8'\nLARGEST_DER = 9.0"
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "notebooks")}}
    ).execute()
    text = "".join(
        o.text for c in notebook.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream"
    )
    return text, json.loads((state / "diarization" / "demo" / "report.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hub", "s3", "gcs"])
def test_notebook_01_trains_from_a_remote_source_and_stores_no_audio(kind, request, tmp_path):
    server, address = request.getfixturevalue(kind)
    text, report = run_notebook(address, tmp_path / "state")
    assert report["state"] == "done" and report["metrics"]["train_steps"] == 8
    splits = sum(report["metrics"][f"num_{s}_speakers"] for s in ("train", "validation", "test"))
    assert splits == NUM_SPEAKERS and not report["problems"]
    stored = [p for p in (tmp_path / "state").rglob("*") if p.suffix in (".flac", ".tar", ".parquet")]
    assert stored == [] and "speech.materialise" in text
    listing = json.loads((tmp_path / "state/diarization/demo/01_speech/speech.json").read_text())
    described = listing["sources"][0]
    assert described["samples"] == NUM_SPEAKERS * NUM_EACH and described["source"] == address
    if kind == "hub":
        assert "@" in described["address"], "the commit is pinned"


def small(address: str, state: Path, *settings: str):
    config = with_settings(
        demo(),
        [
            f"speech.source={address}",
            "speech.max_hours=0.02",
            "train.steps=10",
            "train.effective_batch=4",
            "train.checkpoint_every_steps=2",
            "train.validate_every_steps=5",
            "train.tracker=none",
            "train.num_validation_mixes=1",
            "model.hidden_size=16",
            "model.embedding_size=8",
            *settings,
        ],
    )
    return start("diarization", config, preset="demo", run="a", state=str(state), say=lambda text: None)


def test_a_run_continues_with_the_commit_it_was_begun_with(hub, utterances, tmp_path):
    server, address = hub
    with small(address, tmp_path) as run:
        run.do("01_speech")
    files = {f"clean/train.100/{n:04d}.parquet": shard for n, shard in enumerate(parquet_shards(utterances[:20]))}
    server.add_dataset("openslr/librispeech_asr", {"README.md": CARD, **files})  # main moves on under the run
    with small(address, tmp_path) as run:
        run.do("01_speech")
        run.do("02_train")
        assert run.report.data["metrics"]["train_steps"] == 10


def test_a_gated_dataset_without_a_token_is_refused_before_anything_starts(hub, utterances, tmp_path):
    server, _ = hub
    shard = parquet_shards(utterances, 1)[0]
    server.add_dataset("org/gated", {"README.md": CARD, "clean/train.100/0.parquet": shard}, gated=True)
    with pytest.raises(ColabkitError) as caught, small("hub:org/gated/clean/train.100", tmp_path) as run:
        run.do("01_speech")
    assert "org/gated" in str(caught.value) and "HF_TOKEN" in str(caught.value) and "accept" in str(caught.value)


def test_a_shard_that_vanishes_stops_the_run_and_leaves_it_good(s3, tmp_path):
    server, address = s3
    with small(address, tmp_path) as run:
        run.do("01_speech")
    name, client = "set one/00000.tar", boto3.client("s3")
    content = client.get_object(Bucket="voices", Key=name)["Body"].read()
    client.delete_object(Bucket="voices", Key=name)
    with pytest.raises(ColabkitError) as caught, small(address, tmp_path) as run:
        run.do("02_train")
    assert "00000.tar" in str(caught.value) and "voices" in str(caught.value) and caught.value.fix
    server.put("voices", name, content)
    with small(address, tmp_path) as run:
        run.do("02_train")
        assert run.report.data["metrics"]["train_steps"] == 10
