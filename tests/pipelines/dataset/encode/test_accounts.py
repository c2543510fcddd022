"""Items are settled once, uploaded whole where that is wanted, and a piece is committed when most of it is good."""

from __future__ import annotations

import pytest

from colabkit.core.errors import DataError, UsageError
from tests.pipelines.dataset.encode.small_codec import fill
from tests.pipelines.dataset.encode.small_store import same


def test_most_of_a_piece_broken_is_an_error_and_mended_it_goes_on(place):
    expected = fill(place.source, 30, longest=3000)

    def broken(payload, name, columns):
        raise ValueError("no such library")

    with pytest.raises(DataError, match="segments of a piece cannot be used"):
        place.encode(read_segment=broken)
    assert not any("codes/manifest" in name for name in place.store.content)
    assert place.encode().is_finished and same(place.codes(), expected)


def test_full_segments_with_codes(place):
    expected = fill(place.source, 60)

    def write(segment):
        return segment.key.encode() + b"\0" + segment.codes.tobytes()

    done = place.encode(output_format="npz", write_npz=write)
    assert done.is_finished and same(place.codes(), expected)
    written = {
        name.removeprefix("encoded/").removesuffix(".npz"): content
        for name, (content, _) in place.store.content.items()
        if name.startswith("encoded/")
    }
    assert written == {key: key.encode() + b"\0" + codes.tobytes() for key, codes in expected.items()}
    assert max(n for name, n in place.store.puts.items() if name.startswith("encoded/")) == 1
    with pytest.raises(UsageError, match="needs a writer"):
        place.encode(output_format="npz")
