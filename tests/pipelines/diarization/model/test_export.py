"""ONNX files compute what the model computes, at any length; those that do not are refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from colabkit.core.errors import ColabkitError, DataError
from colabkit.pipelines.diarization.config import InferConfig
from colabkit.pipelines.diarization.infer import Diarizer
from colabkit.pipelines.diarization.model.export import check_parity, export_int8, export_onnx, require_parity


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (8_000, 32_000, 82_081, 320_000)]


@pytest.fixture(params=["gru", "lstm"])
def model(make_model, request):
    """A tiny model whose decisions are not all the same."""
    model = make_model(3, hidden_size=32, recurrent=request.param).eval()
    torch.nn.init.normal_(model.classify.weight, std=1.0)
    return model


@pytest.fixture
def exported(model, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(model, path, opset=17)
    return path


def test_parity_holds_at_every_length(model, exported, waves):
    difference, same = check_parity(model, exported, waves)
    assert difference <= 1e-4 and same >= 0.999
    require_parity(difference, 1e-4, exported)


def test_batches_of_any_size_go_through(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["wave"]
    assert [o.name for o in session.get_outputs()] == ["log_probabilities", "embeddings"]
    batch = 0.1 * np.random.default_rng(1).standard_normal((5, 16_000)).astype(np.float32)
    together, embeddings = session.run(None, {"wave": batch})
    assert together.shape == (5, 50, 7) and embeddings.shape == (5, 50, 8)
    np.testing.assert_allclose(np.exp(together).sum(-1), 1.0, atol=1e-5)
    for b in range(5):
        np.testing.assert_allclose(session.run(None, {"wave": batch[b : b + 1]})[0][0], together[b], atol=1e-4)


def test_embeddings_are_those_of_the_model(model, exported, waves):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(torch.from_numpy(waves[1])[None])[1].numpy()
    np.testing.assert_allclose(session.run(["embeddings"], {"wave": waves[1][None]})[0], expected, atol=1e-4)


def test_export_leaves_the_model_as_it_was(make_model, tmp_path, waves):
    model = make_model().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "model.onnx", opset=17)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and not model.training


def test_int8_is_smaller_and_decides_mostly_the_same(model, exported, waves, tmp_path):
    small = tmp_path / "model.int8.onnx"
    level = logging.getLogger().level
    export_int8(exported, small)
    assert logging.getLogger().level == level
    assert small.stat().st_size < exported.stat().st_size
    assert check_parity(model, small, waves)[1] > 0.85


def test_a_wrong_file_is_refused(model, make_model, exported, waves):
    difference, _ = check_parity(make_model(3, hidden_size=32, seed=1).eval(), exported, waves)
    with pytest.raises(DataError) as caught:
        require_parity(difference, 1e-4, exported)
    assert "does not compute" in str(caught.value) and caught.value.fix


def test_not_a_number_is_a_difference(model, exported, waves):
    """A file that gives NaN must not pass for equal."""
    with torch.no_grad():
        model.classify.bias[:] = float("nan")
    difference, _ = check_parity(model, exported, waves)
    with pytest.raises(DataError):
        require_parity(difference, 1e-4, exported)
    with pytest.raises(DataError):
        require_parity(float("nan"), 1e-4, exported)


def test_a_recording_is_diarized_without_torch(model, exported, waves):
    """The folder holds all: network, table and settings."""
    table = model.powerset.table_CS.numpy()
    settings = InferConfig(window_seconds=4.0, hop_seconds=1.0)

    def run_windows(batch):
        with torch.no_grad():
            return tuple(part.numpy() for part in model(torch.from_numpy(batch)))

    ours = Diarizer(run_windows, table, settings, 0.4)
    (exported.parent / "diarizer.json").write_text(ours.describe())
    theirs = Diarizer.from_onnx(exported.parent)
    assert theirs.settings == settings and theirs.cluster_distance == 0.4 and np.array_equal(theirs.table, table)
    assert theirs.diarize(waves[3]) == ours.diarize(waves[3]) != []


def test_a_folder_without_an_export_is_refused(tmp_path):
    with pytest.raises(ColabkitError):
        Diarizer.from_onnx(tmp_path)
