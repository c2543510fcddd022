"""The pipelines, found by looking: a folder here with a recipe is a pipeline, nothing is registered.

A pipeline's package has a docstring (its first line is the title), NOTEBOOK (its number), and, in `config`,
Config and PRESETS; in `recipe`, STEPS and apply(run_folder, paths, output). One that trains a network has in `workload`
workload(config), its training step for sizing, and request(config), what its settings ask of sizing. One that a machine
may not be able to do has in `needs` hindrance(config): a step that cannot be done here, and the error that says why.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colabkit.core.errors import ColabkitError, UsageError

if TYPE_CHECKING:
    from colabkit.training.sizing.request import Request
    from colabkit.training.sizing.workload import Workload


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One pipeline; its settings and recipe are imported when they are asked for."""

    name: str

    @property
    def title(self) -> str:
        return (self._part().__doc__ or self.name).strip().splitlines()[0].rstrip(".")

    @property
    def notebook(self) -> str:
        return self._part().NOTEBOOK

    @property
    def config_type(self) -> type:
        return self._part(".config").Config

    @property
    def presets(self) -> dict:
        return self._part(".config").PRESETS

    @property
    def steps(self) -> tuple:
        return self._part(".recipe").STEPS

    def workload(self, config: Any) -> Workload:
        """Return the training step of a config, for sizing. Raises: UsageError for a pipeline that trains nothing."""
        return self._sized_part().workload(config)

    def request(self, config: Any) -> Request:
        """Return what a config asks of sizing. Raises: UsageError for a pipeline that trains nothing."""
        return self._sized_part().request(config)

    def hindrance(self, config: Any) -> tuple[str, ColabkitError] | None:
        """Return (id of a step, error) where this machine cannot do all of a config, else None.

        Nothing heavy is imported.
        """
        return self._part(".needs").hindrance(config) if self._has("needs.py") else None

    def _part(self, module: str = ""):
        return import_module(f"{__name__}.{self.name}{module}")

    def _has(self, file: str) -> bool:
        return Path(__file__).with_name(self.name).joinpath(file).is_file()

    def _sized_part(self):
        if not self._has("workload.py"):
            sized = [pipeline.name for pipeline in discover() if pipeline._has("workload.py")]
            raise UsageError(
                "This pipeline has no batch size to plan",
                got=self.name,
                expected="one of " + ", ".join(sized),
                fix=f"colabkit plan {sized[0]}" if sized else "choose a pipeline that trains a network",
            )
        return self._part(".workload")

    def apply(self, run_folder: Path, paths: list[Path], output: Path) -> list[Path]:
        """Use what a run made on the user's files; returns the files written."""
        return self._part(".recipe").apply(run_folder, paths, output)


def discover() -> list[Pipeline]:
    """Return every pipeline, in order of name."""
    return [Pipeline(p.parent.name) for p in sorted(Path(__file__).parent.glob("*/recipe.py"))]


def find(name: str) -> Pipeline:
    """Return the pipeline with this name or notebook number. Raises: UsageError with the nearest known name."""
    known = {p.name: p for p in discover()}
    for pipeline in known.values():
        if name in (pipeline.name, pipeline.notebook, pipeline.notebook.partition("_")[0]):
            return pipeline
    near = difflib.get_close_matches(name, known, n=1)
    raise UsageError(
        "No such pipeline",
        got=name,
        expected="one of " + ", ".join(known),
        fix=f"colabkit run {near[0] if near else next(iter(known))}",
    )
