"""Pictures: what is drawn is what the sizing and the history say, and the same bytes each time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from colabkit.pipelines.asr.config import demo
from colabkit.pipelines.asr.configure import plots
from colabkit.pipelines.asr.workload import workload
from colabkit.training.sizing.choose import size
from colabkit.training.sizing.chosen import Measured
from colabkit.training.sizing.devices import GIB, MIB, find


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Return a function that draws, looks at the picture, and returns its axes."""
    figures, save = [], plots.save_figure

    def keep(figure, path):
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "save_figure", keep)

    def draw(act, *what):
        paths = [tmp_path / "one.png", tmp_path / "two.png"]
        for path in paths:
            act(path, *what)
        assert paths[0].read_bytes() == paths[1].read_bytes()
        with Image.open(paths[0]) as picture:
            assert picture.format == "PNG" and np.ptp(np.asarray(picture.convert("L"))) > 100
        return figures[0].axes

    return draw


def measured(num_samples, seconds, peak_bytes):
    return Measured(num_samples=num_samples, seconds=seconds, peak_bytes=peak_bytes)


def sized(device, *measured):
    return replace(
        size(workload(demo()), device=device, lengths=[1.0, 5.0, 20.0], effective_batch=64), measured=measured
    )


SMALL = replace(find("T4"), total_bytes=500 * MIB, usable_bytes=500 * MIB, context_bytes=0)


@pytest.mark.parametrize("device, unit, name", [(find("T4"), GIB, "GiB"), (SMALL, MIB, "MiB")])
def test_memory_is_drawn_as_it_is_predicted_and_measured(drawn, device, unit, name):
    sizing = sized(device, measured(4, 5.0, 100 * MIB), measured(9, 20.0, None))
    data = sizing.figure_data()
    memory, at_once = drawn(plots.draw_memory, sizing)
    lines = {line.get_label(): line for line in memory.lines}
    np.testing.assert_allclose(lines["predicted"].get_ydata(), np.array(data["predicted_bytes"]) / unit)
    np.testing.assert_allclose(lines["limit"].get_ydata(), data["limit_bytes"] / unit)
    assert lines["measured"].get_xdata() == [5.0], "where memory ran out there is nothing to show"
    np.testing.assert_allclose(lines["measured"].get_ydata(), (100 * MIB + device.context_bytes) / unit)
    np.testing.assert_array_equal(at_once.lines[0].get_ydata(), data["at_once"])
    assert memory.get_ylabel() == name and device.name in memory.get_title(loc="left")


def test_where_nothing_was_measured_nothing_is_said_of_it(drawn):
    memory, _ = drawn(plots.draw_memory, sized(find("T4")))
    assert [line.get_label() for line in memory.lines] == ["predicted", "limit", "before a batch"]


def test_history_is_drawn_in_percent(drawn):
    rows = [{"step": 5 * i, "loss": 4.0 / i, "wer": 1.0 / i, "cer": 0.5 / i} for i in (1, 2, 4)]
    loss, rates = drawn(plots.draw_history, rows)
    assert loss.lines[0].get_xdata().tolist() == [5, 10, 20] and loss.lines[0].get_ydata().tolist() == [4.0, 2.0, 1.0]
    assert {line.get_label(): line.get_ydata().tolist() for line in rates.lines} == {
        "WER": [100.0, 50.0, 25.0],
        "CER": [50.0, 25.0, 12.5],
    }
