"""The shapes of well-known speech models, kept in the package, so that a model can be built or sized without weights.

The settings are those of the models' published config.json that differ from the defaults of their class in
transformers.
"""

from __future__ import annotations

import difflib
import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from colabkit.core.errors import DataError
from colabkit.io.models.transformers_models import brings_code, own_code

CONFIG_CLASSES = {
    "wav2vec2": ("wav2vec2.configuration_wav2vec2", "Wav2Vec2Config"),
    "hubert": ("hubert.configuration_hubert", "HubertConfig"),
    "wavlm": ("wavlm.configuration_wavlm", "WavLMConfig"),
    "wav2vec2-bert": ("wav2vec2_bert.configuration_wav2vec2_bert", "Wav2Vec2BertConfig"),
    "whisper": ("whisper.configuration_whisper", "WhisperConfig"),
}


@cache
def _known() -> dict[str, dict[str, Any]]:
    return json.loads(Path(__file__).with_name("architectures.json").read_text(encoding="utf-8"))


def names() -> list[str]:
    """Return the Hub ids of the models whose shape is kept here."""
    return list(_known())


def hub_id(name: str) -> str | None:
    """Return the Hub id under which a model's shape is kept, by that id or a short name; None for an unknown model."""
    wanted = name.strip().lower()
    return next(
        (
            known
            for known, entry in _known().items()
            if wanted == known.lower() or wanted in (alias.lower() for alias in entry["aliases"])
        ),
        None,
    )


def config_of(name: str, *, offline: bool = False) -> Any:
    """Return the transformers config of a model: of a folder, of the shapes kept here or (unless `offline`) of the Hub.

    Raises: DataError for a model that is none of these, with the nearest name that is.
    """
    folder = Path(name).expanduser()
    known = hub_id(name)
    if folder.is_dir() and (folder / "config.json").is_file():
        return _read_config(str(folder), name)
    if known is not None:
        entry = _known()[known]
        module, class_name = CONFIG_CLASSES[entry["model_type"]]
        return getattr(importlib.import_module(f"transformers.models.{module}"), class_name)(**entry["settings"])
    if offline:
        raise _unknown(name, "a model whose shape is kept here, or a folder with config.json")
    return _read_config(name, name)


def _read_config(place: str, name: str) -> Any:
    from transformers.models.auto.configuration_auto import AutoConfig

    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if brings_code(error):
            raise own_code(name, next(iter(_known()))) from error
        raise _unknown(
            name,
            "a Hub id that can be reached, or a folder with a model",
            f"{type(error).__name__}: {error}".splitlines()[0][:200],
        ) from error


def _unknown(name: str, expected: str, why: str = "") -> DataError:
    near = difflib.get_close_matches(
        name, [*names(), *(alias for entry in _known().values() for alias in entry["aliases"])], n=1
    )
    return DataError(
        f"The shape of this model is not known{f' ({why})' if why else ''}",
        got=name,
        expected=expected,
        where="model",
        fix=f"did you mean {near[0]}?" if near else "take one of " + ", ".join(names()[:6]) + " ...",
    )
