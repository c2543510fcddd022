"""Build segments from raw recordings: found by a speech detector, cut by rules, filtered, described, written.

recordings = find_recordings("/radio", work=Path("/tmp/index"))
built = build_segments(recordings, Path("segments"), layout="flac")
print(built.table())
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import ChangedError, DataError, Stopped, UsageError
from colabkit.core.prefetch import prefetch
from colabkit.core.table import Table
from colabkit.core.teller import Teller
from colabkit.io.samples.shards import SHARD_BYTES
from colabkit.pipelines.dataset.cut.excerpts import Excerpt, Listener
from colabkit.pipelines.dataset.cut.outputs import WORK, Layout, NpzFolder, SegmentFolder, ShardFolder, require_same
from colabkit.pipelines.dataset.cut.recordings import Recording
from colabkit.pipelines.dataset.cut.subtitles import text_between
from colabkit.pipelines.dataset.cut.vad import SpeechDetector, load_detector
from colabkit.pipelines.dataset.segments.quality import Quality, fault, measure, normalised
from colabkit.pipelines.dataset.segments.rules import CutRules, Filters
from colabkit.pipelines.dataset.segments.segment import Segment

SUMMARY = "segments.json"
RATE_HZ = 24_000  # what most codecs take; those of 16 kHz lose nothing
_VERSION = 1


@dataclass(slots=True)
class Built:
    """What became of recordings. `left_out` counts segments by reason, `broken` says why a recording gave none or few.

    `num_cut_lines` segments are kept without a text: they hold a part of a line of the transcript.
    """

    num_recordings: int = 0
    recorded_seconds: float = 0.0
    num_segments: int = 0
    segment_seconds: float = 0.0
    num_with_text: int = 0
    num_cut_lines: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    left_out_seconds: dict[str, float] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, other: Built) -> None:
        """Add what became of more recordings."""
        for name in (
            "num_recordings",
            "recorded_seconds",
            "num_segments",
            "segment_seconds",
            "num_with_text",
            "num_cut_lines",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("left_out", "left_out_seconds"):
            mine = getattr(self, name)
            for reason, amount in getattr(other, name).items():
                mine[reason] = mine.get(reason, 0) + amount
        self.broken |= other.broken

    def leave_out(self, reason: str, seconds: float) -> None:
        """Count a segment that is not written."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        self.left_out_seconds[reason] = self.left_out_seconds.get(reason, 0.0) + seconds

    def table(self) -> Table:
        """Return what became of the recordings, for people."""
        rows: list[list[object]] = [
            ["recordings", self.num_recordings, self.recorded_seconds / 60],
            ["segments", self.num_segments, self.segment_seconds / 60],
        ]
        rows += [
            [f"left out: {reason}", number, self.left_out_seconds[reason] / 60]
            for reason, number in sorted(self.left_out.items())
        ]
        if self.num_with_text or self.num_cut_lines:
            rows.append(["segments with text", self.num_with_text, None])
        if self.num_cut_lines:
            rows.append(["without: they cut a line", self.num_cut_lines, None])
        if self.broken:
            rows.append(["recordings that cannot be read", len(self.broken), None])
        return Table(
            ["what", "number", "minutes"], [["" if v is None else v for v in row] for row in rows], "Segments built"
        )


def build_segments(
    recordings: Sequence[Recording],
    folder: Path,
    *,
    layout: Layout = "flac",
    rules: CutRules | None = None,
    filters: Filters | None = None,
    rate_hz: int | None = RATE_HZ,
    npz_dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
    workers: int = 2,
    most_segments: int | None = None,
    teller: Teller = Teller(),
) -> Built:
    """Cut recordings into segments in `folder`: loose npz files, or shards of FLAC or PCM with an index.

    Killed or stopped anywhere, the same call goes on with the next recording; done, it returns at once. The same
    recordings and settings give the same bytes. Beside the segments the disk holds one shard and the recordings at work
    at most. `rate_hz` None keeps each recording's own. `most_segments` of each recording, for a trial. Recordings that
    cannot be read are left aside and told. Raises: UsageError for settings that cannot be; ChangedError for a folder
    that was begun with others; DataError when not a single segment came out; StateError for a full disk; Stopped.
    """
    rules, filters = rules or CutRules(), filters or Filters()
    _require_good(rules, filters, layout, rate_hz)
    detector = load_detector()
    settings = {
        "version": _VERSION,
        "layout": layout,
        "rate_hz": rate_hz,
        "vad": detector.fingerprint,
        **asdict(rules),
        **asdict(filters),
        "most_segments": most_segments,
        **({"npz_dtype": npz_dtype} if layout == "npz" else {"shard_bytes": shard_bytes}),
    }
    folder = Path(folder)
    identities = [r.identity for r in recordings]
    if (done := _done_before(folder, settings, identities)) is not None:
        return done
    output: SegmentFolder = (
        NpzFolder(folder, settings, dtype=npz_dtype)
        if layout == "npz"
        else ShardFolder(folder, settings, kind=layout, shard_bytes=shard_bytes)
    )
    built = Built()
    cutter = _Cutter(recordings, identities, output, detector, rules, filters, rate_hz, most_segments)
    before = {number for number, identity in enumerate(identities) if output.kept(identity) is not None}
    if before:
        teller.say(f"  continues: {len(before)} of {len(recordings)} recordings are cut")
    with (
        teller.progress(len(recordings), "cut", done=len(before), unit="recordings") as progress,
        closing(prefetch(cutter, 0, len(recordings), workers=workers)) as results,
    ):
        for number, result in enumerate(results):
            output.take(identities[number])
            built.add(result)
            for item, reason in result.broken.items():
                teller.problem(item, reason)
            if number not in before:
                progress.update(hours=built.segment_seconds / 3600, segments=built.num_segments)
            if number + 1 < len(recordings) and teller.stop_requested:
                raise Stopped(
                    "Cutting was stopped",
                    got=f"{number + 1} of {len(recordings)} recordings",
                    where=folder,
                    fix="run the same again: it goes on with the next recording",
                )
    if not built.num_segments:
        raise DataError(
            "Not a single segment came out of the recordings",
            where=folder,
            got=f"left out: {built.left_out or 'nothing'}, broken: {built.broken or 'none'}",
            expected=f"speech of at least {rules.min_seconds:g} seconds",
            fix="listen to one of them, then loosen the rule or filter that is named here",
        )
    output.finish()
    files.write_json(folder / SUMMARY, {"settings": settings, "recordings": identities, "built": asdict(built)})
    _clear(folder, layout)
    return built


@dataclass(frozen=True)
class _Cutter:
    """Cuts recording k, or reads what became of it before."""

    recordings: Sequence[Recording]
    identities: list[str]
    output: SegmentFolder
    detector: SpeechDetector
    rules: CutRules
    filters: Filters
    rate_hz: int | None
    most_segments: int | None

    def __call__(self, k: int) -> Built:
        kept = self.output.kept(self.identities[k])
        if kept is not None:
            return Built(**kept.record)  # type: ignore[arg-type]
        recording, built = self.recordings[k], Built(num_recordings=1)
        spool = self.output.spool(self.identities[k])
        listener = Listener(recording, self.detector, self.rules, self.rate_hz)
        try:
            for excerpt in listener.excerpts():
                segment = self._judge(recording, listener, excerpt, built)
                if segment is not None:
                    spool.add(segment)
                if self.most_segments is not None and built.num_segments >= self.most_segments:
                    break
        except DataError as error:  # what was cut before its damage is whole, and stays
            built.broken[recording.key] = str(error)
        built.recorded_seconds = listener.seconds
        spool.close(asdict(built))
        return built

    def _judge(self, recording: Recording, listener: Listener, excerpt: Excerpt, built: Built) -> Segment | None:
        """Return an excerpt as a segment, or None when it is left out, which is counted."""
        seconds = len(excerpt.wave) / excerpt.rate_hz
        if seconds < self.rules.min_seconds:
            return built.leave_out("too short", seconds)
        quality = measure(
            excerpt.wave, excerpt.rate_hz, excerpt.probabilities, excerpt.level_db, self.rules.speech_probability
        )
        reason = fault(quality, self.filters)
        if reason:
            return built.leave_out(reason, seconds)
        text, speaker = text_between(recording.lines, excerpt.start_seconds, excerpt.stop_seconds, listener.seconds)
        built.num_cut_lines += text is None
        built.num_segments, built.segment_seconds = built.num_segments + 1, built.segment_seconds + seconds
        built.num_with_text += bool(text)
        wave = np.clip(normalised(excerpt.wave, quality, self.filters.normalise_lufs), -1, 1)  # resampling overshoots
        return Segment(
            key=f"{recording.key}__{round(excerpt.start_seconds * 1000):09d}",
            wave=wave,
            rate_hz=excerpt.rate_hz,
            speaker=speaker or recording.speaker,
            channel=recording.channel,
            text=text or "",
            metadata=_describe(recording, listener, excerpt, quality),
        )


def _describe(recording: Recording, listener: Listener, excerpt: Excerpt, quality: Quality) -> dict[str, str]:
    mixed = {"mixed_from_channels": str(listener.num_channels)} if listener.num_channels > 1 else {}
    return {
        **mixed,
        **recording.metadata,
        "start_seconds": f"{excerpt.start_seconds:.3f}",
        "stop_seconds": f"{excerpt.stop_seconds:.3f}",
        "loudness_lufs": f"{quality.loudness_lufs:.1f}",
        "snr_db": f"{quality.snr_db:.1f}",
    }


def _done_before(folder: Path, settings: dict, identities: list[str]) -> Built | None:
    """Return what an earlier call built, None when there is work.

    Raises: ChangedError when it was made of something else.
    """
    path = folder / SUMMARY
    if not path.exists():
        return None
    summary = files.read_json(path)
    require_same(summary["settings"], files.plain(settings), folder)  # type: ignore[index, arg-type]
    if summary["recordings"] == identities:  # type: ignore[index]
        _clear(folder, settings["layout"])
        return Built(**summary["built"])  # type: ignore[index]
    if settings["layout"] != "npz":
        raise ChangedError(
            "The shards here were made of other recordings",
            got=f"{len(identities)} recordings",
            where=folder,
            expected=f"the same {len(summary['recordings'])} as then",  # type: ignore[index]
            fix="name another folder for the segments; loose npz files (layout npz) can be added to",
        )
    return None


def _clear(folder: Path, layout: str) -> None:
    """Remove what only work needs; the records of loose files stay, so that recordings can be added."""
    if layout != "npz":
        files.remove_generation(folder / WORK)


def _require_good(rules: CutRules, filters: Filters, layout: str, rate_hz: int | None) -> None:
    faults = [*rules.faults(), *filters.faults()]
    if layout not in ("npz", "flac", "pcm"):
        faults.append(f"layout: got {layout}, expected npz, flac or pcm")
    if rate_hz is not None and not 8_000 <= rate_hz <= 96_000:
        faults.append(f"rate_hz: got {rate_hz}, expected 8000 to 96000, or None")
    if faults:
        raise UsageError("Cannot cut with these settings", got="; ".join(faults), fix="correct them")
