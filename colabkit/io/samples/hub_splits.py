"""Files of a Hub dataset that are a config's split: by its card, else by the usual names of files and folders.

Source: https://huggingface.co/docs/hub/datasets-manual-configuration and datasets-file-names-and-splits.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Any

from colabkit.core.errors import UsageError

DATA_SUFFIXES = (".parquet", ".tar", ".flac", ".wav", ".mp3", ".ogg", ".opus")
_SHARD = re.compile(r"^(?P<split>.+?)[-_.](?:\d{4,}(?:-of-\d+(?:-[0-9a-f]{16})?)?|part\d+)$")
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
    if not splits:
        raise UsageError(
            "The dataset holds no files that can be streamed",
            got="none with an ending that is known",
            expected=", ".join(DATA_SUFFIXES),
            where=address,
            fix="choose another dataset, or a folder with its download",
        )
    if len(choices) != 1:
        there = sorted("/".join(part for part in choice if part not in ("", "default")) for choice in splits)
        what = (
            "Cannot tell which part of the dataset is meant"
            if choices or not wanted
            else "The dataset has no such part"
        )
        raise UsageError(
            what,
            got="/".join(wanted) or "no config and split",
            expected="one of " + ", ".join(there),
            where=address,
            fix=f"write hub:ORG/NAME/{there[0]}",
        )
    return splits[choices[0]]


def _fits(choice: tuple[str, str], wanted: list[str], configs: list[str]) -> bool:
    config, split = choice
    if len(wanted) >= 2:
        return [config, split] == [wanted[0], "/".join(wanted[1:])]
    if len(wanted) == 1:
        return config == wanted[0] or (split == wanted[0] and (len(configs) == 1 or config == "default"))
    return len(configs) == 1 or config == "default"


def _from_card(names: list[str], card: str) -> Splits:
    splits: Splits = {}
    for config in _configs(card):
        title, base = str(config.get("config_name", "default")), config.get("data_dir")
        base = posixpath.normpath(base).strip("/") if isinstance(base, str) else "."
        inside = [name for name in names if base == "." or name.startswith(base + "/")]
        for split, patterns in _data_files(config.get("data_files")):
            whole = [_pattern(posixpath.join(base, p.removeprefix("./"))) for p in patterns]
            found = [name for name in inside if any(p.fullmatch(name) for p in whole)]
            if found:
                splits[(title, split)] = found
        if base != "." and config.get("data_files") is None:
            for (_, split), found in _from_names(inside).items():
                splits[(title, split)] = found
    return splits


def _configs(card: str) -> list[dict]:
    """Return the configs of a card; none where it cannot be read: the Hub itself falls back to names then."""
    import yaml

    head = re.match(r"^---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    try:
        content = yaml.safe_load(head.group(1)) if head else None
    except yaml.YAMLError:
        return []
    configs = content.get("configs") if isinstance(content, dict) else None
    return [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []


def _data_files(value: Any) -> list[tuple[str, list[str]]]:
    """Bring any form a card has into [(split, patterns)]: a pattern, several, {split: patterns}, [{split, path}]."""
    if isinstance(value, dict):
        value = [{"split": split, "path": path} for split, path in value.items()]
    value = value if isinstance(value, list) else [value]
    pairs = [("train", [v for v in value if isinstance(v, str)])]
    for entry in (v for v in value if isinstance(v, dict)):
        paths = entry.get("path")
        paths = paths if isinstance(paths, list) else [paths]
        pairs.append((str(entry.get("split", "train")), [path for path in paths if isinstance(path, str)]))
    return pairs


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
        else:  # train.parquet; 00017.tar
            split, config = "train" if stem.isdigit() else stem, "default"
        splits.setdefault(("default" if config in _PLAIN_FOLDERS else config, split), []).append(name)
    return splits


def _pattern(glob: str) -> re.Pattern:
    parts = []
    for piece in re.split(r"(\*\*/?|\*|\?|\[!?[\w.-]+\])", glob.removeprefix("./")):
        one_of = piece.startswith("[") and piece.endswith("]")
        parts.append(
            {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(
                piece, piece.replace("[!", "[^") if one_of else re.escape(piece)
            )
        )
    try:
        return re.compile("".join(parts))
    except re.error:  # as of [z-a]: it stands for itself
        return re.compile(re.escape(glob))
