"""The dataset pipeline's steps on a store that is a folder: what the walk-through of three machines does not show."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from colabkit.cli import main
from colabkit.io.audio import read_audio, write_wav
from colabkit.io.samples.index import FILE_NAME
from colabkit.pipelines.dataset.segments.npz import read_npz

SMALL = (
    "segments.num_channels=2",
    "segments.seconds_per_channel=20",
    "codec.fit_seconds=20",
    "codec.num_codebooks=2",
    "codec.codebook_size=16",
    "encode.piece_mib=0.5",
    "listen.num_segments=1",
    "publish.shard_mb=0.3",
    "publish.repo=",
    "segments.layout=flac",
)
DONE = {"01_segments", "02_profile", "03_upload", "04_encode", "05_listen", "06_publish", "07_pairs"}


def run(state: Path, *more: str, settings: tuple[str, ...] = SMALL, store: str = "") -> int:
    chosen = (*settings, f"store.address={store or state / 'store'}")
    return main(["run", "dataset", "--state", str(state), *(w for s in chosen for w in ("--set", s)), *more])


def encode_alone(state: Path, store: Path, *settings: str) -> int:
    """Encode what a store holds, with these settings too; the recordings are elsewhere."""
    more = (word for setting in (*settings, "segments.source=") for word in ("--set", setting))
    return run(state, "--from", "encode", "--to", "encode", *more, store=str(store))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    assert run(state) == 0
    return state


def test_without_a_hub_the_dataset_is_a_folder_that_loads(finished):
    datasets = pytest.importorskip("datasets")
    folder = finished / "dataset/demo/06_publish/dataset"
    card = (folder / "README.md").read_text()
    assert card == (finished / "dataset/demo/06_publish/README.md").read_text() and "kmeans-mel" in card
    rows = list(
        datasets.load_dataset(str(folder), split="train", streaming=True).cast_column(
            "audio", datasets.Audio(decode=False)
        )
    )
    metrics = json.loads((finished / "dataset/demo/report.json").read_text())["metrics"]
    assert 0 < len(rows) <= metrics["published_rows"] == metrics["encoded_segments"] == metrics["num_segments"]
    assert all(len(row["codes"]) == 2 and row["audio"]["bytes"][:4] == b"fLaC" for row in rows)


def test_shards_are_sent_with_their_index_and_read_by_ranges(finished):
    names = sorted(p.name for p in (finished / "store/segments").iterdir())
    assert {"UPLOADED.parquet", FILE_NAME} <= set(names) and any(n.endswith(".tar") for n in names)
    assert not list((finished / "store").rglob("*.npz")), "codes are no second copy of the audio"


def test_apply_gives_codes_and_what_they_sound_like(finished, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        write_wav(tmp_path / f"{name}.wav", rng.standard_normal(16_000).astype(np.float32) * 0.1, 16_000)
    command = ["apply", "dataset", "--state", str(finished), "--output", str(tmp_path / "out")]
    assert main([*command, str(tmp_path / "one.wav"), str(tmp_path / "two.wav")]) == 0
    segment = read_npz((tmp_path / "out/one.npz").read_bytes(), "one.npz")
    assert segment.codes.shape == (2, 50) and segment.codes.max() < 16 and segment.rate_hz == 16_000
    assert abs(len(read_audio(tmp_path / "out/two.wav", rate_hz=16_000)) - 16_000) <= 320
    assert main([*command[:-1], str(tmp_path / "early"), "--run", "none", str(tmp_path / "one.wav")]) != 0


def test_whole_segments_with_codes_where_they_are_asked_for(finished, tmp_path):
    assert encode_alone(tmp_path, _copy(finished, tmp_path, codes=False), "encode.output=npz", "encode.limit=3") == 0
    whole = sorted((tmp_path / "copy/encoded").rglob("*.npz"))
    assert len(whole) >= 3
    segment = read_npz(whole[0].read_bytes(), whole[0].name)
    assert segment.codes.shape[0] == 2 and segment.seconds > 1 and segment.speaker


def test_a_second_machine_takes_the_codec_that_the_first_has_fitted(finished, tmp_path, capsys):
    copy = _copy(finished, tmp_path, codes=False)
    assert encode_alone(tmp_path, copy) == 0
    assert "it was fitted on this store before" in capsys.readouterr().out
    first, second = (next(p.glob("codes/*.parquet")).name for p in (finished / "store", copy))
    assert first == second, "the same codec, the same segments, the same names"


def test_another_codec_does_not_mix_with_what_is_there(finished, tmp_path, capsys):
    copy = _copy(finished, tmp_path)
    assert encode_alone(tmp_path, copy, "codec.seed=1") == 1
    told = capsys.readouterr().err
    assert "fix:" in told and "Traceback" not in told


def test_a_dry_run_encodes_and_publishes_nothing(finished, tmp_path, capsys):
    copy = _copy(finished, tmp_path, codes=False)
    assert encode_alone(tmp_path, copy, "encode.dry_run=yes") == 0
    assert re.search(r"Dry run: \d+ of \d+ segments would be encoded", capsys.readouterr().err)
    assert not list(copy.glob("codes/*.parquet"))


def test_new_channels_are_added_without_encoding_the_old_ones_again(tmp_path, capsys):
    assert run(tmp_path / "made", "--to", "segments", "--set", "segments.layout=npz") == 0
    there = (*SMALL, "segments.kind=segments", f"segments.source={tmp_path / 'made/dataset/demo/01_segments/segments'}")
    store = tmp_path / "store"
    assert run(tmp_path / "first", "--to", "encode", settings=(*there, "upload.channels=Atlas"), store=str(store)) == 0
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in store.glob("codes/*.parquet")}
    capsys.readouterr()
    assert run(tmp_path / "second", "--to", "encode", settings=there, store=str(store)) == 0
    said = capsys.readouterr().out
    after = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in store.glob("codes/*.parquet")}
    assert before and before.items() < after.items(), "what was there stays, and something was added"
    manifest = json.loads((store / "codes/MANIFEST.json").read_text())
    assert manifest["num_rows"] == len(list((store / "segments").rglob("*.npz"))) and "to do: " in said


@pytest.mark.slow
def test_workers_of_a_ray_cluster_encode_the_same(finished, tmp_path):
    pytest.importorskip("ray")
    copy = _copy(finished, tmp_path, codes=False)
    settings = (
        *SMALL,
        f"store.address={copy}",
        "segments.source=",
        "encode.cluster_workers=2",
        "encode.quota_gib=0.05",
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "colabkit",
            "run",
            "dataset",
            "--state",
            str(tmp_path),
            "--from",
            "encode",
            "--to",
            "encode",
            *(w for s in settings for w in ("--set", s)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "2 workers on 1 nodes" in done.stdout, done.stdout + done.stderr
    alone, shared = (
        {p.name: p.read_bytes() for p in place.glob("codes/*.parquet")} for place in (finished / "store", copy)
    )
    assert alone == shared, "whoever encodes, the codes are the same"


def test_no_step_imports_torch_for_the_fitted_codec(finished):
    script = "import sys; from colabkit.cli import main; code = main(sys.argv[1:]); print('torch' in sys.modules, code)"
    settings = (*SMALL, f"store.address={finished / 'store'}")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            script,
            "run",
            "dataset",
            "--state",
            str(finished),
            *(w for s in settings for w in ("--set", s)),
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.splitlines()[-1] == "False 0", done.stdout + done.stderr


def _copy(finished: Path, place: Path, *, codes: bool = True) -> Path:
    import shutil

    target = place / "copy"
    shutil.copytree(finished / "store", target)
    if not codes:
        shutil.rmtree(target / "codes")
    return target
