"""Say what a place of segments really holds, before anything is planned: hours, rates, types, channels, what is broken.

found = profile_segments("s3://bucket/segments", expected_hours=218)
print(found.table())
require_plannable(found)
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from colabkit.core.errors import DataError
from colabkit.core.prefetch import prefetch
from colabkit.core.progress import Progress
from colabkit.io.places.place import Place
from colabkit.io.samples.index import SampleIndex
from colabkit.pipelines.dataset.profile.estimate import choose_sample, estimate_total
from colabkit.pipelines.dataset.profile.headers import Facts, inspect
from colabkit.pipelines.dataset.profile.heard import Listened, listen_to
from colabkit.pipelines.dataset.profile.profile import Profile
from colabkit.pipelines.dataset.segments.segment import channel_of, key_of
from colabkit.pipelines.dataset.segments.walk import look, opened

__all__ = ["Profile", "profile_segments", "require_plannable"]

MOST_INSPECTED = 20_000  # files whose headers are all read; of more, a sample
SAMPLE = 4_000
LISTENED = 48
_TOO_UNSURE = 0.05  # of the hours: half of the interval
_BROKEN_TOLD = 20


def profile_segments(
    place: Place | str | os.PathLike,
    *,
    sample: int | None = None,
    listen: int = LISTENED,
    workers: int = 4,
    expected_hours: float | None = None,
    default_rate_hz: int | None = None,
    frame_rate_hz: float = 50.0,
    num_codebooks: int = 1,
    seed: int = 0,
) -> Profile:
    """Look at the segments below a place: all headers, or of many files a sample of every channel and size.

    `sample` is how many files are inspected: None takes all up to MOST_INSPECTED, else SAMPLE. Shards with an index are
    known exactly from it. `listen` files are read whole and heard. `frame_rate_hz` and `num_codebooks` are of the codec
    whose codes' bytes are estimated. Raises: DataError for a place without segments; what the place raises when it does
    not answer.
    """
    objects = opened(place)
    index, listing = look(objects)
    if index is not None:
        facts, sizes = _facts_of(index), np.asarray(index.arrays["length"], np.int64)
        chosen, names = np.arange(len(index)), index.keys.to_list()
        channels = [fact.channel for fact in facts]
    else:
        names, sizes = list(listing), np.fromiter(listing.values(), np.int64)
        channels = [channel_of(name) for name in names]
        wanted = sample if sample is not None else len(names) if len(names) <= MOST_INSPECTED else SAMPLE
        chosen = choose_sample(channels, sizes, wanted, seed)
        facts = _inspect_all(objects, [(names[i], int(sizes[i])) for i in chosen], workers)
        if len(facts) == len(names):
            channels = [fact.channel for fact in facts]  # what the files themselves say
    heard = listen_to(objects, index, [f.name for f in facts if not f.fault], listen, seed, default_rate_hz)
    seconds = [0.0 if f.fault else f.seconds(default_rate_hz) for f in facts]
    total = estimate_total(channels, sizes, chosen, seconds) if any(not f.fault for f in facts) else None
    found = _counted_facts(facts, default_rate_hz)
    hours = total.total / 3600 if total is not None else None
    return Profile(
        address=objects.address,
        num_files=len(names),
        num_bytes=int(sizes.sum()),
        num_inspected=len(facts),
        hours=hours,
        hours_margin=total.margin / 3600 if total is not None else 0.0,
        expected_hours=expected_hours,
        default_rate_hz=default_rate_hz,
        channels=_counted(channels),
        file_bytes=_quantiles(sizes),
        listened=heard,
        channel_hours={c: s / 3600 for c, s in sorted(total.by_group.items())} if total is not None else {},
        num_duplicate_keys=len(names) - len(set(names if index is not None else map(key_of, names))),
        estimates_bytes=_estimates(hours, frame_rate_hz * num_codebooks * 2, heard),
        **found,
    )


def require_plannable(found: Profile, *, most_broken_fraction: float = 0.05) -> Profile:
    """Return the profile when work can be planned on it.

    Segments may have several rates: each is read at its own, and brought to the codec's. Raises: DataError when no
    length or rate is known, the hours are too uncertain, or too much is broken.
    """
    if found.num_without_rate and found.default_rate_hz is None:
        raise DataError(
            "Cannot plan: segments do not say their rate",
            got=f"{found.num_without_rate} of {found.num_inspected}",
            expected="a rate in every file",
            where=found.address,
            fix="if you know it, say it: --set segments.default_rate_hz=24000",
        )
    if found.hours is None or not found.hours:
        raise DataError(
            "Cannot plan: how long the segments are is not known",
            got=f"{found.num_broken} broken of {found.num_inspected} inspected",
            where=found.address,
            expected="segments that can be read",
            fix="see why above; where no rate is told, --set segments.default_rate_hz=24000",
        )
    if found.hours_margin > _TOO_UNSURE * found.hours:
        raise DataError(
            "Cannot plan: the hours are too uncertain",
            got=f"{found.hours:.1f} h ± {found.hours_margin:.1f} (95 %)",
            expected=f"±  {_TOO_UNSURE:.0%} at most",
            where=found.address,
            fix=f"inspect more files: --set segments.sample={min(found.num_files, 4 * found.num_inspected)}",
        )
    if found.num_broken > most_broken_fraction * found.num_inspected:
        raise DataError(
            "Cannot plan: too many segments are broken",
            got=f"{found.num_broken} of {found.num_inspected}",
            expected=f"at most {most_broken_fraction:.0%}",
            where=found.address,
            fix="mend or remove them; or leave them aside: "
            f"--set segments.most_broken_fraction={math.ceil(100 * found.num_broken / found.num_inspected) / 100:g}",
        )
    return found


def _inspect_all(objects: Place, wanted: Sequence[tuple[str, int]], workers: int) -> list[Facts]:
    def look_at(k: int) -> Facts:
        name, size = wanted[k]
        return inspect(lambda start, stop: objects.get(name, start, stop), name, size)

    with (
        Progress(len(wanted), "profile", unit="files") as progress,
        closing(prefetch(look_at, 0, len(wanted), workers=workers, ahead=16 * workers)) as made,
    ):
        facts = []
        for found in made:
            facts.append(found)
            progress.update()
    return facts


def _facts_of(index: SampleIndex) -> list[Facts]:
    columns = {name: text.to_list() for name, text in index.columns.items()}
    empty = [""] * len(index)
    channel, speaker, text = (columns.get(name, empty) for name in ("channel", "speaker", "text"))
    arrays = {name: values.tolist() for name, values in index.arrays.items()}
    return [
        Facts(
            name=key,
            num_bytes=arrays["length"][i],
            num_samples=arrays["frames"][i],
            rate_hz=arrays["rate_hz"][i],
            dtype="in shards",
            channel=channel[i] or channel_of(key),
            speaker=speaker[i],
            has_text=bool(text[i]),
            content=f"{arrays['crc32'][i]:08x}-{arrays['length'][i]}",
        )
        for i, key in enumerate(index.keys.to_list())
    ]


def _counted_facts(facts: Sequence[Facts], default_rate_hz: int | None) -> dict[str, Any]:
    """Return those fields of a profile that count what was inspected."""
    whole = [f for f in facts if not f.fault]
    seconds = [s for f in whole if (s := f.seconds(default_rate_hz)) is not None]
    speakers = Counter(f.speaker for f in whole if f.speaker)
    contents = Counter(f.content for f in whole if f.content)
    counts, edges = np.histogram(seconds, bins=30) if seconds else (np.zeros(0, int), np.zeros(0))
    return {
        "rates_hz": _counted(str(rate) for f in whole if (rate := f.rate_hz or default_rate_hz)),
        "dtypes": _counted(f.dtype for f in whole),
        "num_channels": _counted(str(f.num_channels) for f in whole),
        "num_without_rate": sum(not f.rate_hz for f in whole),
        "num_with_text": sum(f.has_text for f in whole),
        "num_with_codes": sum(f.has_codes for f in whole),
        "speakers": len(speakers),
        "largest_speakers": dict(speakers.most_common(10)),
        "durations_seconds": _quantiles(np.array(seconds)),
        "duration_counts": counts.tolist(),
        "duration_edges_seconds": edges.tolist(),
        "num_broken": len(facts) - len(whole),
        "broken": dict([(f.name, f.fault) for f in facts if f.fault][:_BROKEN_TOLD]),
        "num_duplicate_audio": sum(n - 1 for n in contents.values()),
    }


def _estimates(hours: float | None, code_bytes_a_second: float, heard: Listened) -> dict[str, float]:
    seconds = (hours or 0.0) * 3600
    return (
        {
            "codes": seconds * code_bytes_a_second,
            "PCM16 16 kHz": seconds * 32_000,
            "FLAC 16 kHz": seconds * heard.flac_bytes_a_second,
        }
        if hours
        else {}
    )


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _quantiles(values: np.ndarray) -> list[float]:
    return np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]).tolist() if len(values) else []
