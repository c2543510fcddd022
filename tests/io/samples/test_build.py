"""Indexes of whole sources: found, built once, continued after kills, the same for any workers; faults name shards."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from colabkit.core.errors import ChangedError, ColabkitError, DataError, UsageError
from colabkit.io.samples import Samples, build
from colabkit.io.samples.build import build_index
from colabkit.io.samples.index import FILE_NAME, SampleIndex
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.io.samples.source import find_source, fingerprint_sources
from colabkit.loopback.hub import HubServer
from tests.told import Told


def audio(seed: int, seconds: float = 0.1) -> bytes:
    return flac_bytes(
        np.random.default_rng(seed).integers(-9_000, 9_000, int(16_000 * seconds)).astype(np.int16), 16_000
    )


def tar_of(first: int, count: int, **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        numbers = range(first, first + count)
        files = {f"{i:03d}.flac": audio(i) for i in numbers} | {f"{i:03d}.txt": b"words %d" % i for i in numbers} | more
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def parquet_of(first: int, count: int) -> bytes:
    rows = pa.array([{"bytes": audio(i), "path": "x"} for i in range(first, first + count)])
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(
            {
                "audio": rows,
                "id": [f"{i:03d}" for i in range(first, first + count)],
                "text": [f"words {i}" for i in range(first, first + count)],
            }
        ),
        buffer,
    )
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path):
    """Six tar shards of five samples each."""
    folder = tmp_path / "data"
    folder.mkdir()
    for k in range(6):
        (folder / f"{k:05d}.tar").write_bytes(tar_of(5 * k, 5))
    return folder


class Listing:
    """Builds the index of a folder and keeps what was told, chosen and read."""

    def __init__(self, folder, parts):
        self.folder, self.parts, self.teller, self.reads = folder, parts, Told(), Counter()

    @property
    def told(self) -> list[tuple[str, str]]:
        return self.teller.left_aside

    @property
    def chosen(self) -> list[tuple]:
        return self.teller.choices

    def __call__(self, *, fails_at=None, **how) -> SampleIndex:
        self.teller = Told()
        self.reads.clear()
        source = find_source(str(self.folder))
        read = source.store.read

        def counted(name, start=0, stop=None):
            self.reads[name] += 1
            if fails_at == name:
                raise ConnectionResetError(name)
            return read(name, start, stop)

        source.store.read = counted
        return build_index(source, self.parts, teller=self.teller, **how)


@pytest.fixture
def listing(data, tmp_path):
    return Listing(data, tmp_path / "parts")


def words(index: SampleIndex) -> list[tuple[str, str]]:
    return list(zip(index.keys.to_list(), index.column("text"), strict=True))


ALL = [(f"{i:03d}", f"words {i}") for i in range(30)]


def test_the_fingerprint_of_a_source_notices_changes_without_reading(data):
    prints = [find_source(str(data)).fingerprint]
    prints.append(find_source(str(data)).fingerprint)
    os.utime(data / "00000.tar", ns=(1, 1))
    prints.append(find_source(str(data)).fingerprint)
    (data / "00005.tar").unlink()
    prints.append(find_source(str(data)).fingerprint)
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_fingerprints_of_sources_notice_a_changed_folder_and_leave_out_what_cannot_change(tmp_path):
    (tmp_path / "a.flac").write_bytes(audio(1))
    before = fingerprint_sources([str(tmp_path)])
    assert before == fingerprint_sources([str(tmp_path)]) and list(before) == [str(tmp_path)]
    (tmp_path / "b.flac").write_bytes(audio(2))
    assert fingerprint_sources([str(tmp_path)]) != before and fingerprint_sources(("voices", "hub:a/b")) == {}


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_without_what_is_needed_are_refused_with_the_columns_there_are(tmp_path, kind):
    (tmp_path / "data").mkdir()
    if kind == "tar":
        with tarfile.open(tmp_path / "data" / "0.tar", "w") as archive:
            member = tarfile.TarInfo("a.flac")
            member.size = len(audio(1))
            archive.addfile(member, io.BytesIO(audio(1)))
    else:
        table = pa.table({"audio": [{"bytes": audio(1), "path": "x"}], "spoken": ["words"]})
        pq.write_table(table, tmp_path / "data" / "0.parquet")

    def build(**how):
        source = find_source(str(tmp_path / "data"))
        return build_index(source, tmp_path / "parts", teller=Told(), needs=("text",), **how)

    with pytest.raises(DataError) as caught:
        build()
    assert ("spoken" in str(caught.value) or kind == "tar") and "columns=text=" in caught.value.fix
    if kind == "parquet":
        assert build(columns=("text=spoken",)).column("text") == ["words"]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_tars_and_parquet_files_are_read_once_each_and_come_in_order(listing, data, workers):
    index = listing(workers=workers)
    assert words(index) == ALL and listing.told == [] and dict(listing.reads) == {f"{k:05d}.tar": 1 for k in range(6)}
    assert [s.name for s in index.shards] == sorted(listing.reads) and index.address == str(data)
    assert Samples(index).read_bytes(17) == audio(17)
    for k in range(6):
        (data / f"{k:05d}.tar").unlink()
        (data / f"{k}.parquet").write_bytes(parquet_of(5 * k, 5))
    again = listing(workers=workers)
    assert words(again) == ALL and Samples(again).read_bytes(17) == audio(17)
    assert np.array_equal(again.arrays["crc32"], index.arrays["crc32"])


def test_files_come_in_pieces_and_each_sample_knows_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "FILES_A_PIECE", 4)
    for i in range(10):
        (tmp_path / f"s{i % 3}").mkdir(exist_ok=True)
        (tmp_path / f"s{i % 3}" / f"{i}.flac").write_bytes(audio(i) if i != 5 else b"broken")
    listing = Listing(tmp_path, tmp_path / ".parts")
    index = listing()
    assert index.keys.to_list() == [f"s{s}/{i}.flac" for s in range(3) for i in range(10) if i % 3 == s and i != 5]
    assert [item for item, _ in listing.told] == ["s2/5.flac"] and len(index.shards) == 10
    samples = Samples(index)
    assert all(samples.read_bytes(n) == (tmp_path / key).read_bytes() for n, key in enumerate(index.keys.to_list()))
    listing()
    assert not listing.reads and [item for item, _ in listing.told] == ["s2/5.flac"]  # told again, from what was saved


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_was_done_before_a_stop_is_not_read_again(listing, tmp_path, workers):
    undisturbed = Listing(listing.folder, tmp_path / "other")().to_bytes()
    with pytest.raises(ConnectionResetError):
        listing(fails_at="00003.tar", workers=workers)
    assert listing().to_bytes() == undisturbed
    assert not set(listing.reads) & {"00000.tar", "00001.tar", "00002.tar"} and "00003.tar" in listing.reads
    assert listing().to_bytes() == undisturbed and not listing.reads


def test_killed_at_any_file_operation_it_continues_to_the_same_end(listing, tmp_path, killer, no_fsync):
    wanted = Listing(listing.folder, tmp_path / "other")().to_bytes()
    for after in range(0, 60, 4):
        with killer(listing.parts, after) as record:
            listing(workers=0)
        assert listing(workers=0).to_bytes() == wanted
        for path in list(listing.parts.iterdir())[: after // 5]:
            path.unlink()
    assert not record["dead"]


def test_parts_that_are_torn_or_of_another_version_are_made_anew(listing, monkeypatch):
    wanted = listing().to_bytes()
    parts = sorted(listing.parts.glob("*.safetensors"))
    assert len(parts) == 6
    parts[0].write_bytes(parts[0].read_bytes()[:-1])
    parts[1].write_bytes(b"")
    parts[2].with_suffix(".json").unlink()
    parts[3].with_suffix(".json").write_text("[")
    assert listing().to_bytes() == wanted and len(listing.reads) == 4
    monkeypatch.setattr("colabkit.io.samples.index.VERSION", 99)
    listing()
    assert len(listing.reads) == 6


def test_a_changed_shard_and_other_settings_are_read_anew(listing, data):
    listing()
    (data / "00002.tar").write_bytes(tar_of(40, 5))
    assert words(listing())[10] == ("040", "words 40") and set(listing.reads) == {"00002.tar"}
    assert listing(columns=("speaker=text",)).column("speaker")[0] == "words 0" and len(listing.reads) == 6


def test_as_many_hours_as_asked_whatever_the_workers(listing, tmp_path):
    hours = 12 * 0.1 / 3_600  # 12 samples: three shards of five
    found = {}
    for workers in (0, 1, 4):
        found[workers] = Listing(listing.folder, tmp_path / f"parts{workers}")(
            workers=workers, hours=hours, seed=3
        ).to_bytes()
    assert found[0] == found[1] == found[4]
    index = SampleIndex.from_bytes(found[0], "x")
    assert len(index) == 15 and len(index.shards) == 3 and set(words(index)) < set(ALL)
    picked = {tuple(s.name for s in listing(hours=hours, seed=seed).shards) for seed in range(6)}
    assert len(picked) > 1
    assert [name for name, _, _ in listing.chosen] == ["shards"] and listing.chosen[0][1] == "3 of 6"


def test_more_hours_than_there_are_are_all_of_them(listing):
    assert sorted(words(listing(hours=5.0))) == ALL and listing.chosen == []


def test_broken_samples_are_told_and_a_source_of_nothing_else_is_refused(listing, data):
    (data / "00001.tar").write_bytes(tar_of(5, 2, **{"bad.flac": b"x", "worse.wav": b""}))
    assert len(listing()) == 27 and {item for item, _ in listing.told} == {"bad", "worse"}
    for k in range(6):
        (data / f"{k:05d}.tar").write_bytes(tar_of(0, 0, **{"bad.flac": b"x"}))
    with pytest.raises(DataError) as caught:
        listing()
    assert len(listing.told) == 6 and caught.value.where == str(data)


@pytest.mark.parametrize("workers", [0, 4])
def test_faults_of_a_shard_name_it(listing, data, workers):
    whole = (data / "00004.tar").read_bytes()
    (data / "00004.tar").write_bytes(whole[:3_000])
    with pytest.raises(DataError) as caught:
        listing(workers=workers)
    assert f"00004.tar of {data}" == caught.value.where and caught.value.fix
    (data / "00004.tar").write_bytes(whole)
    source = find_source(str(data))
    (data / "00004.tar").unlink()
    with pytest.raises(DataError) as caught:
        build_index(source, listing.parts, teller=listing.teller, workers=workers)
    assert "00004.tar" in str(caught.value.where)
    with pytest.raises(DataError) as caught:
        listing(workers=workers, columns=("speaker=txt",))
    assert "did you mean speaker=text" in caught.value.fix and caught.value.where == str(data)
    with pytest.raises(UsageError):
        listing(columns=("speeker=text",))


@pytest.fixture
def written(tmp_path):
    """Shards of the shard writer, with their index."""
    with ShardWriter(tmp_path / "written", shard_bytes=20_000) as writer:
        for i in range(12):
            writer.add(f"k{i}", audio(i), ".flac", {"speaker": f"s{i}", "who": f"w{i}"})
    assert len(writer.shards) > 2
    return Listing(tmp_path / "written", tmp_path / "parts")


def test_an_index_beside_the_data_is_taken_and_no_shard_read(written, tmp_path):
    index = written()
    assert set(written.reads) == {FILE_NAME} and written.chosen[0][1] == "taken as it is" and not written.parts.exists()
    moved = written.folder.rename(tmp_path / "moved")
    again = Listing(moved, tmp_path / "parts")()
    assert (
        again.address == str(moved)
        and again.fingerprint == index.fingerprint
        and Samples(again).read_bytes(3) == audio(3)
    )


def test_columns_of_the_settings_count_for_a_ready_index_too(written):
    assert written(columns=("speaker=who",)).column("speaker")[3] == "w3" and set(written.reads) == {FILE_NAME}
    with pytest.raises(DataError) as caught:
        written(columns=("speaker=whom",))
    assert "did you mean speaker=who" in caught.value.fix


def test_an_index_that_lacks_a_shard_is_built_anew_and_one_that_names_too_many_refused(written):
    extra = written.folder / "99999.tar"
    extra.write_bytes(tar_of(0, 2))
    assert (
        len(written()) == 14 and written.chosen[0][:2] == ("index", "built anew") and "1 shards" in written.chosen[0][2]
    )
    extra.unlink()
    shard = written.folder / "00001.tar"
    whole = shard.read_bytes()
    for change, got in (
        (lambda: shard.write_bytes(whole[:-512]), f"{len(whole) - 512} bytes"),
        (shard.unlink, "missing"),
    ):
        change()
        with pytest.raises(DataError) as caught:
            written()
        assert caught.value.got == got and "00001.tar" in caught.value.where and FILE_NAME in caught.value.fix
    (written.folder / FILE_NAME).unlink()  # what the error says helps
    assert len(written()) < 12


def test_a_ready_index_of_another_version_or_damaged_is_told_with_its_name(written, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("colabkit.io.samples.index.VERSION", 99)
        with pytest.raises(ChangedError) as caught:
            written()
        assert FILE_NAME in caught.value.where and "delete" in caught.value.fix
    path = written.folder / FILE_NAME
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError) as caught:
        written()
    assert FILE_NAME in caught.value.where and str(written.folder) in caught.value.where


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def test_a_split_of_the_hub_is_found_pinned_indexed_and_read(hub, tmp_path):
    names = ["clean/train.100/0000.parquet", "clean/train.100/0001.parquet", "clean/test/0000.parquet"]
    sha = hub.add_dataset(
        "org/name", {name: parquet_of(5 * k, 5) for k, name in enumerate(names)} | {"README.md": b"# no card"}
    )
    source = find_source("hub:org/name/clean/train.100")
    hub.add_dataset("org/name", {"README.md": b"emptied"})
    index = build_index(source, tmp_path, teller=Told())
    assert index.address == f"hub:org/name@{sha}" and [s.name for s in index.shards] == names[:2]
    assert words(index) == ALL[:10] and Samples(index).read_bytes(7) == audio(7)


def test_a_repository_of_scripts_is_read_from_the_copy_the_hub_keeps(hub, tmp_path):
    hub.add_dataset("org/script", {"script.py": b"x", "data.zip": b"x"})
    hub.add_dataset("org/script", {"en/partial-train/0000.parquet": parquet_of(0, 3)}, revision="refs/convert/parquet")
    index = build_index(find_source("hub:org/script/en/train"), tmp_path, teller=Told())
    assert words(index) == ALL[:3]


def test_what_the_hub_does_not_have_is_told(hub):
    hub.add_dataset("org/nothing", {"data.csv": b"x"})
    hub.add_dataset("org/two", {"en/train/0000.parquet": parquet_of(0, 1), "de/train/0000.parquet": parquet_of(0, 1)})
    with pytest.raises(UsageError) as caught:
        find_source("hub:org/nothing")
    assert "no files" in caught.value.what and "convert" not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        find_source("hub:org/two")
    assert "de/train, en/train" in caught.value.expected
    with pytest.raises(ColabkitError):
        find_source("hub:org/absent")


def test_a_mono_file_written_by_others_is_read_as_it_is(tmp_path):
    soundfile.write(tmp_path / "a b.ogg", np.zeros(16_000), 16_000)
    listing = Listing(tmp_path, tmp_path / ".parts")
    assert listing().keys.to_list() == ["a b.ogg"] and listing().hours == pytest.approx(1 / 3_600)
