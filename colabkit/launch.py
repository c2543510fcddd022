"""Open a run: the few calls that notebooks and the command line share."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

from colabkit.core.config import build, differences, with_settings
from colabkit.core.disk import faults_told
from colabkit.core.errors import UsageError
from colabkit.core.runtime import describe, detect
from colabkit.core.table import Table
from colabkit.pipelines import discover, find
from colabkit.runs.run import Run
from colabkit.runs.state import open_run, state_root
from colabkit.training.processes import team


def configure(
    pipeline: str,
    preset: str = "demo",
    settings: Iterable[str] | Mapping[str, Any] = (),
    more: str = "",
    *,
    say: Callable[[str], object] = print,
) -> Any:
    """Return a preset's Config with `settings` applied, and print how it differs from the preset.

    Settings are "section.name=value" strings or a mapping; a value of "" or None means "as in the preset", a
    `datasets.Dataset` stands where an address may. `more` is a text of such strings with spaces between them, quoted
    as in a shell; it wins over `settings`.
    """
    chosen = find(pipeline)
    if preset not in chosen.presets:
        raise UsageError(
            "No such preset",
            got=preset,
            expected=" or ".join(chosen.presets),
            fix=f"--preset {next(iter(chosen.presets))}",
        )
    if isinstance(settings, Mapping):
        settings = {name: value for name, value in settings.items() if value is not None and value != ""}
        if "datasets" in sys.modules:  # else nobody has one in hand
            from colabkit.io.samples.own_dataset import as_address

            settings = {name: as_address(value, say) for name, value in settings.items()}
    base = build(chosen.config_type, {}, base=chosen.presets[preset]())
    config = with_settings(with_settings(base, settings, say=say), _in_words(more), say=say)
    changes = differences(config, base)
    say(f"{chosen.title}; preset {preset}" + ("" if changes else ", unchanged"))
    for name, was, now in changes:
        say(f"  {name} = {now}  (preset: {was})")
    return config


def _in_words(more: str) -> list[str]:
    if not isinstance(more, str):
        raise UsageError(
            "Cannot read SETTINGS", got=more, expected="text", fix='SETTINGS = "train.steps=100 train.seed=2"'
        )
    try:
        return shlex.split(more)
    except ValueError as error:
        raise UsageError(
            "Cannot read SETTINGS",
            got=more,
            expected=f"closed quotes ({error})",
            fix="SETTINGS = \"train.steps=100 'speech.source=/a folder'\"",
        ) from error


def start(
    pipeline: str,
    config: Any = None,
    *,
    preset: str = "demo",
    run: str = "",
    state: str = "",
    wanted: Container[str] | None = None,
    say: Callable[[str], object] = print,
) -> Run:
    """Open a run (by default named after the preset) and print where it is, and what of it is done.

    `state` is the state root; empty: COLABKIT_STATE, or what fits the machine. `wanted`: the ids of the steps to be
    done; None: all. Raises: StateError at once where one of them is not done and cannot be done here.
    """
    chosen = find(pipeline)
    for name, value in (("PRESET", preset), ("RUN", run), ("STATE", state)):
        if not isinstance(value, (str, os.PathLike)):
            raise UsageError(f"Cannot use this {name}", got=value, expected="text", fix=f'{name} = ""  takes what fits')
    config = configure(pipeline, preset, say=say) if config is None else config
    runtime = detect()
    root = state_root(state or None, runtime)
    folder = open_run(root, chosen.name, run or preset, lazily=True)
    try:
        opened = Run(
            pipeline=chosen.name,
            steps=chosen.steps,
            config=config,
            preset=preset,
            run_folder=folder,
            say=say,
            carry_out=team.carry_out,
        )
        say(f"State root {root.path}: {root.reason}")
        with faults_told(opened.path, "look at what is done"):
            done = [s.id for s in opened.steps if opened.ledger.record(s)]
        hindered, error = chosen.hindrance(config) or ("", None)
        if error is not None and hindered not in done and (wanted is None or hindered in wanted):
            raise error
        say(
            f"Run {opened.name} in {opened.path}: " + (f"done are {', '.join(done)}" if done else "nothing is done yet")
        )
    except BaseException:
        folder.close()  # or nobody could open the run until this process ends
        raise
    return opened


def show(run: Run, *patterns: str) -> None:
    """Show pictures and recordings of a run in a notebook, as in show(run, "05_listen/*.wav"); say what is missing."""
    from IPython.display import Audio, Image, Markdown, display

    for pattern in patterns:
        found = sorted(run.path.glob(pattern))
        if not found:
            run.say(f"nothing to show of {pattern}: its step was not done here")
        for path in found:
            if path.suffix in (".png", ".jpg"):
                display(Image(str(path)))
            else:
                display(Markdown(path.stem.replace("_", " ")), Audio(str(path)))


def machine_table(state: str = "") -> Table:
    """Return what this machine is and can do, and what that means; asks nothing and makes nothing."""
    rows = [list(row) for row in (*describe(detect(), state or None), *_presets_not_for_this_machine())]
    return Table(["what", "value", "what it means"], rows)


def _presets_not_for_this_machine() -> Iterator[tuple[str, str, str]]:
    """Yield a row for each reason why presets of a pipeline cannot be carried out here."""
    for pipeline in discover():
        hindered: dict[str, list[str]] = {}
        for name, preset in pipeline.presets.items():
            if found := pipeline.hindrance(preset()):
                hindered.setdefault(
                    f"{found[1].what} ({found[1].got}, not {found[1].expected}): {found[1].fix}", []
                ).append(name)
        for reason, names in hindered.items():
            yield f"{pipeline.name}, {' and '.join(names)}", "not as they are", reason
