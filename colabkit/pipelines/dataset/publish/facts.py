"""Facts on the card of a dataset, from the plan and from what its shards really hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from colabkit.pipelines.dataset.publish.card import DatasetFacts, SplitFacts
from colabkit.pipelines.dataset.publish.layout import DatasetPlan, PublishSettings
from colabkit.pipelines.dataset.publish.shard import features
from colabkit.pipelines.dataset.publish.table import Rows
from colabkit.pipelines.dataset.publish.uploaded import ShardRecord

_QUANTILES = (0.05, 0.5, 0.95)
DURATIONS = "durations.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSettings:
    """What only a person can say of a dataset.

    `made`: lines on how it was made; `profile`: further figures for the card.
    """

    title: str = ""
    language: str = ""
    licence: str = ""
    made: Sequence[str] = ()
    profile: Mapping[str, object] = field(default_factory=dict)
    with_durations_plot: bool = False


def gather_facts(
    repo: str,
    rows: Rows,
    plan: DatasetPlan,
    settings: PublishSettings,
    records: Mapping[str, ShardRecord],
    card: CardSettings,
) -> DatasetFacts:
    """Return what the card says. records: of all shards, by id."""
    chosen = np.concatenate([shard.rows for shard in plan.shards])
    table = rows.table
    seconds = table["seconds"].to_numpy()[chosen]
    splits: dict[str, SplitFacts] = {}
    for split in plan.splits():
        own = [records[shard.id] for shard in plan.shards if shard.split == split]
        splits[split] = SplitFacts(
            num_rows=sum(r.num_rows for r in own),
            num_bytes=sum(r.size for r in own),
            seconds=sum(r.seconds for r in own),
            paths=f"{plan.folder}/{split}-*.parquet",
        )
    left_out = Counter({"could not be encoded": rows.left_aside, "another segment has the same name": plan.num_doubles})
    for record in records.values():
        left_out.update(record.left_out)
    speakers = table["speaker"].combine_chunks().dictionary_encode()
    used = set(np.unique(speakers.indices.to_numpy()[chosen]).tolist())
    known = seconds[seconds > 0]
    rates, counts = np.unique(table["rate_hz"].to_numpy()[chosen], return_counts=True)
    lengths = np.quantile(known, _QUANTILES) if len(known) else ()
    return DatasetFacts(
        title=card.title or repo.rpartition("/")[2] or "Speech",
        repo=repo,
        language=card.language,
        licence=card.licence,
        splits=splits,
        features=features(plan, settings),
        codec=rows.codec if plan.num_codebooks else {},
        split_by=settings.split_by if len(splits) > 1 else "none",
        num_speakers=sum(1 for i in used if speakers.dictionary[i].as_py()),
        channels=_channels(rows, chosen, seconds),
        rates=dict(zip(rates.tolist(), counts.tolist(), strict=True)),
        durations={f"{q:.0%}": float(v) for q, v in zip(_QUANTILES, lengths, strict=False)},
        has_text=_has_text(rows, chosen),
        left_out=dict(+left_out),  # those that there are
        made=card.made,
        profile=card.profile,
        pictures=(DURATIONS,) if card.with_durations_plot else (),
    )


def draw_durations(path: Path, rows: Rows, plan: DatasetPlan) -> None:
    """Write a PNG of how long the segments are, counted by half seconds."""
    from colabkit.core.table import COLOURS, new_figure, save_figure

    seconds = rows.table["seconds"].to_numpy()[np.concatenate([shard.rows for shard in plan.shards])]
    figure, axes = new_figure(1, (8, 2.4))
    axes.hist(seconds, bins=np.arange(0, max(1.0, float(seconds.max())) + 0.5, 0.5), color=COLOURS[0])
    axes.set_xlabel("seconds")
    axes.set_ylabel("segments")
    save_figure(figure, path)


def _channels(rows: Rows, chosen: np.ndarray, seconds: np.ndarray) -> dict[str, tuple[int, float]]:
    encoded = rows.table["channel"].combine_chunks().dictionary_encode()
    indices = encoded.indices.to_numpy()[chosen]
    counts = np.bincount(indices, minlength=len(encoded.dictionary))
    sums = np.bincount(indices, weights=seconds, minlength=len(encoded.dictionary))
    return {
        name: (int(counts[i]), float(sums[i])) for i, name in enumerate(encoded.dictionary.to_pylist()) if counts[i]
    }


def _has_text(rows: Rows, chosen: np.ndarray) -> bool:
    import pyarrow.compute as pc

    return bool(pc.binary_length(rows.table["text"]).to_numpy()[chosen].any())
