"""The upload button: shown by a running cell, which goes on as soon as files have come or Cancel is pressed."""

from __future__ import annotations

import pytest

from colabkit.colab.upload_widget import bare_name, files_of


def test_what_a_button_holds_in_both_generations_of_ipywidgets():
    seven = {"a.txt": {"metadata": {"name": "a.txt"}, "content": b"1"}, "b": {"content": b""}}
    eight = ({"name": "a.txt", "content": memoryview(b"1")}, {"name": "b", "content": memoryview(b"")})
    assert files_of(seven) == files_of(eight) == [("a.txt", b"1"), ("b", b"")]
    assert files_of({}) == files_of(()) == []


@pytest.mark.parametrize(
    "sent, name",
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.wav", "y.wav"),
        ("/", "upload"),
        ("", "upload"),
        ("a/..", "upload"),
        ("a\0b", "ab"),
        ("ü b.txt", "ü b.txt"),
    ],
)
def test_a_sender_cannot_choose_the_folder(sent, name):
    assert bare_name(sent) == name
