"""Speak text with espeak-ng's C library: PCM samples plus the sample at which every word and phoneme starts."""

from __future__ import annotations

import sys

import pytest

from colabkit.core.errors import StateError
from colabkit.io.voices import espeak


def test_a_missing_package_is_named_with_its_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    espeak._forget_copy()
    try:
        with pytest.raises(StateError) as caught:
            espeak.synthesize("hello", "en")
        assert caught.value.fix == "pip install espeakng-loader"
    finally:
        espeak._forget_copy()


def test_a_broken_library_is_reported_and_not_kept(monkeypatch, tmp_path):
    import espeakng_loader

    broken = tmp_path / "libespeak-ng.so"
    broken.write_bytes(b"not a library")
    espeak._forget_copy()
    with monkeypatch.context() as patch:
        patch.setattr(espeakng_loader, "get_library_path", lambda: str(broken))
        with pytest.raises(StateError, match="does not work"):
            espeak.synthesize("hello", "en")
    assert espeak.synthesize("hello", "en")[0]


def test_data_in_a_deep_folder_is_found(monkeypatch, tmp_path):
    import espeakng_loader

    wanted = espeak.synthesize("hello there", "en")
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path(), target_is_directory=True)
    espeak._forget_copy()
    with monkeypatch.context() as patch:
        library_path = espeakng_loader.get_library_path()
        patch.setattr(espeakng_loader, "get_library_path", lambda: library_path)
        patch.setattr(espeakng_loader, "__file__", str(deep / "__init__.py"))
        assert espeak.synthesize("hello there", "en") == wanted
    espeak._forget_copy()
