"""The real step of a workload, on a copy of the model with random weights, so that nothing of a training is touched.

The copy is made before the model to be trained is on the device, and gone afterwards with all it held; random number
generators go on as if it had never been.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from colabkit.training.sizing.chosen import Sizing
from colabkit.training.sizing.devices import here
from colabkit.training.sizing.out_of_memory import clean_up
from colabkit.training.sizing.probe import confirm
from colabkit.training.sizing.remembered import Remembered
from colabkit.training.sizing.workload import Regime, Workload

_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}


def confirm_here(
    sizing: Sizing,
    workload: Workload,
    folder: str | Path,
    *,
    choose: Callable[[str, Any, str], Any] | None = None,
    say: Callable[[str], Any] = print,
) -> Sizing:
    """Confirm a sizing by real steps where its device is the GPU of this process; elsewhere it stays as predicted.

    `folder` remembers what they showed for the next run on such a GPU.
    """
    if sizing.device.kind != "cuda":
        return sizing
    import torch

    if not torch.cuda.is_available() or here().name != sizing.device.name:
        return sizing
    with RealStep(workload, sizing.regime) as run_step:
        return confirm(sizing, run_step, remembered=Remembered(folder, say=say), choose=choose)


class RealStep:
    """Forward, backward and optimizer step of so many samples of one length, as in the midst of accumulating gradients.

    What counts is what the caching allocator reserves; an allocation that it had to retry is out of memory. As a
    context: the copy is made on entering.
    """

    def __init__(self, workload: Workload, regime: Regime, device: str = "cuda"):
        self.workload, self.regime, self.device = workload, regime, device
        self._stack = ExitStack()

    def __enter__(self) -> RealStep:
        import torch

        gpus = [torch.cuda.current_device()] if self.device.startswith("cuda") else []
        self._stack.enter_context(torch.random.fork_rng(devices=gpus))
        with torch.device(self.device):
            self._make(on_gpu=bool(gpus))
        return self

    def _make(self, *, on_gpu: bool) -> None:
        self.model = self.workload.build(None, self.regime.checkpointing)
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = make_optimizer(self.regime.optimizer, weights, on_gpu=on_gpu)
        self._averaged = [weight.detach().clone() for weight in self.model.parameters()] if self.regime.ema else []

    def __exit__(self, *error: object) -> None:
        self.model = self.optimizer = self._averaged = None
        gc.collect()
        clean_up()
        self._stack.close()

    def __call__(self, num_samples: int, seconds: float) -> tuple[float, float]:
        """Return (seconds taken, bytes held at the peak). Raises: torch.OutOfMemoryError."""
        try:
            return self._measured(num_samples, seconds)
        except RuntimeError:
            self.optimizer.zero_grad(set_to_none=True)  # whatever was halfway
            raise

    def _measured(self, num_samples: int, seconds: float) -> tuple[float, float]:
        import torch

        clean_up()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        retries = torch.cuda.memory_stats()["num_alloc_retries"]
        began = time.perf_counter()
        self._step(num_samples, seconds)
        torch.cuda.synchronize()
        taken, peak = time.perf_counter() - began, float(torch.cuda.max_memory_reserved())
        if torch.cuda.memory_stats()["num_alloc_retries"] > retries:
            raise torch.OutOfMemoryError(
                "CUDA out of memory: the allocator had to give back what it kept, and try again"
            )
        return taken, peak

    def _step(self, num_samples: int, seconds: float) -> None:
        """Do one step of rate 0.

        Gradients stay, as those of the parts before are there while the next part is computed.
        """
        import torch

        if self.regime.accumulates:
            for weight in self.model.parameters():
                if weight.requires_grad and weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
        precision = _DTYPES.get(self.regime.precision)
        dtype = getattr(torch, precision or "bfloat16")
        with torch.device(self.device):
            batch = self.workload.batch(num_samples, seconds)
        with torch.autocast(self.device.partition(":")[0], dtype, enabled=precision is not None):
            loss = self.workload.loss(self.model, batch)
        loss.backward()
        self.optimizer.step()
        if not self.regime.accumulates:
            self.optimizer.zero_grad(set_to_none=True)


def make_optimizer(name: str, weights: list[Any], *, on_gpu: bool, learning_rate: float = 0.0) -> Any:
    """Return an optimizer by the name that a Regime has.

    Raises: ModuleNotFoundError where its library is not installed.
    """
    import torch

    if name == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(weights, lr=learning_rate)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(weights, lr=learning_rate, scale_parameter=False, relative_step=False)
    if name == "sgd":
        return torch.optim.SGD(weights, lr=learning_rate)
    return torch.optim.AdamW(weights, lr=learning_rate, **({"fused": True} if on_gpu else {"foreach": False}))
