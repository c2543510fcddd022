"""The step as a run asks for it: its settings in bytes, facts for the report, and its ends that are not the end."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

from colabkit.core.errors import Rehearsed, Stopped, UsageError
from colabkit.io.places import Folder
from colabkit.pipelines.dataset.config import LOOPBACK, CodecConfig, Config, EncodeConfig, StoreConfig
from colabkit.pipelines.dataset.encode.step import encode_store
from colabkit.pipelines.dataset.recipe import STEPS
from colabkit.pipelines.dataset.store.commit import read_codes
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from tests.pipelines.dataset.publish.sets import make_segment, make_store

ENCODE = EncodeConfig(piece_mib=0.05, quota_gib=0.01)
CONFIG = Config(codec=CodecConfig(fit_seconds=2.0, num_codebooks=2, codebook_size=8), encode=ENCODE)


@pytest.fixture
def encode(tmp_path):
    """Return a function that encodes one store of 24 segments, each time as another machine's run."""
    store = Folder(make_store(tmp_path / "store", 24, codes=False))

    def encode(machine: str, config: Config = CONFIG, **changed):
        config = replace(config, encode=replace(config.encode, **changed))
        with opened(tmp_path / machine, config) as run:
            return encode_store(config, store, run, can_commit=True)

    encode.store = store
    return encode


@contextmanager
def opened(folder, config: Config):
    folder.mkdir()
    with Run(
        pipeline="dataset",
        steps=STEPS,
        config=config,
        preset="demo",
        run_folder=open_run(folder, "dataset", "a"),
        say=lambda line: None,
    ) as run:
        yield run


def test_the_report_says_what_lies_in_the_store_however_often_it_is_asked(encode):
    done = encode("one")
    tables = [table for _, table in read_codes(encode.store)]
    seconds = sum(make_segment(i).seconds for i in range(24))
    assert done["encoded_segments"] == sum(table.num_rows for table in tables) == 24 and done["left_aside"] == 0
    assert done["pieces"] == len(tables) > 3 and done["encoded_seconds"] == pytest.approx(seconds, abs=0.01)
    assert done["codes_bytes"] == sum(
        found.size
        for found in encode.store.list("codes")
        if found.name.count("/") == 1 and found.name.endswith(".parquet")
    )
    assert encode("two") == done


def test_a_share_alone_is_not_the_end(encode):
    with pytest.raises(Stopped, match="done its share") as caught:
        encode("one", share="0/2")
    done, of = (int(word) for word in caught.value.got.split() if word.isdigit())
    assert 0 < done < of and "run the same again" in caught.value.fix
    assert encode("two", share="1/2")["pieces"] == of


def test_a_dry_run_says_how_many_are_left(encode):
    encode("one", limit=5)
    with pytest.raises(Rehearsed, match=r"(\d+) of 24 segments would be encoded") as caught:
        encode("two", dry_run=True)
    assert 0 < int(str(caught.value).split("Dry run: ")[1].split()[0]) <= 19
    assert "encode.dry_run=no" in caught.value.fix


def test_a_cluster_is_not_sent_to_a_store_on_loopback(encode):
    with pytest.raises(UsageError, match="do not reach a store on loopback") as caught:
        encode("one", replace(CONFIG, store=StoreConfig(address=LOOPBACK)), cluster_workers=2)
    assert "s3://" in caught.value.expected and not list(encode.store.list("codes"))
