"""ONNX files of a trained model, checked against PyTorch at several lengths, and an int8 variant."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from colabkit.core.errors import DataError
from colabkit.pipelines.diarization import RATE_HZ
from colabkit.pipelines.diarization.model.network import FastDiarizationModel

CHECK_SECONDS = (2.0, 5.13, 10.0, 20.0)


class _LogProbabilities(torch.nn.Module):
    def __init__(self, model: FastDiarizationModel):
        super().__init__()
        self.model = model

    def forward(self, wave: torch.Tensor):
        logits, embeddings = self.model(wave)
        return logits.log_softmax(-1), embeddings


def export_onnx(model: FastDiarizationModel, path: Path, *, opset: int) -> None:
    """Write the network: input wave (batch, sample), outputs log_probabilities (batch, frame, class) and embeddings.

    Batch and length are dynamic.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes on a recurrent layer's batch sizes and its own future
        torch.onnx.export(
            _LogProbabilities(model).eval(),
            (torch.zeros(2, RATE_HZ * 4),),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["wave"],
            output_names=["log_probabilities", "embeddings"],
            dynamic_axes={
                name: {0: "batch", 1: axis}
                for name, axis in (("wave", "sample"), ("log_probabilities", "frame"), ("embeddings", "frame"))
            },
        )


def export_int8(source: Path, path: Path) -> None:
    """Write a variant with 8-bit weights in convolutions and matrix products (dynamic quantisation).

    The spectrum stays exact: eight bits would drown quiet bands in those of the loud ones.
    """
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exact = [node.name for node in onnx.load(str(source)).graph.node if "log_mel" in node.name]
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # at WARNING it advises pre-processing, which changes nothing here
    try:
        quantize_dynamic(
            str(source),
            str(path),
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=exact,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        )
    finally:
        logger.setLevel(level)


def check_parity(model: FastDiarizationModel, path: Path, waves: list[np.ndarray]) -> tuple[float, float]:
    """Compare ONNX with PyTorch; returns the largest difference of log probabilities, and share of equal decisions."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest, same, total = 0.0, 0, 0
    reference = _LogProbabilities(model).eval()
    for wave in waves:
        with torch.no_grad():
            expected = reference(torch.from_numpy(wave)[None])[0].numpy()
        got = session.run(["log_probabilities"], {"wave": wave[None]})[0]
        largest = float(np.maximum(largest, np.abs(got - expected).max()))  # keeps NaN, which max() drops
        same += int((got.argmax(-1) == expected.argmax(-1)).sum())
        total += expected.shape[1]
    return largest, same / total


def require_parity(difference: float, tolerance: float, path: Path) -> None:
    """Refuse an export that does not compute what the model computes."""
    if not difference <= tolerance:
        raise DataError(
            "The ONNX file does not compute what the model computes",
            got=f"difference {difference:.2e}",
            expected=f"at most {tolerance:.0e}",
            where=path,
            fix="--set export.opset=18 --redo export; or allow more with --set export.tolerance=1e-3",
        )
