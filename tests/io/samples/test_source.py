"""Sources of samples: what an address names, which objects of it hold samples, and whether it changed."""

from __future__ import annotations

import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.samples.source import find_source, is_folder


@pytest.mark.parametrize(
    "files, kind, names",
    [
        ({"a.wav": 1, "b/c.FLAC": 1, "d.txt": 1}, "files", ["a.wav", "b/c.FLAC"]),
        ({"a.tar": 1, "a.wav": 1}, "tar", ["a.tar"]),
        ({"x/a.parquet": 1, "a.tar": 1, "a.wav": 1}, "parquet", ["x/a.parquet"]),
        ({"A.TAR": 1, ".hidden/b.tar": 1}, "tar", ["A.TAR"]),
    ],
)
def test_sources_are_found_by_what_they_hold(files, kind, names, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = find_source(str(tmp_path))
    assert found.kind == kind and [o.name for o in found.objects] == names and found.ready is None


def test_sources_without_audio_are_told_with_the_way_out(tmp_path):
    with pytest.raises(UsageError):
        find_source(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no audio"):
        find_source(str(tmp_path))
    (tmp_path / "x.tar.gz").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        find_source(str(tmp_path))
    assert "unpack" in caught.value.fix and caught.value.got == "x.tar.gz"
    with pytest.raises(UsageError, match="common_voice"):  # before anything is asked of the network
        find_source("hub:mozilla-foundation/common_voice_17_0")
    assert (
        is_folder("/a")
        and is_folder("a b")
        and not is_folder("hub:a/b")
        and not is_folder("s3://a")
        and not is_folder("gs://a")
    )
