"""What is said of a model that does not fit: each remedy with the memory it then takes."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.training.sizing.advice import DoesNotFitError
from colabkit.training.sizing.devices import GIB
from tests.training.sizing.sized import predicted, sized, workload


def test_a_model_that_does_not_fit_says_what_would_help_and_by_how_much():
    predict = predicted(state_gib=11.2, gradients_gib=3.73, per_second_mib=20)  # of that AdamW's states are 7.45 GiB
    with pytest.raises(DoesNotFitError) as caught:
        sized("T4", predict=predict, lighter=lambda: {"half of it frozen": workload(1000, 500)})
    error, help = caught.value, {what: (gib, fits) for what, gib, fits in caught.value.help}
    assert isinstance(error, DataError) and "not even one sample of 30.0 s" in error.what
    assert error.needed_bytes / GIB == pytest.approx(14.93 + 0.35 + 0.2 * 20 * (30 + 900 / 200) / 1024, rel=1e-6)
    need = error.needed_bytes / GIB
    assert help["8-bit AdamW"][0] == pytest.approx(need - 7.45 * 0.75, rel=0.02) and help["8-bit AdamW"][1]
    assert help["Adafactor"][0] < help["8-bit AdamW"][0]
    assert help["half of it frozen"][0] == pytest.approx(need - (7.45 + 3.73) / 2, rel=0.02)
    assert help["half of it frozen and 8-bit AdamW"][0] < help["half of it frozen"][0]
    assert f"8-bit AdamW: {help['8-bit AdamW'][0]:.1f} GiB, {need - help['8-bit AdamW'][0]:.1f} less" in error.fix
    assert "a larger GPU, L4" in error.fix


def test_advice_names_checkpointing_and_shorter_pieces():
    predict = predicted(state_gib=4, per_second_mib=400)
    with pytest.raises(DoesNotFitError) as caught:
        sized("T4", predict=predict, checkpointing="no")  # may not be used: the pipeline has none
    pieces = next(what for what, _, fits in caught.value.help if "pieces" in what)
    seconds = float(pieces.split()[-2])
    assert sized("T4", np.linspace(1, seconds, 10), predict=predict, checkpointing="no").capacity(seconds) >= 1
    with pytest.raises(DoesNotFitError):
        sized("T4", np.linspace(1, seconds + 1, 10), predict=predict, checkpointing="no")
    assert "checkpointing" not in caught.value.fix
    with pytest.raises(DoesNotFitError) as caught:
        sized("T4", predict=predicted(state_gib=4, per_second_mib=4000))
    assert "gradient checkpointing" in caught.value.where
