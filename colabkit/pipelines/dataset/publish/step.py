"""The step that publishes: a dataset of the Hub with its card."""

from __future__ import annotations

import json
from collections.abc import Mapping

from colabkit.core import files
from colabkit.io.places import Place
from colabkit.pipelines.dataset import sources
from colabkit.pipelines.dataset.config import Config
from colabkit.pipelines.dataset.publish.facts import CardSettings
from colabkit.pipelines.dataset.publish.hub_dataset import HubSettings, Published, publish_dataset
from colabkit.pipelines.dataset.publish.layout import PublishSettings
from colabkit.pipelines.dataset.store.open import SEGMENTS, open_hub
from colabkit.runs.run import Run

_RECORDS = "publish"  # in the store: which shards were uploaded


def publish_store(config: Config, store: Place, run: Run) -> Published:
    """Publish what the store holds and return where it is. Raises: what publish_dataset raises."""
    chosen, hub = config.publish, open_hub(config.publish, run.path)
    settings = PublishSettings(
        split_by=chosen.split_by,
        test_fraction=chosen.test_fraction,
        with_audio=chosen.audio,
        validation_fraction=chosen.validation_fraction,
        channels=chosen.channels,
        limit=chosen.limit,
        shard_bytes=int(chosen.shard_mb * 1e6),
    )
    card = CardSettings(
        title=chosen.title,
        language=chosen.language,
        licence=chosen.licence,
        profile=_profile(store),
        with_durations_plot=True,
    )
    done = publish_dataset(
        store.below(SEGMENTS),
        store,
        chosen.repo,
        settings=settings,
        card=card,
        hub=HubSettings(token=hub.token, endpoint=hub.endpoint, private=chosen.private),
        scratch=run.scratch / "06_publish",
        output=run.output / "dataset",
        records=store.below(_RECORDS),
        dry_run=chosen.dry_run,
        teller=run,
    )
    if not chosen.dry_run:
        files.write_atomic(run.output / "README.md", done.card)
        run.say(
            f"  {done.url}: {done.num_rows} segments, "
            + ", ".join(f"{name} {rows}" for name, rows in done.splits.items())
        )
    return done


def _profile(store: Place) -> Mapping[str, object]:
    """Return the figures of the profile that was uploaded with the segments; none where there is none."""
    found = store.get_if_there(sources.PROFILE)
    if found is None:
        return {}
    known = json.loads(found[0])
    rows = {
        "files": known["num_files"],
        "bytes": known["num_bytes"],
        "speakers": known["speakers"],
        "hours": known["hours"] and round(known["hours"], 2),
        "sample rates": ", ".join(f"{rate} Hz" for rate in known["rates_hz"]),
        "sample types": ", ".join(known["dtypes"]),
        "broken files": known["num_broken"],
        "doubled names": known["num_duplicate_keys"],
    }
    return {name: value for name, value in rows.items() if value not in (None, "")}
