"""Sources of a run: recordings made or found, segments that lie here, and fingerprints that change with them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.places import Folder
from colabkit.pipelines.dataset import sources
from colabkit.pipelines.dataset.config import SegmentsConfig, StoreConfig
from tests.pipelines.dataset.publish.sets import make_store
from tests.told import Told

VOICES = SegmentsConfig(num_channels=2, seconds_per_channel=4.0)


def of_store(tmp_path) -> SimpleNamespace:
    """Return what a step sees that reads the store."""
    return SimpleNamespace(store=StoreConfig(address=str(tmp_path / "store")), run_folder=tmp_path)


def test_voices_are_made_once_and_come_with_what_is_said(tmp_path):
    pytest.importorskip("espeakng_loader")
    found = sources.find_recordings(VOICES, tmp_path, Told())
    assert [r.key for r in found] == ["Atlas/morning", "Meridian/morning"] and all(r.lines for r in found)
    assert [r.identity for r in sources.find_recordings(VOICES, tmp_path, Told())] == [r.identity for r in found]
    made = {path: path.read_bytes() for path in tmp_path.rglob("*.flac")}
    assert len(made) == 2
    (tmp_path / "recordings" / "transcript.csv").unlink()  # written last: a kill came before it
    again = sources.find_recordings(VOICES, tmp_path, Told())
    assert [(r.key, r.lines) for r in again] == [(r.key, r.lines) for r in found]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.flac")} == made


def test_recordings_of_a_folder_are_described_as_the_settings_say(radio, tmp_path):
    config = SegmentsConfig(
        source=str(radio), name_regex="(?P<speaker>[^/]+)/morning", transcripts=str(radio / "transcript.csv")
    )
    found = sources.find_recordings(config, tmp_path, Told())
    assert [(r.key, r.speaker) for r in found] == [(f"{c}/morning", c) for c in ("Atlas", "Meridian", "Polaris")]
    assert all(r.lines for r in found)


def test_segments_lie_where_they_were_cut_or_where_they_were(tmp_path):
    assert sources.segments_of(VOICES, tmp_path) == tmp_path / "segments"
    there = SegmentsConfig(kind="segments", source=str(tmp_path / "mine"))
    assert sources.segments_of(there, tmp_path) == tmp_path / "mine"


@pytest.mark.parametrize("source", ["s3://bucket/segments", "hub:me/voices", "/nowhere/at/all"])
def test_segments_to_upload_must_lie_here(source):
    config = SegmentsConfig(kind="segments", source=source)
    for refused in (sources.require_folder, sources.fingerprint_source):
        with pytest.raises(UsageError, match="must lie in a folder of this machine") as caught:
            refused(config)
        assert caught.value.got == source and "store.address" in caught.value.fix


def test_the_source_and_its_tables_are_in_the_fingerprint(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"1")
    (tmp_path / "known.csv").write_text("recording,speaker\na,x\n")
    config = SegmentsConfig(source=str(tmp_path / "in"), metadata=str(tmp_path / "known.csv"))
    first = sources.fingerprint_source(config)
    assert first == sources.fingerprint_source(config) and len(first) == 2
    (tmp_path / "known.csv").write_text("recording,speaker\na,y\n")
    second = sources.fingerprint_source(config)
    (tmp_path / "in" / "b.wav").write_bytes(b"2")
    third = sources.fingerprint_source(config)
    assert len({str(one) for one in (first, second, third)}) == 3


def test_segments_of_the_store_are_known_by_their_names_and_what_is_in_them(tmp_path):
    make_store(tmp_path / "store", 6, codes=False)
    config, store = of_store(tmp_path), Folder(tmp_path / "store")
    first = sources.fingerprint_uploaded(config)
    assert first == sources.fingerprint_uploaded(config) and list(first) == ["segments/ of the store"]
    name = next(found.name for found in store.list("segments"))
    content = store.get(name)
    store.put("segments/more.npz", content)
    more = sources.fingerprint_uploaded(config)
    store.delete("segments/more.npz")
    store.put(name, content + b" ")
    assert len({str(one) for one in (first, more, sources.fingerprint_uploaded(config))}) == 3


def test_codes_of_the_store_are_known_when_all_are_there(tmp_path):
    make_store(tmp_path / "store", 6, codes=False)
    config = of_store(tmp_path)
    with pytest.raises(UsageError, match="holds no codes yet") as caught:
        sources.fingerprint_encoded(config)
    assert "run 04_encode first" in caught.value.fix
    make_store(tmp_path / "store", 6)
    first = sources.fingerprint_encoded(config)
    assert first == sources.fingerprint_encoded(config) and list(first) == ["codes/ of the store"]
    make_store(tmp_path / "store", 7)
    assert sources.fingerprint_encoded(config) != first
