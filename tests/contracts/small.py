"""The small run of a pipeline: the settings of tests/pipelines/NAME/small.py on top of its demo."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from colabkit.core.config import differences, identity_settings, with_settings
from colabkit.core.errors import UsageError
from colabkit.pipelines import Pipeline

PLACE = Path(__file__).resolve().parents[1] / "pipelines"
NAMED = {path.parent.name for path in PLACE.glob("*/small.py")}


def settings_of(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the settings to put on top of the demo preset; a pipeline without a small.py is run as the demo itself."""
    return import_module(f"tests.pipelines.{pipeline.name}.small").SETTINGS if pipeline.name in NAMED else ()


def small_config(pipeline: Pipeline) -> Any:
    """Return the demo preset's Config with the small settings."""
    return with_settings(pipeline.presets["demo"](), settings_of(pipeline))


def changes_of(pipeline: Pipeline) -> list[tuple[str, Any, Any]]:
    """Return (setting, value now, another valid value) for one number in every section that a step uses."""
    config = small_config(pipeline)
    found = []
    for section in dict.fromkeys(name for step in pipeline.steps for name in step.uses):
        for name, value in identity_settings(getattr(config, section), f"{section}.").items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            try:
                changed = with_settings(config, {name: value + 1})
            except UsageError:
                continue  # a rule of the pipeline's own forbids this one
            found += differences(changed, config)
            break
    return [(name, was, now) for name, was, now in found]
