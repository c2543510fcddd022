"""Make one Parquet shard of a dataset: audio, codes and what is known of each segment; the same plan, the same bytes.

Made for streaming: row groups of some megabytes, a page index, and pages cut by content, so that a Hub with
deduplication sends what changed alone. Parquet metadata as datasets writes it: https://huggingface.co/docs/datasets,
features as JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from colabkit.core.disk import disk_fault
from colabkit.core.errors import DataError, StateError
from colabkit.core.teller import Teller
from colabkit.core.versions.differences import cut_by_content, installed_version
from colabkit.io.places.place import Place
from colabkit.pipelines.dataset.publish.layout import DatasetPlan, PublishSettings, ShardPlan
from colabkit.pipelines.dataset.publish.payloads import Payload, read_payloads
from colabkit.pipelines.dataset.publish.table import Rows

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_BYTES = 32 << 20  # before compression: what a reader that jumps in has to take at least
_CHUNKING = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
_SUFFIXES = {b"fLaC": ".flac", b"RIFF": ".wav", b"OggS": ".ogg", b"PK\x03\x04": ".npz"}


@dataclass(frozen=True, slots=True)
class MadeShard:
    """What went into a shard. `left_out`: segments by the reason why they are not in it."""

    num_rows: int
    seconds: float
    left_out: dict[str, int] = field(default_factory=dict)


def features(plan: DatasetPlan, settings: PublishSettings) -> dict[str, dict]:
    """Return the columns as datasets calls them; "Sequence" is read by all its versions.

    Codes are (frame,) with one codebook, which is what a language model is given, and (codebook, frame) with more.
    """

    def value(kind: str) -> dict:
        return {"dtype": kind, "_type": "Value"}

    codes: dict = {"feature": value("uint16"), "_type": "Sequence"}
    if plan.num_codebooks > 1:
        codes = {"feature": codes, "_type": "Sequence"}
    return {
        "key": value("string"),
        **({"audio": {"sampling_rate": plan.rate_hz, "_type": "Audio"}} if settings.with_audio else {}),
        **({"codes": codes} if plan.num_codebooks else {}),
        "text": value("string"),
        "speaker": value("string"),
        "channel": value("string"),
        "seconds": value("float64"),
        "rate_hz": value("int32"),
        "metadata": value("string"),
    }


def choose_pages(teller: Teller) -> None:
    """Tell by which rule the pages of shards are cut."""
    if cut_by_content(_CHUNKING):
        teller.choose("publish.pages", "cut by content", "a Hub that deduplicates is sent what changed alone")
    else:
        teller.choose(
            "publish.pages",
            "cut by size",
            f"pyarrow {installed_version('pyarrow')} cannot cut by content, as 21.0 "
            "can: after a change a Hub that deduplicates is sent more; the rows are the same",
        )


def make_shard(
    path: Path,
    shard: ShardPlan,
    rows: Rows,
    segments: Place | None,
    plan: DatasetPlan,
    settings: PublishSettings,
    teller: Teller,
) -> MadeShard | None:
    """Write a shard to `path`, reading each segment once; None when a stop was asked for.

    Segments that cannot be read are told and left out.
    Raises: StateError for a full disk; UsageError; Unreachable.
    """
    import pyarrow.parquet as pq

    schema = _schema(plan, settings)
    table = rows.take(shard.rows)
    left_out: Counter[str] = Counter()
    num_rows, seconds = 0, 0.0
    try:
        with pq.ParquetWriter(
            path,
            schema,
            compression=_compressions(settings),
            write_page_index=True,
            **cut_by_content(_CHUNKING),
            use_dictionary=["speaker", "channel"],
            write_statistics=["key", "speaker", "channel", "seconds"],
            store_schema=True,
        ) as writer:
            for group in _groups(table, segments, plan, settings, left_out, teller):
                writer.write_table(_to_table(group, schema), row_group_size=len(group))
                num_rows, seconds = num_rows + len(group), seconds + sum(row["seconds"] for row in group)
                if teller.stop_requested:
                    return None
    except OSError as error:
        raise disk_fault(error, path, "write a shard", needed_bytes=shard.most_bytes) from error
    return MadeShard(num_rows, round(seconds, 3), dict(left_out))


def _groups(
    table: pa.Table,
    segments: Place | None,
    plan: DatasetPlan,
    settings: PublishSettings,
    left_out: Counter,
    teller: Teller,
) -> Iterator[list[dict]]:
    """Yield the rows of each row group."""
    names = ("key", "text", "speaker", "channel", "seconds", "rate_hz", "metadata", "num_frames")
    known = zip(*(table[name].to_pylist() for name in names), strict=True)
    codes = table["codes"].combine_chunks()
    group, held = [], 0
    for payload, values in zip(_payloads(table, segments, settings), known, strict=True):
        row = dict(zip(names, values, strict=True))
        try:
            row = _row(row, payload, codes[payload.row].values if plan.num_codebooks else None, plan, settings)
        except DataError as error:
            reason = error.what
            left_out[reason] += 1
            teller.problem(values[0], reason if error.got is None else f"{reason}: {error.got}")
            continue
        size = (
            len(row["audio"]["bytes"] if settings.with_audio else b"")
            + 2 * row["num_frames"] * plan.num_codebooks
            + 512
        )
        if group and held + size > ROW_GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(row)
        held += size
    if group:
        yield group


def _payloads(table: pa.Table, segments: Place | None, settings: PublishSettings) -> Iterator[Payload]:
    if not settings.with_audio:
        return (Payload(row, b"") for row in range(table.num_rows))
    if segments is None:
        raise StateError(
            "There is no audio to publish",
            expected="the segments that were encoded",
            where="publish",
            fix="name the store that holds the segments, or publish the codes alone",
        )
    return read_payloads(segments, table)


def _row(
    row: dict, payload: Payload, codes: pa.UInt16Array | None, plan: DatasetPlan, settings: PublishSettings
) -> dict:
    """Return a row as it is published. Raises: DataError for a segment that cannot be."""
    if payload.fault:
        raise DataError(payload.fault, fix="upload it again and encode it anew")
    if settings.with_audio:
        row = _with_audio(row, bytes(payload.content), plan, settings)
    if codes is not None:
        flat = codes.to_numpy(zero_copy_only=False)
        if len(flat) != row["num_frames"] * plan.num_codebooks:
            raise DataError("its codes are not whole", got=f"{len(flat)} codes", fix="encode it anew")
        row["codes"] = flat if plan.num_codebooks == 1 else list(flat.reshape(-1, plan.num_codebooks).T)
    return row


def _with_audio(row: dict, content: bytes, plan: DatasetPlan, settings: PublishSettings) -> dict:
    """Return the row with its audio file, and what that says where nobody has said it before."""
    from colabkit.io.samples.shards import flac_bytes
    from colabkit.pipelines.dataset.segments.read import read_segment

    suffix = _SUFFIXES.get(content[:4], ".mp3")
    if suffix == ".flac" or suffix != ".npz" and settings.audio_format == "as_is":
        if not row["rate_hz"]:
            from colabkit.io.audio import audio_info

            info = audio_info(content)
            row["rate_hz"], row["seconds"] = info.rate_hz, info.num_frames / info.rate_hz
    else:
        segment = read_segment(content, row["key"] + suffix)
        if row["rate_hz"] and segment.rate_hz != row["rate_hz"]:
            raise DataError("its rate is not what was encoded", got=f"{segment.rate_hz} Hz", fix="encode it anew")
        content, suffix = flac_bytes(segment.wave, segment.rate_hz), ".flac"
        row["rate_hz"], row["seconds"] = segment.rate_hz, segment.seconds
        for name in ("text", "speaker", "channel"):
            row[name] = row[name] or getattr(segment, name)
        if row["metadata"] in ("", "{}"):
            row["metadata"] = json.dumps(dict(segment.metadata), ensure_ascii=False, sort_keys=True)
    row["audio"] = {"bytes": content, "path": row["key"] + suffix}
    return row


def _schema(plan: DatasetPlan, settings: PublishSettings) -> pa.Schema:
    import pyarrow as pa

    told = features(plan, settings)
    codes = pa.list_(pa.uint16())
    kinds = {
        "audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "codes": codes if plan.num_codebooks <= 1 else pa.list_(codes),
        "seconds": pa.float64(),
        "rate_hz": pa.int32(),
    }
    about = {
        "huggingface": json.dumps({"info": {"features": told}}),
        **({"content_defined_chunking": json.dumps(_CHUNKING)} if cut_by_content(_CHUNKING) else {}),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in told], metadata=about)


def _compressions(settings: PublishSettings) -> dict[str, str] | str:
    """Audio files are compressed already."""
    packed = dict.fromkeys(
        (
            "key",
            "codes.list.element",
            "codes.list.element.list.element",
            "text",
            "speaker",
            "channel",
            "seconds",
            "rate_hz",
            "metadata",
        ),
        "zstd",
    )
    return packed | {"audio.bytes": "none", "audio.path": "zstd"} if settings.with_audio else "zstd"


def _to_table(group: list[dict], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        [pa.array([row[name] for row in group], schema.field(name).type) for name in schema.names], schema=schema
    )
