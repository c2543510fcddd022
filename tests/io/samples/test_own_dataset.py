"""A user's own dataset as a source: the same rows have the same address, others another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import colabkit
from colabkit.core import files
from colabkit.core.errors import ChangedError, ColabkitError, DataError, UsageError
from colabkit.io.audio import write_wav
from colabkit.io.samples import Samples, own_dataset
from colabkit.io.samples.build import build_index
from colabkit.io.samples.own_dataset import as_address
from colabkit.io.samples.source import find_source
from tests.told import Told

datasets = pytest.importorskip("datasets")
NUM = 12


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "colabkit"


@pytest.fixture
def recordings(tmp_path) -> list[str]:
    paths = []
    for number in range(NUM):
        wave = np.random.default_rng(number).normal(size=8_000 + number).astype(np.float32) * 0.1
        paths.append(os.fspath(tmp_path / f"{number}.wav"))
        write_wav(Path(paths[-1]), wave, 16_000)
    return paths


def dataset_of(paths: list[str]):
    names = [Path(path).stem for path in paths]
    speakers = [f"s{int(name) % 4}" for name in names]
    columns = {"audio": paths, "text": [f"text {name}" for name in names], "speaker": speakers}
    return datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))


def silent(text: str) -> None:
    """Say nothing."""


def index_of(address: str, folder: Path):
    told = Told()
    index = build_index(find_source(address), folder, teller=told)
    assert told.problems == {}
    return index


def test_its_rows_are_read_as_those_of_any_source(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(own_dataset, "_ROWS", 5)
    monkeypatch.setattr(own_dataset, "_FILE_BYTES", 1)  # several files
    said = []
    address = as_address(dataset_of(recordings), said.append)
    index = index_of(address, tmp_path / "parts")
    assert index.columns["text"].to_list() == [f"text {i}" for i in range(NUM)] and len(index.shards) == 3
    samples = Samples(index)
    assert [samples.read_bytes(i) for i in range(NUM)] == [Path(path).read_bytes() for path in recordings]
    assert len(said) == 1 and "12 rows" in said[0] and address in said[0]


def test_the_same_rows_have_the_same_address_and_are_the_same_data_when_written_again(recordings, cache):
    dataset, said = dataset_of(recordings), []
    address = as_address(dataset, said.append)
    found, fingerprint = find_source(address).fingerprint, files.quick_fingerprint(address)
    assert as_address(dataset_of(recordings), said.append) == address and len(said) == 1, "nothing is written twice"
    shutil.rmtree(cache)  # as on tomorrow's machine
    again = dataset.select(range(NUM - 1, -1, -1)).select(range(NUM - 1, -1, -1))
    assert as_address(again, silent) == address
    assert (find_source(address).fingerprint, files.quick_fingerprint(address)) == (found, fingerprint)
    assert [path.name for path in cache.iterdir()] == [Path(address).name]


def test_other_rows_have_another_address(recordings, tmp_path):
    dataset = dataset_of(recordings)
    addresses = [
        as_address(one, silent)
        for one in (
            dataset,
            dataset.select(range(NUM - 1)),
            dataset.shuffle(seed=1),
            dataset.remove_columns("speaker"),
            dataset.map(lambda row: {"text": row["text"] + "."}),
        )
    ]
    write_wav(Path(recordings[3]), np.full(8_003, 0.25, np.float32), 16_000)  # of the same length
    addresses.append(as_address(dataset_of(recordings), silent))
    assert len(set(addresses)) == 6


def test_what_a_list_holds_and_what_is_none():
    assert as_address("s3://bucket/prefix") == "s3://bucket/prefix" and as_address(3) == 3
    dataset = datasets.Dataset.from_dict({"text": ["a", "b"]})
    found = as_address([dataset, "voices"], silent)
    assert isinstance(found, list) and Path(found[0]).is_dir() and found[1] == "voices"


def test_what_cannot_be_opened_by_number_is_refused(recordings):
    dataset = dataset_of(recordings)
    for one, words in (
        (dataset.to_iterable_dataset(), "hub:ORG/NAME/CONFIG/SPLIT"),
        (datasets.DatasetDict(train=dataset), 'dataset["train"]'),
    ):
        with pytest.raises(UsageError) as caught:
            as_address([one])
        assert words in caught.value.fix


def test_audio_that_is_gone_is_told_and_leaves_nothing(recordings, cache):
    dataset = dataset_of(recordings)
    os.unlink(recordings[7])
    with pytest.raises(DataError, match="gone"):
        as_address(dataset, silent)
    assert not cache.exists() or not list(cache.iterdir())


def test_a_disk_that_is_full_is_told_and_leaves_nothing(recordings, cache, monkeypatch):
    import pyarrow.parquet

    def full(writer, table):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", full)
    with pytest.raises(ColabkitError, match="space|full"):
        as_address(dataset_of(recordings), silent)
    assert list(cache.iterdir()) == []


def test_a_run_goes_on_with_the_same_dataset_and_notices_another(recordings, tmp_path):
    def run(dataset):
        config = colabkit.configure("asr", "demo", {"data.source": dataset}, say=silent)
        with colabkit.start("asr", config, run="mine", state=os.fspath(tmp_path / "state"), say=said.append) as opened:
            opened.do("01")

    said = []
    run(dataset_of(recordings))
    said.clear()
    run(dataset_of(recordings))
    assert any("skip" in line for line in said)
    with pytest.raises(ChangedError, match="source"):
        run(dataset_of(recordings[1:]))
