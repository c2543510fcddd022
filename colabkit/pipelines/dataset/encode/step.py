"""The stage in the middle: from the store through the codec into the store, in this process or on a Ray cluster."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from colabkit.core.errors import Rehearsed, Stopped, UsageError
from colabkit.core.teller import Teller
from colabkit.io.places import Place, S3Profile, open_place
from colabkit.pipelines.dataset.codecs.codec import Codec
from colabkit.pipelines.dataset.config import LOOPBACK, CodecConfig, Config
from colabkit.pipelines.dataset.encode.job import Encoded, Sharing, encode
from colabkit.pipelines.dataset.run_codec import codec_of_store
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.read import read_segment
from colabkit.pipelines.dataset.store.commit import read_manifest
from colabkit.pipelines.dataset.store.open import SEGMENTS
from colabkit.runs.run import Run

_STEP = "04_encode"


def encode_store(config: Config, store: Place, run: Run, *, can_commit: bool) -> dict:
    """Encode what the store's segments/ holds and return what its codes/ hold then, for the run's report.

    Raises: Stopped when it was asked to; Rehearsed for a dry run; what encode raises.
    """
    chosen = config.encode
    codec = codec_of_store(config.codec, store, run.output, run)  # in a cluster, too: kept with the run
    settings = {
        "read_segment": partial(read_segment, default_rate_hz=config.segments.default_rate_hz),
        "write_npz": write_npz,
        "quota_bytes": None if chosen.quota_gib is None else int(chosen.quota_gib * 2**30),
        "piece_bytes": int(chosen.piece_mib * 2**20),
        "channels": chosen.channels,
        "limit": chosen.limit,
        "skip_existing": chosen.skip_existing,
        "output_format": chosen.output,
        "honours_absent": can_commit,
        "most_failed_fraction": chosen.most_failed_fraction,
    }
    if chosen.cluster_workers and not chosen.dry_run:
        done = _on_cluster(config, store, run, settings)
    else:
        done = encode(
            store.below(SEGMENTS),
            store,
            codec,
            scratch=run.scratch / _STEP,
            dry_run=chosen.dry_run,
            sharing=Sharing(claims=chosen.shared, share=tuple(map(int, chosen.share.split("/")))),
            teller=run,
            **settings,
        )
    if chosen.dry_run:
        left = done.num_items - done.num_done
        raise Rehearsed(
            f"Dry run: {left} of {done.num_items} segments would be encoded", fix="set encode.dry_run=no to encode them"
        )
    if done.stopped:
        raise run.stopped()
    if not done.is_finished:
        raise Stopped(
            "This machine has done its share",
            got=f"{done.num_pieces_done} of {done.num_pieces} pieces are committed",
            where=store.address,
            fix="when the other machines are done, run the same again: it finds all there",
        )
    return _facts(store)


def _on_cluster(config: Config, store: Place, run: Run, settings: dict[str, Any]) -> Encoded:
    from colabkit.core.accelerators import count_gpus
    from colabkit.pipelines.dataset.encode.cluster import Worker, encode_on_ray

    if config.store.address == LOOPBACK:
        raise UsageError(
            "Workers on other machines do not reach a store on loopback",
            where="store.address",
            expected="s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or a shared folder",
            fix="name such a store",
        )
    profile = getattr(store, "profile", None)  # with its keys, which workers need and do not print
    here = store.address, profile
    worker = Worker(
        open_source=partial(_open, *here, SEGMENTS),
        open_output=partial(_open, *here),
        settings=settings,
        open_codec=partial(_open_codec, config.codec, *here),
        scratch=Path(tempfile.gettempdir()) / f"colabkit-{run.name}",
    )
    return encode_on_ray(
        worker,
        config.encode.cluster_workers,
        address="auto" if "RAY_ADDRESS" in os.environ else None,
        num_gpus=1.0 if count_gpus(os.environ) else 0.0,
        teller=run,
    )


def _open(address: str, profile: S3Profile | None, below: str = "") -> Place:
    place = open_place(address, profile=profile)
    return place.below(below) if below else place


def _open_codec(config: CodecConfig, address: str, profile: S3Profile | None) -> Codec:
    return codec_of_store(config, _open(address, profile), Path(tempfile.mkdtemp(prefix="colabkit-codec-")), Teller())


def _facts(store: Place) -> dict:
    """Return what the manifest of all codes says, which is the same however often the work was stopped."""
    manifest, _ = read_manifest(store)
    return {
        "encoded_segments": manifest["num_rows"],
        "left_aside": manifest["num_left_aside"],
        "encoded_seconds": manifest["seconds"],
        "codes_bytes": sum(piece["size"] for piece in manifest["pieces"]),
        "pieces": len(manifest["pieces"]),
    }
