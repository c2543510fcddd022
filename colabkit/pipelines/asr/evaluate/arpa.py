"""Read n-gram models in ARPA text, as SRILM, KenLM and others write it.

Format: https://cmusphinx.github.io/wiki/arpaformat
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from colabkit.core.errors import DataError

_LN10 = math.log(10)
Model = TypeVar("Model")
_BEGIN, _UNKNOWN, _OTHER_NAMES = "<s>", "<unk>", {"<UNK>": "<unk>", "<S>": "<s>", "</S>": "</s>"}


def read_arpa(path: Path, make: Callable[..., Model]) -> Model:
    """Return make(words, keys, log_probs, backoffs) of an ARPA file, which may be packed (.gz).

    Raises: DataError naming the line for a file that is damaged, cut short or holds n-grams without their beginnings.
    """
    try:
        opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
        with opened as lines:
            levels = _read_levels(lines, path)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    words = [row[0] for row in levels[0][0]]
    log_probs, backoffs = list(levels[0][1]), list(levels[0][2])
    if _UNKNOWN not in words:
        words.append(_UNKNOWN)
        log_probs.append(min(log_probs))  # as unlikely as the least likely word
        backoffs.append(0.0)
    if len(set(words)) < len(words):
        raise _damaged(path, "a word that is there twice")
    numbers = {word: i for i, word in enumerate(words)}
    keys, all_log_probs, all_backoffs = [np.arange(len(words))], [np.array(log_probs)], [np.array(backoffs)]
    for ngrams, level_log_probs, level_backoffs in levels[1:]:
        try:
            rows = np.array([[numbers[word] for word in ngram] for ngram in ngrams], np.int64)
        except KeyError as error:
            raise _damaged(path, f"the word {error} outside the unigrams") from error
        place = rows[:, 0]
        for level in range(1, rows.shape[1]):
            key = place * len(words) + rows[:, level]
            if level < len(keys):
                place = np.minimum(keys[level].searchsorted(key), len(keys[level]) - 1)
                if (missing := np.flatnonzero(keys[level][place] != key)).size:
                    raise _damaged(path, f"the n-gram {' '.join(ngrams[missing[0]])!r} without its beginning")
        order = np.argsort(key, kind="stable")
        keys.append(key[order])
        all_log_probs.append(np.array(level_log_probs)[order])
        all_backoffs.append(np.array(level_backoffs)[order])
    return make(words, keys, all_log_probs, all_backoffs)


def _read_levels(lines: Iterable[str], path: Path) -> list[tuple[list, list, list]]:
    """Return the n-grams, log probabilities and back-off weights (natural logarithms) of each order."""
    announced, levels, ended = {}, [], False
    for number, line in enumerate(lines, 1):
        line = line.strip("\r\n \t")
        if found := re.fullmatch(r"ngram +(\d+) *= *(\d+)", line):
            announced[int(found[1])] = int(found[2])
        elif found := re.fullmatch(r"\\(\d+)-grams:", line):
            levels.append(([], [], []))
            if int(found[1]) != len(levels):
                raise _damaged(path, f"{line} out of turn in line {number}")
        elif line == "\\end\\":
            ended = True
            break
        elif line and levels:
            fields = [field for field in re.split(r"[ \t]+", line) if field]
            order = len(levels)
            try:
                log_prob, rest = float(fields[0]), fields[1 + order :]
                backoff = float(rest[0]) if rest else 0.0
                if len(fields) < 1 + order or len(rest) > 1:
                    raise ValueError(f"{len(fields)} fields")
            except ValueError as error:
                raise _damaged(path, f"{line[:60]!r} in line {number}: {error}") from error
            levels[-1][0].append(tuple(_OTHER_NAMES.get(word, word) for word in fields[1 : 1 + order]))
            levels[-1][1].append(log_prob * _LN10)
            levels[-1][2].append(backoff * _LN10)
    found = {k + 1: len(level[0]) for k, level in enumerate(levels)}
    if not ended or not levels or any(found.get(k) != n for k, n in announced.items()):
        raise _damaged(path, f"{found} n-grams by order, {announced} announced" + ("" if ended else ", no end"))
    return [level for level in levels if level[0]]


def _damaged(path: Path, got: str) -> DataError:
    return DataError(
        "The language model cannot be read",
        got=got,
        expected="a whole ARPA file",
        where=path,
        fix="write or copy it again; binary models must be converted to ARPA first",
    )
