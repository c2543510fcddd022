"""Sizings by a stand-in for the prediction, for tests of what is chosen by it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from colabkit.training.sizing.choose import size
from colabkit.training.sizing.chosen import Sizing
from colabkit.training.sizing.devices import GIB, Device, find
from colabkit.training.sizing.memory_model import MemoryModel, Phase
from colabkit.training.sizing.pool import Predictions
from colabkit.training.sizing.workload import Workload

LENGTHS = np.linspace(1.0, 30.0, 400)


class Weight(SimpleNamespace):
    """A weight as the advice looks at it: its shape, and whether it is trained."""


def workload(num_weights: int = 1000, num_trained: int | None = None) -> Workload:
    def build(num_layers, checkpointing):
        trained = num_weights if num_trained is None else num_trained
        weights = [Weight(shape=(1000, 1000), requires_grad=i < trained) for i in range(num_weights)]
        return SimpleNamespace(parameters=lambda: weights)

    return Workload(
        name="a model",
        identity=f"a model {num_weights} {num_trained}",
        num_layers=1,
        build=build,
        layers=None,
        batch=None,
        loss=None,
    )


def predicted(state_gib: float = 2.0, per_second_mib: float = 40.0, spared: float = 0.2, gradients_gib: float = 0.0):
    """Return a stand-in for the prediction: memory grows with B * T; checkpointing spares all but `spared` of it."""

    def predict(work, regime, **_):
        each = (
            per_second_mib
            * 2**20
            * (spared if regime.checkpointing else 1.0)
            * (2.0 if regime.precision == "fp32" else 1.0)
        )
        return MemoryModel(
            phases=(
                Phase(
                    name="backward",
                    base_bytes=(state_gib + gradients_gib) * GIB,
                    bytes_per_second=each,
                    bytes_per_second_squared=each / 200,
                ),
            ),
            state_bytes=state_gib * GIB,
        )

    return predict


def sized(device="A100-40", lengths=LENGTHS, *, predict=None, work=None, **more) -> Sizing:
    device = device if isinstance(device, Device) else find(device)
    predictions = Predictions(
        float(min(lengths, default=1)), float(max(lengths, default=1)), predict=predict or predicted()
    )
    return size(
        work or workload(), device=device, lengths=lengths, **{"effective_batch": 32, "predictions": predictions} | more
    )


def reasons(sizing: Sizing) -> dict:
    return {name: reason for name, _, reason in sizing.choices}


def emulated(budget_bytes: int) -> Device:
    """Return a device of `budget_bytes` with nothing else on it, as a Meter with that budget is one."""
    return Device(
        name=f"emulated {budget_bytes / 2**20:.0f} MiB",
        kind="cpu",
        total_bytes=budget_bytes,
        usable_bytes=budget_bytes,
    )


def peak_phase(model: MemoryModel, num_samples: int, seconds: float) -> str:
    """Return the name of the phase that takes the most."""
    return max(model.phases, key=lambda phase: phase.bytes(num_samples, seconds)).name
