"""The configuration that comes out: what TrainingArguments need, and for each automatic choice its reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from colabkit.core.errors import UsageError
from colabkit.core.table import Table
from colabkit.core.versions.differences import training_arguments


@dataclass(kw_only=True)
class TrainingConfig:
    """How to train. Change any field before using it; a smaller batch is made up for by more accumulation.

    `per_device_train_batch_size` x `gradient_accumulation_steps` x `num_processes` = `effective_batch_size`, always.
    Where an optimizer step is said as `effective_seconds` of audio, so many samples of `longest_seconds` go into it.
    """

    effective_batch_size: int = 32
    effective_seconds: float | None = None
    longest_seconds: float | None = None
    num_processes: int = 1
    per_device_train_batch_size: int = 1
    gradient_accumulation_steps: int = 32
    fp16: bool = False
    bf16: bool = False
    gradient_checkpointing: bool = False
    optimizer: str = "adamw"
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    warmup_fraction: float = 0.1
    num_train_epochs: float = 10.0
    max_steps: int = -1
    seed: int = 0
    streaming: bool = False
    cache_dataset: bool = False
    chunk_audio: bool = False
    chunk_seconds: float = 30.0
    dataloader_num_workers: int = 0
    safety_margin: float = 0.85
    predicted_gib: float = 0.0
    limit_gib: float = 0.0
    reasons: dict[str, str] = field(default_factory=dict)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "per_device_train_batch_size" and "gradient_accumulation_steps" in self.__dict__:
            object.__setattr__(self, "gradient_accumulation_steps", self._accumulation(value))

    def _accumulation(self, batch: int) -> int:
        share = self.effective_batch_size // self.num_processes
        if not isinstance(batch, int) or batch < 1 or share % batch:
            fitting = ", ".join(str(d) for d in range(1, share + 1) if share % d == 0)
            raise UsageError(
                "This batch size does not add up to the effective batch",
                got=batch,
                expected=f"one of {fitting}, as {share} samples a process make {self.effective_batch_size}",
                where="per_device_train_batch_size",
                fix="take one of these, or set effective_batch_size first",
            )
        return share // batch

    @property
    def mixed_precision(self) -> str:
        """Return bf16, fp16 or no."""
        return next((name for name in ("bf16", "fp16") if getattr(self, name)), "no")

    def equation(self) -> str:
        """Return how samples make the effective batch.

        '4 at once x 2 parts x 1 process = 8 samples, the effective batch', or, of one in seconds, how the longest
        samples make it: '... = 8 samples of 30 s, 240 s within the effective batch of 250 s of audio'.
        """
        processes = f"{self.num_processes} process" + ("es" if self.num_processes > 1 else "")
        parts = f"{self.gradient_accumulation_steps} part" + ("s" if self.gradient_accumulation_steps > 1 else "")
        count, longest = self.effective_batch_size, self.longest_seconds
        samples = f"{self.per_device_train_batch_size} at once x {parts} x {processes} = {count} samples"
        if self.effective_seconds is None:
            return f"{samples}, the effective batch"
        return (
            f"{samples} of {longest:g} s, {count * longest:g} s within the effective batch of "
            f"{self.effective_seconds:g} s of audio"
        )

    def table(self) -> Table:
        """Return every automatic choice with its reason."""
        return Table(
            ["choice", "value", "because"], [[name, getattr(self, name), why] for name, why in self.reasons.items()]
        )

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_training_arguments(self, output_dir: str = "out", **overrides: Any) -> Any:
        """Return transformers.TrainingArguments with these choices; `overrides` are further arguments, and win.

        Raises: UsageError for an argument that this version of transformers does not know.
        """
        from transformers import TrainingArguments

        known = {f.name for f in dataclasses.fields(TrainingArguments)}
        unknown = sorted(set(overrides) - known)
        if unknown:
            raise UsageError(
                "TrainingArguments have no such argument",
                got=unknown,
                expected="arguments of the version installed",
                fix="leave them out, or look them up in the documentation of your version of transformers",
            )
        wanted = {
            "output_dir": output_dir,
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "per_device_eval_batch_size": self.per_device_train_batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "fp16": self.fp16,
            "bf16": self.bf16,
            "optim": _OPTIMIZERS[self.optimizer],
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "num_train_epochs": self.num_train_epochs,
            "max_steps": self.max_steps,
            "seed": self.seed,
            "data_seed": self.seed,
            "dataloader_num_workers": self.dataloader_num_workers,
            **training_arguments(
                known, warmup_fraction=self.warmup_fraction, checkpointing=self.gradient_checkpointing
            ),
        }
        return TrainingArguments(**{name: value for name, value in wanted.items() if name in known} | overrides)


_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit", "adafactor": "adafactor", "sgd": "sgd"}
