"""Calls of `publish_dataset` on small stores, what was read and told in them, and what the Hub holds then."""

from __future__ import annotations

from pathlib import Path

from colabkit.io.places import Folder
from colabkit.pipelines.dataset.publish.hub_dataset import HubSettings, PublishSettings, publish_dataset
from tests.pipelines.dataset.publish.conftest import TOKEN
from tests.pipelines.dataset.publish.sets import CountingObjects
from tests.told import Told

SMALL = PublishSettings(shard_bytes=60_000, test_fraction=0.3)


def publish(
    hub, store: Path, scratch: Path, repo: str = "me/voices", *, token: str = TOKEN, settings=SMALL, codes=True, **how
):
    teller = Told(**({"stop": how.pop("stop")} if "stop" in how else {}))
    segments = CountingObjects(store / "segments")
    told = HubSettings(token=token, endpoint=how.pop("endpoint", hub.url if hub else ""), **how.pop("patience", {}))
    published = publish_dataset(
        segments,
        Folder(store) if codes else None,
        repo,
        settings=settings,
        hub=told,
        scratch=scratch,
        teller=teller,
        **how,
    )
    return published, segments, teller.said, teller.left_aside


def source_bytes(store: Path) -> int:
    return sum(p.stat().st_size for p in (store / "segments").rglob("*") if p.suffix in (".npz", ".tar"))


def files_of(hub, repo: str = "me/voices") -> dict:
    return hub.repos[repo].find("main").files
