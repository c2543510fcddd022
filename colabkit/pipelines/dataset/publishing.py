"""The last stage: a dataset of the Hub with its card, voice-cloning pairs, and rows to fine-tune on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from colabkit.core import files
from colabkit.io.objects import Objects
from colabkit.pipelines.dataset import sources
from colabkit.pipelines.dataset.config import PairsConfig
from colabkit.pipelines.dataset.places import SEGMENTS, open_hub
from colabkit.pipelines.dataset.publish.dataset import HubSettings, Published, Watch, publish_dataset
from colabkit.pipelines.dataset.publish.facts import CardSettings
from colabkit.pipelines.dataset.publish.neutts import FineTuningSettings, write_fine_tuning_set
from colabkit.pipelines.dataset.publish.pairs import PairSettings
from colabkit.pipelines.dataset.publish.plan import PublishSettings
from colabkit.pipelines.dataset.publish.rows import open_rows

_RECORDS = "publish"  # in the store: which shards were uploaded


def publish_store(config: Any, store: Objects, run: Any) -> Published:
    """Publish what the store holds and return where it is. Raises: what publish_dataset raises."""
    chosen, hub = config.publish, open_hub(config.publish, run.path)
    settings = PublishSettings(split_by=chosen.split_by, test_fraction=chosen.test_fraction, with_audio=chosen.audio,
                               validation_fraction=chosen.validation_fraction, channels=chosen.channels, limit=chosen.limit,
                               shard_bytes=int(chosen.shard_mb * 1e6))
    card = CardSettings(title=chosen.title, language=chosen.language, licence=chosen.licence, profile=_profile(store),
                        with_durations_plot=True)
    watch = Watch(say=run.say, choose=run.choose, problem=run.report.problem, progress=run.progress,
                  stop_requested=lambda: bool(run.stop_requested))
    done = publish_dataset(store.below(SEGMENTS), store, chosen.repo, settings=settings, card=card,
                           hub=HubSettings(token=hub.token, endpoint=hub.endpoint, private=chosen.private),
                           scratch=run.scratch / "06_publish", output=run.output / "dataset", records=store.below(_RECORDS),
                           dry_run=chosen.dry_run, watch=watch)
    if not chosen.dry_run:
        files.write_atomic(run.output / "README.md", done.card)
        run.say(f"  {done.url}: {done.num_rows} segments, " + ", ".join(f"{name} {rows}" for name, rows in done.splits.items()))
    return done


def write_rows(config: PairsConfig, store: Objects, run: Any) -> dict:
    """Write pairs/ and rows/ and return what is in them."""
    scratch = run.scratch / "07_pairs"
    scratch.mkdir(parents=True, exist_ok=True)
    rows = open_rows(None, store, scratch)
    settings = PairSettings(most_tokens=config.most_tokens, pairs_per_segment=config.pairs_per_segment,
                            shortest_reference_seconds=config.shortest_reference_seconds,
                            longest_reference_seconds=config.longest_reference_seconds,
                            channel="same" if config.same_channel else "any", seed=config.seed)
    made = {}
    for name, paired in (("pairs", True), ("rows", False)):
        done = write_fine_tuning_set(rows, run.output / name, FineTuningSettings(
            pairs=settings, paired=paired, phonemes=config.phonemes, language=config.language), choose=run.choose)
        made[name] = {"num_rows": done.num_rows, "num_tokens": done.num_tokens, "left_out": done.left_out}
        left_out = "; ".join(f"{number} left out: {reason}" for reason, number in done.left_out.items())
        run.say(f"  {name}: {done.num_rows} rows, {done.num_tokens} tokens" + (f"; {left_out}" if left_out else ""))
    return made


def _profile(store: Objects) -> Mapping[str, object]:
    """Return the figures of the profile that was uploaded with the segments; none where there is none."""
    found = store.get_if_there(sources.PROFILE)
    if found is None:
        return {}
    known = json.loads(found[0])
    rows = {"files": known["num_files"], "bytes": known["num_bytes"], "speakers": known["speakers"],
            "hours": known["hours"] and round(known["hours"], 2),
            "sample rates": ", ".join(f"{rate} Hz" for rate in known["rates_hz"]), "sample types": ", ".join(known["dtypes"]),
            "broken files": known["num_broken"], "doubled names": known["num_duplicate_keys"]}
    return {name: value for name, value in rows.items() if value not in (None, "")}
