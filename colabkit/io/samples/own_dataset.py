"""Datasets of the user's own as sources: their rows as Parquet, in a folder named by the content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colabkit.core.disk import disk_fault
from colabkit.core.errors import DataError, UsageError

_ROWS = 100  # at once: of audio some tens of megabytes
_FILE_BYTES = 256 << 20  # a file is listed by one reader, and several at once
_TIME_NS = 0  # of every file: the same rows, written again on another day, are the same version


def as_address(value: Any, say: Callable[[str], None] = print) -> Any:
    """Return the address of a `datasets.Dataset`, whose rows are written first; anything else as it is, also in a list.

        colabkit.configure("asr", "quick", {"data.source": load_dataset("audiofolder", data_dir="mine")["train"]})

    The folder lies in the cache of `datasets` and is named by the content: the same rows have the same address
    tomorrow, others another one. Audio is copied as it is stored, never decoded. Raises: UsageError for an
    IterableDataset or several splits, DataError for rows whose audio files are gone, StateError where they cannot be
    written.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(as_address(item, say) for item in value)
    datasets = sys.modules.get("datasets")  # whoever has one has imported it
    if datasets is None:
        return value
    if isinstance(value, (datasets.IterableDataset, datasets.IterableDatasetDict)):
        raise UsageError(
            "An IterableDataset cannot be a source",
            got=f"{type(value).__name__}, read front to back",
            expected="samples that can be opened by their number, for shuffling and resuming",
            fix="name where its files are (hub:ORG/NAME/CONFIG/SPLIT, s3://, gs:// or a folder): they are "
            "streamed as well; or load it without streaming=True",
        )
    if isinstance(value, datasets.DatasetDict):
        raise UsageError(
            "Several splits cannot be one source",
            got=", ".join(value),
            expected="one of them",
            fix=f'pass dataset["{next(iter(value), "train")}"]',
        )
    if isinstance(value, datasets.Dataset):
        return _written(value, Path(datasets.config.HF_DATASETS_CACHE, "colabkit"), say)
    return value


def _written(dataset: Any, cache: Path, say: Callable[[str], None]) -> str:
    schema = [[field.name, str(field.type)] for field in dataset.features.arrow_schema]
    digest = hashlib.sha256(json.dumps(schema).encode())
    for table in _tables(dataset):
        for row in table.to_pylist():
            _fold(digest, row)
    folder = cache / digest.hexdigest()[:32]
    if not folder.exists():
        try:
            _write(dataset, folder)
        except OSError as error:
            raise disk_fault(error, folder, "write the rows of the dataset") from error
        say(f"  {len(dataset):,} rows of the dataset are in {folder}")
    return os.fspath(folder)


def _write(dataset: Any, folder: Path) -> None:
    """Write the rows to files beside the folder, and move them in when all are there."""
    import pyarrow.parquet

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
        begun = Path(beside, "rows")
        begun.mkdir()
        writer, left = None, 0
        for table in _tables(dataset):
            if left <= 0:
                if writer is not None:
                    writer.close()
                number = len(list(begun.iterdir()))
                writer, left = pyarrow.parquet.ParquetWriter(begun / f"{number:05d}.parquet", table.schema), _FILE_BYTES
            writer.write_table(table)
            left -= table.nbytes
        if writer is not None:
            writer.close()
        for path in begun.iterdir():
            os.utime(path, ns=(_TIME_NS, _TIME_NS))
        try:
            begun.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster, with the same rows
                raise
            shutil.rmtree(begun)


def _tables(dataset: Any) -> Iterator[Any]:
    """Yield the rows as Arrow tables, the bytes of audio files in them."""
    from datasets.table import embed_table_storage

    plain = dataset.with_format("arrow")
    for start in range(0, len(dataset), _ROWS):
        table = plain[start : start + _ROWS].cast(dataset.features.arrow_schema)
        try:
            yield embed_table_storage(table)
        except FileNotFoundError as error:
            raise DataError(
                "An audio file of the dataset is gone",
                got=str(error),
                expected="a file",
                where=f"rows {start} to {start + _ROWS}",
                fix="make the dataset again from what is there",
            ) from error


def _fold(digest: Any, value: Any) -> None:
    """Take a value into a digest so that no two rows look alike."""
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (list, tuple)):
        digest.update(b"[%d" % len(value))
        for item in value:
            _fold(digest, item)
        return
    content = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
    digest.update(b"%s%d:" % (type(value).__name__.encode(), len(content)))
    digest.update(content)
