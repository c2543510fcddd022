"""From a name to a codec: short names, Hub ids with a revision, local folders, and codecs fitted on the data.

codec = open_codec("mimi")                            # of the Hub, kept in the cache of huggingface_hub
codec = open_codec("kyutai/mimi@v1.0", num_codebooks=8)
codec = open_codec("/models/neucodec")                # a folder with config.json and model.safetensors
codec = open_codec("kmeans-mel:codec.safetensors")    # made by colabkit, needs no network
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from colabkit.core.errors import DataError, StateError, UsageError
from colabkit.core.files import sha256_file
from colabkit.core.teller import Teller
from colabkit.pipelines.dataset.codecs.codec import Codec
from colabkit.pipelines.dataset.codecs.families import CLASS_NAMES, FAMILIES
from colabkit.pipelines.dataset.codecs.names import FITTED, HUB_IDS, lacking
from colabkit.pipelines.dataset.codecs.transformers_codec import PRECISIONS, TransformersCodec

# not of transformers -> take instead
_OWN_FORMAT = {"distill-neucodec": "neucodec", "neuphonic/distill-neucodec": "neucodec"}
_BLOB = re.compile(r"[0-9a-f]{64}")
_ADAPTER_VERSION = 1  # goes up when codes of the same wave change


def open_codec(
    name: str, *, device: Any = None, num_codebooks: int = 0, precision: str = "fp32", teller: Teller = Teller()
) -> Codec:
    """Return the codec of a short name, a Hub id ("ORG/NAME@REVISION"), a folder, or "kmeans-mel:FILE".

    `num_codebooks`: the first so many of them, 0 for the model's own choice. `precision`: "fp32" gives the same codes
    on every device up to rounding; "tf32", "bf16" and "fp16" are faster on a GPU and change some of them.
    Raises: UsageError, DataError or StateError that say what to do.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            "No such precision", got=precision, expected=", ".join(PRECISIONS), fix="set codec.precision=fp32"
        )
    kind, _, file = name.partition(":")
    if kind == FITTED:
        return _open_fitted(file, num_codebooks)
    folder, shown = _folder_of(name)
    return _open_folder(folder, shown, _device(device, teller), num_codebooks, precision, teller)


def _open_fitted(file: str, num_codebooks: int) -> Codec:
    from colabkit.pipelines.dataset.codecs.kmeans_mel import KMeansMel

    if not file:
        raise UsageError(
            "A fitted codec is a file", got=FITTED, expected=f"{FITTED}:FILE", fix=f"write {FITTED}:codec.safetensors"
        )
    codec = KMeansMel.load(Path(file).expanduser())
    if num_codebooks not in (0, codec.num_codebooks):
        raise UsageError(
            "A fitted codec has the codebooks it was fitted with",
            got=num_codebooks,
            expected=f"0 or {codec.num_codebooks}",
            where=file,
            fix="fit it again with the number you want",
        )
    return codec


def _device(device: Any, teller: Teller) -> Any:
    import torch

    if device is None:
        there = torch.cuda.is_available()
        device = teller.choose(
            "codec.device", "cuda" if there else "cpu", "a GPU is there" if there else "no GPU is there"
        )
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise UsageError(
            "No such device", got=str(device), expected="cpu, cuda or cuda:N", fix="leave the device out"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "The codec cannot run on a GPU",
            got=str(device),
            expected="a machine with a CUDA GPU",
            fix="leave the device out, or on Colab: Runtime, Change runtime type, T4 GPU",
        )
    return device


def _folder_of(name: str) -> tuple[Path, str]:
    """Return the folder with the model's files and the name to show; fetches them from the Hub where needed."""
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser(), name
    hub_id, _, revision = name.partition("@")
    if hub_id in _OWN_FORMAT:
        raise UsageError(
            "transformers has no class for this codec",
            got=hub_id,
            expected="a codec of " + ", ".join(CLASS_NAMES),
            fix=f"use {_OWN_FORMAT[hub_id]}: the same codes, made by the larger encoder",
        )
    hub_id = HUB_IDS.get(hub_id, hub_id)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        near = difflib.get_close_matches(hub_id, [*HUB_IDS, FITTED], n=1)
        raise UsageError(
            "No such codec",
            got=name,
            expected=f"one of {', '.join(HUB_IDS)}, a Hub id, a folder, or {FITTED}:FILE",
            fix=f"did you mean {near[0]}?" if near else "check the name; a folder has to be there already",
        )
    return _snapshot(hub_id, revision or None), hub_id


def _snapshot(hub_id: str, revision: str | None) -> Path:
    """Return the folder of a Hub model in the cache; a model that is there already needs no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except GatedRepoError as error:
        why, fix = (
            error,
            f"accept the terms on https://huggingface.co/{hub_id}, set HF_TOKEN (on Colab: Secrets), run this again",
        )
    except RepositoryNotFoundError as error:
        why, fix = error, "check the name; a private model needs HF_TOKEN (on Colab: Secrets)"
    except RevisionNotFoundError as error:
        why, fix = error, f"leave out @{revision}, or choose a branch, tag or commit of the model"
    except (LocalEntryNotFoundError, OSError) as error:
        why, fix = (
            error,
            (
                f"connect to the Internet; or fetch it elsewhere (hf download {hub_id} --local-dir FOLDER) and "
                f"give the folder; or fit {FITTED} on your own data, which needs no network"
            ),
        )
    told = (str(why).strip().splitlines() or [""])[0][:200]
    raise DataError(
        "The codec cannot be had from the Hub",
        got=f"{type(why).__name__}: {told}",
        expected="a model that can be downloaded",
        where=f"{hub_id}@{revision or 'main'}",
        fix=fix,
    ) from why


def _open_folder(
    folder: Path, shown: str, device: Any, num_codebooks: int, precision: str, teller: Teller
) -> TransformersCodec:
    from colabkit.io.models.transformers_models import (
        broken_companions_masked,
        lacking_weights,
        named_faults,
        quietly,
        require_whole,
    )

    settings = _read_json(folder / "config.json", shown)
    kind = settings.get("model_type")
    if kind not in FAMILIES:
        raise DataError(
            "This model is not a codec that colabkit knows",
            got=f"model_type {kind!r}",
            expected=", ".join(FAMILIES),
            where=shown,
            fix=f"choose one of {', '.join(HUB_IDS)}",
        )
    extractor_file = folder / "preprocessor_config.json"
    extractor = _read_json(extractor_file, shown) if extractor_file.is_file() else {}
    with broken_companions_masked():
        model_class = _model_class(kind)
        with quietly(), named_faults(shown, what="codec", setting="codec.name", example="kyutai/mimi"):
            model, info = model_class.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, use_safetensors=True
            )
    require_whole(lacking_weights(info), shown, what="codec", fix="download the model again, or choose another one")
    family = FAMILIES[kind](model.config, extractor)
    if num_codebooks:
        family.choose_codebooks(num_codebooks)
    if family.codebook_size > 2**16:
        raise DataError(
            "The codec's codes do not fit 16 bits",
            got=f"{family.codebook_size} codes",
            expected="at most 65536",
            where=shown,
            fix="choose another codec",
        )
    made_of = {
        "adapter": _ADAPTER_VERSION,
        "family": kind,
        "config": _lasting(settings),
        "extractor": _lasting(extractor),
        "weights": _weights(folder),
        "num_codebooks": family.num_codebooks,
        "precision": precision,
    }
    fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return TransformersCodec(
        shown,
        model.eval().requires_grad_(False),
        family,
        fingerprint,
        device=device,
        precision=precision,
        teller=teller,
    )


def _model_class(kind: str) -> Any:
    """Return the class of a family. Raises: StateError where the installed transformers is older than the codec."""
    from colabkit.io.models.transformers_models import transformers_class

    try:
        return transformers_class(CLASS_NAMES[kind], what=f"{kind} codecs", otherwise="choose another codec")
    except StateError as error:
        if not isinstance(error.__cause__, AttributeError):
            raise
        raise lacking(kind) or error from error


def _read_json(path: Path, shown: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "The codec's folder is not whole",
            got=f"{path.name}: {type(error).__name__}",
            expected="config.json, model.safetensors and preprocessor_config.json",
            where=shown,
            fix="make it with model.save_pretrained(folder), or download the model again",
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            "The codec's folder is not whole",
            got=f"{path.name} with a {type(content).__name__}",
            expected="an object",
            where=shown,
            fix="download the model again",
        )
    return content


def _lasting(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without what tells of the writer only."""
    told_only = ("transformers_version", "_name_or_path", "architectures")
    return {key: value for key, value in settings.items() if key not in told_only}


def _weights(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every weights file; in the Hub's cache it is the name of the file that a link leads to."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        target = path.resolve().name
        found[path.name] = target if path.is_symlink() and _BLOB.fullmatch(target) else sha256_file(path)
    if not found:
        raise StateError(
            "The codec's folder has no weights",
            got=str(folder),
            expected="*.safetensors",
            fix="make it with model.save_pretrained(folder)",
        )
    return found
