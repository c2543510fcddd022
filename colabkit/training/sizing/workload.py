"""Workload to be sized: a model with its real training step, and the regime it trains in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from colabkit.core.config import digest

Precision = Literal["fp32", "fp16", "bf16"]
Optimizer = Literal["adamw", "adamw_8bit", "adafactor", "sgd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """How a model is trained, as far as memory goes. fp16 and bf16 are autocast over weights in fp32.

    `ema`: an averaged copy of the weights is kept. `world`: processes that train together, each with buffers to sum
    gradients.
    `accumulates`: a step goes through in several parts, so that gradients lie there while the next part is computed.
    """

    precision: Precision = "fp32"
    optimizer: Optimizer = "adamw"
    checkpointing: bool = False
    ema: bool = False
    world: int = 1
    accumulates: bool = True

    def describe(self) -> str:
        """Return the regime in a few words, as in "bf16, AdamW, gradient checkpointing"."""
        optimizer = {"adamw": "AdamW", "adamw_8bit": "8-bit AdamW", "adafactor": "Adafactor", "sgd": "SGD"}[
            self.optimizer
        ]
        parts = [self.precision, optimizer]
        parts += ["gradient checkpointing"] if self.checkpointing else []
        parts += ["averaged weights"] if self.ema else []
        return ", ".join(parts + ([f"{self.world} processes"] if self.world > 1 else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A training step as the pipeline really does it, given piece by piece so that sizing can carry it out.

    `build(num_layers, checkpointing)` makes the model in training mode, its frozen parts frozen, on the CPU with
    whatever tensors the mode in force makes; num_layers None: as many as it has. It must not read weights from a disk
    or network. `layers(model)` lists the modules that repeat, `num_layers` of them alike, in the order they run (none:
    nothing repeats). Of several stacks of `num_layers` each (an encoder, a decoder) it lists one after the other, and
    `build` shortens all of them; a stack of another depth stays whole and is not listed. `batch(num_samples, seconds)`
    makes the worst-case input of that shape, labels included. `loss(model, batch)` is forward and loss, a scalar.
    `identity` tells models apart that are built differently.

    What only data decides cannot be sized: no layer is dropped at random (layerdrop 0), no frame masked (mask_time_prob
    0, which transformers draws with NumPy), and `loss` asks no tensor for its value (wav2vec2 given labels does: call
    it without them).
    """

    name: str
    identity: str
    num_layers: int
    build: Callable[[int | None, bool], Any]
    layers: Callable[[Any], list[Any]]
    batch: Callable[[int, float], Any]
    loss: Callable[[Any, Any], Any]

    def key(self, regime: Regime) -> str:
        """Return what a prediction of this workload in this regime is remembered by."""
        return digest([self.identity, asdict(regime)])[:16]
