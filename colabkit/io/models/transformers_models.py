"""Models of transformers from the Hub or a folder: loaded quietly, whole, with errors that say how to mend them.

with broken_companions_masked():
    config_class = transformers_class("AutoConfig")
    with quietly(), named_faults(
        name, what="encoder", setting="model.encoder_name", example="facebook/hubert-base-ls960"
    ):
        config = config_class.from_pretrained(place_of(name))
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colabkit.core.errors import DataError, StateError
from colabkit.core.versions.differences import mismatched_names

COMPANIONS = ("torchaudio", "torchvision")  # transformers imports them wherever they are installed, whole or broken


@contextmanager
def broken_companions_masked() -> Iterator[None]:
    """Make transformers believe that packages which are installed but do not import are not installed.

    A torchaudio built for another torch raises OSError on import and takes models with it that never use it.
    """
    broken = [name for name in COMPANIONS if not _imports(name)]
    utils = importlib.import_module("transformers.utils.import_utils") if "transformers" in sys.modules else None
    sys.modules.update(dict.fromkeys(broken))  # None: `import` and `find_spec` say that there is no such package
    for name in broken:
        is_available = getattr(utils, f"is_{name}_available", None)
        if hasattr(is_available, "cache_clear"):
            is_available.cache_clear()  # asked before; and what it learns now stays true afterwards
    try:
        yield
    finally:
        for name in broken:
            if sys.modules.get(name, broken) is None:
                del sys.modules[name]


def _imports(name: str) -> bool:
    """Say whether a package is absent or imports well, remembering nothing of a failed attempt."""
    if importlib.util.find_spec(name) is None:
        return True
    try:
        importlib.import_module(name)
    except Exception:  # an OSError from the linker, a RuntimeError from an operator registry, an ImportError
        return False
    return True


def transformers_class(name: str, *, what: str = "Pretrained models", otherwise: str = "") -> Any:
    """Return a public class of transformers. `otherwise`: what else to do where there is none.

    Raises: StateError without a usable transformers.
    """
    try:
        return getattr(importlib.import_module("transformers"), name)
    except Exception as error:  # whatever a half-installed package raises
        raise StateError(
            f"{what} need a usable transformers",
            got=f"{type(error).__name__}: {error}"[:200],
            expected="transformers 5.13 or newer",
            where=f"from transformers import {name}",
            fix="pip install -U transformers" + (f", or {otherwise}" if otherwise else ""),
        ) from error


def place_of(name: str) -> str:
    """Return a folder's path with its home directory written out; other names as they are."""
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


@contextmanager
def named_faults(name: str, *, what: str, setting: str, example: str, otherwise: str = "") -> Iterator[None]:
    """Turn what goes wrong on the way from the Hub or a folder into one error that says how to mend it.

    `what` is loaded, as in "encoder"; `setting` names it; `example` is a Hub id that works; `otherwise`: what else to
    do.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if brings_code(error):
            raise own_code(name, example) from error
        text = f"{type(error).__name__}: {error}"
        chain = text + " " + repr(error.__cause__)
        if any(
            word in chain.lower() for word in ("gated repo", "401 client error", "403 client error", "unauthorized")
        ):
            fix = "accept the model's terms on its Hub page, then set HF_TOKEN (on Colab: Secrets) and run this again"
        elif Path(name).expanduser().is_dir():
            fix = "the folder needs config.json and model.safetensors: make it with model.save_pretrained(folder)"
        else:
            fix = (
                f"connect to the Internet, or --set {setting}=FOLDER of a downloaded model; Hub ids look like "
                f"{example}, private ones need HF_TOKEN" + (f"; or {otherwise}" if otherwise else "")
            )
        raise DataError(
            f"The pretrained {what} cannot be had",
            got=text.splitlines()[0][:200],
            expected="a Hub id or a folder with a model",
            where=name,
            fix=fix,
        ) from error


def brings_code(error: Exception) -> bool:
    """Tell whether transformers refuses a model for the code that it would have to run (trust_remote_code=False)."""
    return "trust_remote_code" in str(error)


def own_code(name: str, example: str) -> DataError:
    """Return the error for a model that comes with Python code of its own, which is never run here."""
    return DataError(
        "This model brings code of its own, which is never run",
        got="auto_map in its config.json",
        expected="a kind of model that transformers itself has",
        where=name,
        fix=f"take a model such as {example}",
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers' notes and bars about weights that are not used or newly made off the screen."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def lacking_weights(info: Mapping[str, Any]) -> list[str]:
    """Return the tensors that `from_pretrained(..., output_loading_info=True)` did not find, or not in that shape."""
    return sorted(info["missing_keys"]) + sorted(mismatched_names(info))


def require_whole(lacking: list[str], name: str, *, what: str, fix: str) -> None:
    """Raise a DataError when tensors are lacking."""
    if lacking:
        raise DataError(
            f"The {what}'s weights are not whole",
            got=f"{len(lacking)} tensors missing, such as {lacking[0]}",
            expected="all weights of the model",
            where=name,
            fix=fix,
        )


def normalises(name: str, config: Any) -> bool:
    """Read whether a model of waves was trained on normalised ones; where it does not say, its norm layers decide."""
    try:
        with quietly():
            return bool(transformers_class("Wav2Vec2FeatureExtractor").from_pretrained(name).do_normalize)
    except (OSError, ValueError):  # there is no preprocessor_config.json
        return config.feat_extract_norm == "layer"
