"""Texts of a listing once they are cleaned, and which samples they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError
from colabkit.io.samples.index import Text
from colabkit.io.samples.listing import Listing, read_arrays


def write_texts(path: Path, kept: Mapping[str, np.ndarray], listing: Listing) -> None:
    """Write the cleaned texts of a listing, and which samples of the listing before they belong to."""
    from safetensors.numpy import save

    arrays = {}
    for name, split in listing.splits.items():
        arrays |= {
            f"{name}.kept": np.ascontiguousarray(kept[name], np.int64),
            f"{name}.buffer": split.texts.buffer,
            f"{name}.stops": split.texts.stops,
        }
    files.write_atomic(path, save(arrays))


def open_texts(path: Path, listing: Listing) -> Listing:
    """Return the listing with only the samples whose texts could be cleaned, and these texts. Raises: DataError."""
    arrays = read_arrays(path)
    splits = {}
    for name, split in listing.splits.items():
        kept = arrays.get(f"{name}.kept")
        if kept is None or (len(kept) and kept.max() >= len(split)):
            raise DataError(
                "The texts do not belong to this listing",
                where=path,
                got=f"another split {name}",
                expected="texts of the listing beside",
                fix="do the step that wrote it again",
            )
        splits[name] = split.take(kept, Text(arrays[f"{name}.buffer"], arrays[f"{name}.stops"]))
    return listing.replace(splits)
