"""Names of objects: what may be one, which are listed, and the errors of objects that are not as meant."""

from __future__ import annotations

import pytest

from colabkit.core.errors import DataError
from colabkit.io.places.names import check_name, check_range, is_listed, joined
from tests.io.places.conftest import pinned


def test_s3_names_that_cannot_be_addressed(at, s3):
    s3.put("odd-names", "x//y.wav", b"x")
    at("s3")
    with pytest.raises(DataError, match="name that cannot be used") as caught:
        pinned("s3://odd-names").list()
    assert "x//y.wav" in str(caught.value)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", ".", "a/./b", "../a", "a/..", "a\0b"])
def test_names_that_not_every_place_takes(name):
    with pytest.raises(DataError, match="name that cannot be used") as caught:
        check_name(name, "s3://bucket")
    assert "s3://bucket" in str(caught.value) and caught.value.fix
    assert check_name("a b/ü.wav..", "s3://bucket") == "a b/ü.wav.."


def test_prefixes_are_joined():
    assert joined("a/", "/b/") == "a/b" and joined("", "b") == "b" and joined("a", "") == "a" and joined("", "/") == ""


@pytest.mark.parametrize(
    ("name", "prefix", "shown"),
    [
        ("a/b.wav", "", True),
        (".a/b.wav", "", False),
        ("a/.b.wav", "", False),
        (".a/b.wav", ".a", True),  # hidden above the prefix is no matter
        (".a/.b.wav", ".a", False),
        ("a/folder/", "", False),  # as consoles mark folders
        ("a", "a", False),
    ],
)
def test_what_listings_show(name, prefix, shown):
    assert is_listed(name, prefix) is shown


def test_ranges_that_cannot_be():
    check_range("x", 3, 3)
    check_range("x", 3, None)
    for start, stop in ((-1, 5), (4, 3)):
        with pytest.raises(ValueError, match=f"no range {start}..{stop}"):
            check_range("x", start, stop)
