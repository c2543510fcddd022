"""Which files of a Hub dataset are a config's split: by its card, else by the usual names of files and folders.

Source: https://huggingface.co/docs/hub/datasets-manual-configuration and datasets-file-names-and-splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from colabkit.core.errors import UsageError

DATA_SUFFIXES = (".parquet", ".tar", ".flac", ".wav", ".mp3", ".ogg", ".opus")
_SHARD = re.compile(r"^(?P<split>.+?)[-_.](?:\d{4,}(?:-of-\d+)?|part\d+)$")
_PLAIN_FOLDERS = ("data", "default", ".")

Splits = dict[tuple[str, str], list[str]]  # (config, split) -> file names


def find_splits(names: Iterable[str], card: str) -> Splits:
    """Return the files of every (config, split). `card` is the text of README.md, or ""."""
    names = [name for name in names if name.lower().endswith(DATA_SUFFIXES)]
    return _from_card(names, card) or _from_names(names)


def choose_split(splits: Splits, wanted: list[str], address: str) -> list[str]:
    """Return the files of what the address names after the repository: nothing, SPLIT, CONFIG or CONFIG/SPLIT.

    Raises: UsageError that lists what there is.
    """
    configs = list(dict.fromkeys(config for config, _ in splits))
    choices = [choice for choice in splits if _fits(choice, wanted, configs)]
    trains = [choice for choice in choices if choice[1] == "train"]
    if len(choices) != 1 and len(trains) == 1 and len(wanted) < 2:
        choices = trains  # an address that names no split means train
    if len(choices) != 1:
        there = sorted("/".join(part for part in choice if part not in ("", "default")) for choice in splits)
        raise UsageError("Cannot tell which part of the dataset is meant" if choices else "The dataset has no such part",
                         got="/".join(wanted) or "no config and split", expected="one of " + ", ".join(there),
                         where=address, fix=f"write hub:ORG/NAME/{there[0] if there else 'CONFIG/SPLIT'}")
    return splits[choices[0]]


def _fits(choice: tuple[str, str], wanted: list[str], configs: list[str]) -> bool:
    config, split = choice
    if len(wanted) >= 2:
        return [config, split] == [wanted[0], "/".join(wanted[1:])]
    if len(wanted) == 1:
        return config == wanted[0] or (split == wanted[0] and (len(configs) == 1 or config == "default"))
    return len(configs) == 1 or config == "default"


def _from_card(names: list[str], card: str) -> Splits:
    import yaml
    head = re.match(r"^---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    try:
        configs = (yaml.safe_load(head.group(1)) or {}).get("configs") if head else None
    except yaml.YAMLError:
        return {}  # the Hub itself falls back to names then
    splits: Splits = {}
    for config in configs or ():
        base = (config.get("data_dir") or "").strip("/")
        for split, patterns in _data_files(config.get("data_files")):
            whole = [_pattern(f"{base}/{p}" if base else p) for p in patterns]
            found = [name for name in names if any(p.fullmatch(name) for p in whole)]
            if found:
                splits[(str(config.get("config_name", "default")), split)] = found
        if base and config.get("data_files") is None:
            inside = [name for name in names if name.startswith(base + "/")]
            for (_, split), found in _from_names(inside).items():
                splits[(str(config.get("config_name", "default")), split)] = found
    return splits


def _data_files(value) -> list[tuple[str, list[str]]]:
    """Bring the forms a card may have into [(split, patterns)]."""
    if value is None:
        return []
    if isinstance(value, str):
        return [("train", [value])]
    if isinstance(value, dict):
        return [(split, [v] if isinstance(v, str) else v) for split, v in value.items()]
    if all(isinstance(v, str) for v in value):
        return [("train", value)]
    return [(v.get("split", "train"), [v["path"]] if isinstance(v["path"], str) else v["path"]) for v in value]


def _from_names(names: list[str]) -> Splits:
    splits: Splits = {}
    for name in names:
        *folders, file = name.split("/")
        stem = file[: file.rindex(".")]
        shard = _SHARD.match(stem)
        if shard:  # data/train-00000-of-00010.parquet, en/train-00000.parquet
            split, config = shard["split"], folders[-1] if folders else "default"
        elif folders:  # clean/train.100/0000.parquet, refs/convert/parquet's partial-train
            split, config = folders[-1].removeprefix("partial-"), folders[-2] if len(folders) > 1 else "default"
        else:  # train.parquet
            split, config = stem, "default"
        splits.setdefault(("default" if config in _PLAIN_FOLDERS else config, split), []).append(name)
    return splits


def _pattern(glob: str) -> re.Pattern:
    parts = []
    for piece in re.split(r"(\*\*/?|\*|\?|\[[^]]*\])", glob.removeprefix("./")):
        parts.append({"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(
            piece, piece if piece.startswith("[") else re.escape(piece)))
    return re.compile("".join(parts))
