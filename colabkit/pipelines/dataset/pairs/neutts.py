"""Rows to fine-tune a speech language model on, in the format of NeuTTS, and the text it is trained with.

Rows are {__key__, text, codes}. Format: https://github.com/neuphonic/neutts, examples of fine-tuning. Files are Parquet
or JSON lines.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.dataset.pairs.pairs import Pairs, PairSettings, choose_pairs
from colabkit.pipelines.dataset.pairs.spoken_text import TextRules, clean_text
from colabkit.pipelines.dataset.publish.table import Rows

if TYPE_CHECKING:
    import pyarrow as pa

_FRAME = (
    "user: Convert the text to speech:<|TEXT_PROMPT_START|>{phones}<|TEXT_PROMPT_END|>\n"
    "assistant:<|SPEECH_GENERATION_START|>{codes}<|SPEECH_GENERATION_END|>"
)
_SPECIAL = re.compile(r"<\|[A-Z_]+\|>")
_BLOCK_ROWS = 4096
_FILE_ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuningSettings:
    """What is written. phonemes: with a column of them by espeak-ng; `language` is its name, as in en-us, ar, fa.

    paired: rows of pairs, else one row a segment. count_tokens: of a text by the model's own tokeniser; without one the
    bytes of UTF-8 count, which no byte-level tokeniser exceeds: nothing that is kept can be cut.
    """

    pairs: PairSettings = field(default_factory=PairSettings)
    text: TextRules = field(default_factory=TextRules)
    paired: bool = True
    phonemes: bool = True
    language: str = "en-us"
    format: Literal["parquet", "jsonl"] = "parquet"
    count_tokens: Callable[[str], int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuningSet:
    """What was written. left_out: segments by reason."""

    files: tuple[Path, ...]
    num_rows: int
    num_tokens: int
    left_out: dict[str, int]


def chat_text(phones: str, codes: Sequence[int]) -> str:
    """Return what a model is trained with: `phones` are phonemes or text, `codes` numbers of speech tokens in order."""
    return _FRAME.format(phones=phones, codes="".join(f"<|speech_{code}|>" for code in codes))


def speech_tokens(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Return (codebook, frame) codes as one series, frame after frame.

    Each codebook after the first has tokens of its own.
    """
    codes = np.asarray(codes, np.int64)
    return (codes + codebook_size * np.arange(len(codes))[:, None]).T.reshape(-1)


def write_fine_tuning_set(
    rows: Rows,
    folder: Path,
    settings: FineTuningSettings = FineTuningSettings(),
    *,
    choose: Callable[[str, object, str], object] = lambda name, value, reason: value,
) -> FineTuningSet:
    """Write rows into `folder`, in files of 65,536; those of an earlier call are replaced.

    Columns: __key__, text, codes; with `phonemes` phones; for pairs also reference_key and num_masked_codes, over which
    no loss is taken: see pairs.masked_labels. Raises: DataError when nothing is left, with the reasons; UsageError.
    """
    if not rows.codec:
        raise DataError(
            "A fine-tuning set needs codes",
            got="segments without codes",
            where="pairs",
            fix="encode first: run the step before",
        )
    texts, phones, reasons = _prepare(rows, settings)
    count = settings.count_tokens or (lambda text: len(text.encode("utf-8")))
    spoken = phones if settings.phonemes else texts
    # Within a row a text may stand behind another, after a space: tokenisers then cut its first word otherwise.
    tokens = np.array([max(count(text), count(f" {text}") - 1) if text else -1 for text in spoken], np.int64)
    between = _SPECIAL.split(chat_text("", []))
    overhead = sum(count(text) for text in between if text) + len(between) - 1
    if settings.paired:
        chosen = choose_pairs(rows, settings.pairs, text_tokens=tokens, overhead_tokens=overhead, choose=choose)
    else:
        chosen = _all_alone(rows, settings.pairs.most_tokens, tokens, overhead)
    left_out = Counter(chosen.left_out)
    if reasons and "no text that can be used" in left_out:
        del left_out["no text that can be used"]
        left_out.update(reasons)
    if not len(chosen):
        told = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common(4))
        raise DataError(
            "No row is left to fine-tune on",
            got=told or "no segments",
            where="pairs",
            expected="at least one",
            fix="allow more tokens or other reference lengths, or add transcripts and speakers",
        )
    written = _write(folder, settings, chosen, rows, texts, phones)
    return FineTuningSet(
        files=written, num_rows=len(chosen), num_tokens=int(chosen.num_tokens.sum()), left_out=dict(left_out)
    )


def _prepare(rows: Rows, settings: FineTuningSettings) -> tuple[list[str], list[str], Counter]:
    """Return the cleaned texts and their phonemes, "" where a text cannot be used, and why."""
    from colabkit.io.voices.phonemes import phonemize

    texts, phones, reasons = [], [], Counter()
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = []
        for text in rows.table["text"].slice(start, _BLOCK_ROWS).to_pylist():
            cleaned, reason = clean_text(text, settings.text)
            reasons[f"its text: {reason}"] += bool(reason)
            block.append(cleaned)
        texts += block
        if settings.phonemes:
            phones += phonemize(block, settings.language)
    return texts, phones, +reasons


def _all_alone(rows: Rows, most_tokens: int, text_tokens: np.ndarray, overhead: int) -> Pairs:
    """Return every segment as a row of its own."""
    codes = rows.table["num_frames"].to_numpy().astype(np.int64) * int(rows.codec["num_codebooks"])
    num_tokens = overhead + text_tokens + codes
    usable, fits = text_tokens >= 0, num_tokens <= most_tokens
    left_out = Counter(
        {
            "no text that can be used": int((~usable).sum()),
            f"longer than {most_tokens} tokens by itself": int((usable & ~fits).sum()),
        }
    )
    keys = np.array(rows.table["key"].to_pylist(), object)
    chosen = np.flatnonzero(usable & fits)
    chosen = chosen[np.argsort(keys[chosen], kind="stable")]
    return Pairs(chosen, np.full(len(chosen), -1), num_tokens[chosen], dict(+left_out))


def _write(
    folder: Path, settings: FineTuningSettings, chosen: Pairs, rows: Rows, texts: list[str], phones: list[str]
) -> tuple[Path, ...]:
    if settings.format not in ("parquet", "jsonl"):
        raise UsageError(
            "Cannot write this format",
            got=settings.format,
            expected="parquet or jsonl",
            where="pairs",
            fix="choose one of them",
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    number = -(-len(chosen) // _FILE_ROWS)
    keys, speakers = rows.table["key"].to_pylist(), rows.table["speaker"].to_pylist()
    written = []
    for part in range(number):
        path = folder / f"train-{part:05d}-of-{number:05d}.{settings.format}"
        blocks = (
            _block(
                chosen,
                slice(start, min(start + _BLOCK_ROWS, (part + 1) * _FILE_ROWS)),
                rows,
                keys,
                speakers,
                texts,
                phones,
            )
            for start in range(part * _FILE_ROWS, min(len(chosen), (part + 1) * _FILE_ROWS), _BLOCK_ROWS)
        )
        _write_file(path, blocks, settings.format)
        written.append(path)
    for path in sorted(folder.glob("train-*-of-*.*")):
        if path not in written and path.suffix in (".parquet", ".jsonl"):
            files.remove_generation(path)
    return tuple(written)


def _block(
    chosen: Pairs, part: slice, rows: Rows, keys: list[str], speakers: list[str], texts: list[str], phones: list[str]
) -> dict[str, list]:
    """Return the columns of some rows; codes are arrays."""
    targets, references = chosen.target[part].tolist(), chosen.reference[part].tolist()
    size, books = int(rows.codec["codebook_size"]), int(rows.codec["num_codebooks"])

    def tokens(number: int) -> np.ndarray:
        return speech_tokens(rows.codes(number).reshape(-1, books).T, size)

    def joined(values: list[str], separator: str, order: int) -> list[str]:
        return [
            values[t] if r < 0 else separator.join((values[r], values[t])[::order])
            for t, r in zip(targets, references, strict=True)
        ]

    codes = [tokens(number) for number in targets]
    before = [tokens(number) if number >= 0 else codes[0][:0] for number in references]
    columns: dict[str, list] = {"__key__": joined(keys, "+", -1), "text": joined(texts, " ", 1)}
    if phones:
        columns["phones"] = joined(phones, " ", 1)
    if any(number >= 0 for number in references):
        columns["reference_key"] = [keys[number] for number in references]
    return columns | {
        "codes": [np.concatenate(both) for both in zip(before, codes, strict=True)],
        "num_masked_codes": [len(masked) for masked in before],
        "speaker": [speakers[t] for t in targets],
        "num_tokens": chosen.num_tokens[part].tolist(),
    }


def _write_file(path: Path, blocks: Iterator[dict[str, list]], kind: str) -> None:
    if kind == "jsonl":
        files.write_atomic(
            path,
            "".join(
                json.dumps(dict(zip(block, row, strict=True)), ensure_ascii=False, default=np.ndarray.tolist) + "\n"
                for block in blocks
                for row in zip(*block.values(), strict=True)
            ),
        )
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink, writer = pa.BufferOutputStream(), None
    for block in blocks:
        table = _table(block)
        writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()
    files.write_atomic(path, sink.getvalue())


def _table(block: dict[str, list]) -> pa.Table:
    import pyarrow as pa

    stops = np.cumsum([0, *map(len, block["codes"])]).astype(np.int32)
    codes = pa.ListArray.from_arrays(pa.array(stops), pa.array(np.concatenate(block["codes"]).astype(np.int32)))
    kinds = {"num_masked_codes": pa.int32(), "num_tokens": pa.int32()}
    return pa.table(
        {
            name: codes if name == "codes" else pa.array(values, kinds.get(name, pa.string()))
            for name, values in block.items()
        }
    )
