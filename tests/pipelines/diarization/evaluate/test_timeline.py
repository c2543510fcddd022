"""Pictures: they are written, whatever there is to show, and the same input gives the same bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest

from colabkit.pipelines.diarization.evaluate.timeline import draw_history, draw_timeline
from colabkit.pipelines.diarization.rttm import Turn

REFERENCE = [Turn(0, 2, "ann"), Turn(1.5, 4, "bob")]
FOUND = [Turn(0, 1.8, "speaker01"), Turn(1.6, 4, "speaker02"), Turn(4, 4.5, "speaker03")]


@pytest.fixture
def wave():
    return np.sin(np.arange(80_000, dtype=np.float32))


def pixels(path):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


def test_a_timeline_is_a_picture_of_sane_size(tmp_path, wave):
    path = tmp_path / "timeline.png"
    draw_timeline(path, wave, FOUND, REFERENCE, "title")
    assert path.read_bytes().startswith(b"\x89PNG") and 5_000 < path.stat().st_size < 300_000
    height, width, _ = pixels(path).shape
    assert 300 < height < 1_000 and 800 < width < 2_000


def test_speakers_that_match_have_one_colour_and_a_stranger_another(tmp_path, wave):
    path = tmp_path / "timeline.png"
    draw_timeline(path, wave, FOUND, REFERENCE)
    shown = pixels(path).reshape(-1, 3)
    counts = {
        colour: int((shown == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(1).sum())
        for colour in ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
    }
    assert counts["#0072b2"] > 2_000 and counts["#e69f00"] > 2_000  # ann and bob, in reference and answer
    assert counts["#009e73"] > 300 and counts["#cc79a7"] == 0  # the third voice; nobody is the fourth


@pytest.mark.parametrize(
    "found, reference",
    [
        (FOUND, None),
        ([], REFERENCE),
        ([], []),
        ([], None),
        (FOUND, []),
        ([Turn(i, i + 1, f"s{i}") for i in range(12)], REFERENCE),
        ([Turn(0, 1, "ann"), Turn(2, 3, "bob")], [Turn(2, 3, "ann")]),
    ],
)
def test_anything_can_be_shown(tmp_path, wave, found, reference):
    draw_timeline(tmp_path / "x.png", wave, found, reference)
    assert (tmp_path / "x.png").stat().st_size > 3_000


@pytest.mark.parametrize("num_samples", [1, 319, 5_999, 6_001, 1_000_003])
def test_waves_of_any_length_can_be_shown(tmp_path, num_samples):
    draw_timeline(tmp_path / "x.png", np.ones(num_samples, np.float32), FOUND)
    assert (tmp_path / "x.png").exists()


ROWS = [{"step": s, "frame_loss": 1 / s, "speaker_loss": 2 / s, "der": 0.5 / s} for s in (10, 20, 30)]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]])
def test_a_history_is_a_picture(tmp_path, rows):
    draw_history(tmp_path / "x.png", rows)
    assert 5_000 < (tmp_path / "x.png").stat().st_size < 200_000


def test_the_same_input_gives_the_same_bytes(tmp_path, wave):
    for name in ("a", "b"):
        draw_timeline(tmp_path / f"{name}.png", wave, FOUND, REFERENCE, "title")
        draw_history(tmp_path / f"{name}h.png", ROWS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "ah.png").read_bytes() == (tmp_path / "bh.png").read_bytes()
    assert b"Software" not in (tmp_path / "a.png").read_bytes()  # a version of matplotlib is not in the picture
