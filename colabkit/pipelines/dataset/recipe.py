"""Dataset pipeline, step by step. READ THIS FIRST.

| step        | role    | does                                            | reads         | writes                    |
|-------------|---------|-------------------------------------------------|---------------|---------------------------|
| 01_segments | segment | cuts recordings in pauses, or takes segments    | the source    | segments/, summary.json   |
| 02_profile  | segment | says what is really there                       | 01            | profile.json, profile.png |
| 03_upload   | segment | puts the segments into the store                | 01, 02        | segments/ of the store    |
| 04_encode   | encode  | encodes within a quota of disk, each piece once | the store     | codes/ of the store       |
| 05_listen   | encode  | decodes some again, and compares                | 04, the store | listen.png, *.wav         |
| 06_publish  | publish | makes a dataset of the Hub, with a card         | the store     | the dataset, README.md    |
| 07_pairs    | publish | pairs for voice cloning, rows to fine-tune on   | the store     | pairs/, rows/             |

One machine does all, or three do a role each (`role.machine`); they share nothing but the store.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.errors import Rehearsed, UsageError
from colabkit.pipelines.dataset import sources
from colabkit.pipelines.dataset.config import Config
from colabkit.pipelines.dataset.roles import left_to_others, segmented_elsewhere
from colabkit.pipelines.dataset.store.open import SEGMENTS, open_store
from colabkit.runs.run import Run
from colabkit.runs.steps import step


@step(
    "01_segments",
    uses=("role", "segments", "cut", "filter", "store"),
    writes=("summary.json",),
    resumes=True,
    outside=lambda config: sources.fingerprint_source(config.segments),
    elsewhere=segmented_elsewhere,
)
def segments(config: Config, run: Run) -> dict[str, Any]:
    """Cut recordings into segments, or take those that are there; resumes at the next recording."""
    from colabkit.pipelines.dataset.cut.step import build_segments

    chosen, summary = config.segments, {"segments": "taken as they are"}
    if chosen.kind == "recordings":
        recordings = sources.find_recordings(chosen, run.output, run)
        built = build_segments(
            recordings,
            run.output / SEGMENTS,
            layout=chosen.layout,
            rules=config.cut,
            filters=config.filter,
            rate_hz=chosen.rate_hz,
            shard_bytes=int(chosen.shard_mib * 2**20),
            teller=run,
        )
        run.say(str(built.table()))
        summary = asdict(built)
    files.write_json(run.output / "summary.json", summary)
    return {
        name: round(summary[name], 3)
        for name in ("num_recordings", "num_segments", "segment_seconds")
        if name in summary
    }


@step(
    "02_profile",
    uses=("role", "segments", "store"),
    reads=("01_segments",),
    writes=("profile.json", "profile.png"),
    elsewhere=segmented_elsewhere,
)
def profile(config: Config, run: Run) -> dict[str, Any]:
    """Say what is really there: hours, rate, sizes, speakers, channels, broken files."""
    from colabkit.pipelines.dataset.profile.profile import draw_profile
    from colabkit.pipelines.dataset.profile.step import profile_segments, require_plannable

    chosen = config.segments
    found = profile_segments(
        sources.segments_of(chosen, run.folder_of("01_segments")),
        expected_hours=chosen.expected_hours,
        default_rate_hz=chosen.default_rate_hz,
        sample=chosen.sample,
        seed=chosen.seed,
    )
    run.say(str(found.table()))
    if len(found.rates_hz) > 1:
        rates = ", ".join(f"{rate} Hz ({number} files)" for rate, number in found.rates_hz.items())
        run.say(f"  the segments have several rates: {rates}; each is read at its own and brought to the codec's")
    draw_profile(found, run.output / "profile.png")
    replace(found, address=f"{SEGMENTS}/").save(run.output / "profile.json")  # not where this machine keeps them
    require_plannable(found, most_broken_fraction=chosen.most_broken_fraction)
    return {"hours": round(found.hours, 4), "num_files": found.num_files, "num_broken": found.num_broken}


@step(
    "03_upload",
    uses=("role", "segments", "store", "upload"),
    reads=("01_segments", "02_profile"),
    writes=("uploaded.json",),
    resumes=True,
    elsewhere=segmented_elsewhere,
)
def upload(config: Config, run: Run) -> dict[str, Any]:
    """Put the segments into the store; what is there already is not sent again."""
    from colabkit.io.transfer.upload import upload_folder

    chosen, store = config.upload, open_store(config.store, run.path)
    sent = upload_folder(
        sources.segments_of(config.segments, run.folder_of("01_segments")),
        store.below(SEGMENTS),
        workers=chosen.workers,
        pattern="*.npz" if config.segments.layout == "npz" else "*",
        limit=chosen.limit,
        channels=chosen.channels,
        dry_run=chosen.dry_run,
        skip_existing=chosen.skip_existing,
        teller=run,
    )
    if chosen.dry_run:
        raise Rehearsed(
            f"Dry run: {sent.num_left} of {sent.num_files} files would be sent to {store.address}",
            fix="set upload.dry_run=no to send them",
        )
    run.say(str(sent.table()))
    store.put(sources.PROFILE, (run.folder_of("02_profile") / "profile.json").read_bytes())
    files.write_json(run.output / "uploaded.json", {"num_files": sent.num_files})
    return {"uploaded_files": sent.num_files}


@step(
    "04_encode",
    uses=("role", "segments", "store", "codec", "encode"),
    writes=("encoded.json", "codec/*"),
    resumes=True,
    outside=sources.fingerprint_uploaded,
    elsewhere=lambda config: left_to_others(config, "encode"),
)
def encode(config: Config, run: Run) -> dict[str, Any]:
    """Encode the segments of the store; at most the batch in flight is done twice."""
    from colabkit.io.places.probe import probe
    from colabkit.pipelines.dataset.encode.step import encode_store

    store = open_store(config.store, run.path)
    honours = probe(store)
    run.say(str(honours.table()))
    done = encode_store(config, store, run, can_commit=honours.can_commit)
    files.write_json(run.output / "encoded.json", done)
    return done


@step(
    "05_listen",
    uses=("role", "segments", "store", "codec", "listen"),
    reads=("04_encode",),
    writes=("*.wav", "*.png", "*.json"),
    elsewhere=lambda config: left_to_others(config, "encode"),
)
def listen(config: Config, run: Run) -> dict[str, Any]:
    """Decode some codes again, and compare them with the speech they came from."""
    from colabkit.pipelines.dataset.listen import choose_examples, listen_to
    from colabkit.pipelines.dataset.run_codec import codec_of_run

    codec = codec_of_run(run.folder_of("04_encode"), run)
    examples = choose_examples(
        open_store(config.store, run.path),
        codec,
        num=config.listen.num_segments,
        seed=config.listen.seed,
        default_rate_hz=config.segments.default_rate_hz,
        say=run.say,
    )
    heard = listen_to(codec, examples, run.output, say=run.say)
    files.write_json(run.output / "heard.json", [one.to_dict() for one in heard])
    distances = [one.likeness.mel_db for one in heard if one.likeness]
    return {"distance_db": round(sum(distances) / len(distances), 3), "kbps": heard[0].kbps} if distances else {}


@step(
    "06_publish",
    uses=("role", "segments", "store", "publish"),
    resumes=True,
    writes=("README.md", "published.json", "dataset/*"),
    outside=sources.fingerprint_encoded,
    elsewhere=lambda config: left_to_others(config, "publish"),
)
def publish(config: Config, run: Run) -> dict[str, Any]:
    """Make a dataset of the Hub: shards with audio and codes, splits, a card; resumes at the next shard."""
    from colabkit.pipelines.dataset.publish.step import publish_store

    done = publish_store(config, open_store(config.store, run.path), run)
    if config.publish.dry_run:
        raise Rehearsed(
            f"Dry run: {done.num_rows} segments in {done.num_shards} shards would be published",
            fix="set publish.dry_run=no to publish them",
        )
    files.write_json(
        run.output / "published.json",
        {
            "repo": done.repo,
            "splits": done.splits,
            "num_rows": done.num_rows,
            "num_left_out": done.num_left_out,
            "num_shards": done.num_shards,
        },
    )
    return {"published_rows": done.num_rows, "published_shards": done.num_shards}


@step(
    "07_pairs",
    uses=("role", "segments", "store", "pairs"),
    writes=("pairs/*", "rows/*", "pairs.json"),
    outside=sources.fingerprint_encoded,
    elsewhere=lambda config: left_to_others(config, "publish"),
)
def pairs(config: Config, run: Run) -> dict[str, Any]:
    """Pair segments of the same speaker for voice cloning, and write rows to fine-tune on."""
    from colabkit.pipelines.dataset.pairs.step import write_rows

    made = write_rows(config.pairs, open_store(config.store, run.path), run)
    files.write_json(run.output / "pairs.json", made)
    return {"num_pairs": made["pairs"]["num_rows"], "fine_tuning_rows": made["rows"]["num_rows"]}


STEPS = (segments, profile, upload, encode, listen, publish, pairs)


def apply(run_folder: Path, paths: list[Path], output: Path) -> list[Path]:
    """Encode audio files with the codec of a run: the codes of each as .npz, and what they sound like as .wav."""
    from colabkit.pipelines.dataset.run_codec import encode_files

    folder = run_folder / encode.id
    if not folder.is_dir():
        raise UsageError(
            "This run has nothing to apply yet",
            got=str(run_folder),
            expected=f"{encode.id} done",
            fix=f"colabkit run dataset --run {run_folder.name}, which continues it",
        )
    return encode_files(folder, paths, output)
