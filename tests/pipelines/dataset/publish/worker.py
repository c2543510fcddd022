"""Publish in a process of its own, which tests kill; what it makes and what it keeps is written down as it happens."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from colabkit.io.places import Folder
from colabkit.pipelines.dataset.publish import hub_dataset
from colabkit.pipelines.dataset.publish.layout import PublishSettings
from colabkit.pipelines.dataset.publish.uploaded import Records
from tests.pipelines.dataset.publish.sets import CountingObjects


def main(store: str, scratch: str, log: str, endpoint: str, token: str, repo: str, settings: str, records: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(**what) -> None:
        os.write(handle, (json.dumps({"pid": os.getpid(), **what}) + "\n").encode())

    make_shard, add = hub_dataset.make_shard, Records.add

    def noted_make(path, shard, *args, **kwargs):
        note(making=shard.id, rows=len(shard.rows))
        return make_shard(path, shard, *args, **kwargs)

    def noted_add(self, record):
        add(self, record)
        note(kept=record.id)

    hub_dataset.make_shard, Records.add = noted_make, noted_add
    segments = CountingObjects(Path(store, "segments"))
    published = hub_dataset.publish_dataset(
        segments,
        Folder(store),
        repo,
        settings=PublishSettings(**json.loads(settings)),
        hub=hub_dataset.HubSettings(token=token, endpoint=endpoint),
        scratch=scratch,
        records=Folder(records) if records else None,
    )
    note(done=published.num_made, read=sum(segments.read_bytes.values()))
    print(
        json.dumps({"splits": published.splits, "num_made": published.num_made, "num_commits": published.num_commits})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
