"""Addresses: what each names, and what was meant by one that names nothing."""

from __future__ import annotations

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.places.addresses import split_scheme, without_user
from tests.io.places.conftest import pinned


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3:bucket/x", "s3://bucket/x"),
        ("S3://bucket/x", "s3://bucket/x"),
        ("s3a://bucket/x", "s3://bucket/x"),
        ("gcs://b/x", "gs://b/x"),
        ("s4://bucket/x", "s3://bucket/x"),
        ("azure://c/x", "copy the data"),
        ("hf://datasets/org/name", "hub:org/name"),
        ("hub://org/name", "hub:org/name"),
        ("HUB:org/name", "hub:org/name"),
        ("https://huggingface.co/datasets/org/name/tree/main?x=SECRET", "hub:org/name"),
        ("file:///data/x", "/data/x"),
        ("https://user:SECRET@example.org/x.tar", "copy the data"),
    ],
)
def test_other_schemes_are_told_what_was_meant(address, words):
    with pytest.raises(UsageError) as caught:
        pinned(address)
    assert words in caught.value.fix and "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("s3://bucket/a b", ("s3", "bucket/a b")),
        ("gs://bucket", ("gs", "bucket")),
        ("hub:org/name@main", ("hub", "org/name@main")),
        ("ftp://host/x", ("ftp", "host/x")),
        ("hub://org/name", ("hub?", "org/name")),
        ("GS://bucket", ("gs?", "bucket")),
        ("C:/data", ("", "C:/data")),
        ("12:30 talk/x", ("", "12:30 talk/x")),
        ("/data/s3:x", ("", "/data/s3:x")),
    ],
)
def test_schemes_are_told_from_folders(address, parts):
    assert split_scheme(address) == parts


def test_what_may_be_secret_is_left_out():
    assert without_user("https://me:SECRET@host/x?X-Sig=SECRET") == "https://host/x"
    assert without_user("s3://bucket/a@b") == "s3://bucket/a@b"
