"""The house in figures: logical lines are statements, and modules have tests of their own where one looks for them."""

from __future__ import annotations

import pytest

from tests.house.mirrors import ROOT, logical_lines, mirrored, place_of_test, room_of, table

LEAST_SHARE = 0.9  # of the modules


@pytest.mark.parametrize(
    "text, number",
    [
        ("", 0),
        ("# a comment\n\n", 0),
        ('"""One\n\nstring."""\n', 1),
        ("a = (1,\n     2)\nb = a\n", 2),
        ("if a:\n    b = 1\nelse:\n    b = 2\n", 4),
        ("a = 1; b = 2\n", 1),
        ("def f(x,\n      y):\n    return x\n", 2),
    ],
)
def test_a_logical_line_is_a_statement_however_it_is_broken(tmp_path, text, number):
    (tmp_path / "a.py").write_text(text)
    assert logical_lines(tmp_path / "a.py") == number


@pytest.mark.parametrize(
    "module, room, test",
    [
        ("cli.py", "front door", "tests/test_cli.py"),
        ("core/files.py", "core", "tests/core/test_files.py"),
        ("io/samples/parquet/pages.py", "io/samples", "tests/io/samples/parquet/test_pages.py"),
        ("io/audio/__init__.py", "io/audio", "tests/io/audio/test_audio.py"),
        ("pipelines/asr/train/loop.py", "pipelines/asr", "tests/pipelines/asr/train/test_loop.py"),
        ("pipelines/__init__.py", "pipelines", "tests/pipelines/test_pipelines.py"),
    ],
)
def test_rooms_and_the_places_of_tests(module, room, test):
    path = ROOT / "colabkit" / module
    assert path.is_file() and room_of(path) == room and place_of_test(path) == ROOT / test


def test_modules_have_tests_of_their_own(capsys):
    print(table())
    found = mirrored(sorted((ROOT / "colabkit").rglob("*.py")))
    missing = sorted(str(place_of_test(path).relative_to(ROOT)) for path, is_there in found.items() if not is_there)
    assert 1 - len(missing) / len(found) >= LEAST_SHARE, missing
    assert "logical lines" in capsys.readouterr().out
