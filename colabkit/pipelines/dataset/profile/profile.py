"""Profile of a store or folder of segments: what it holds, how it reads, and its picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from colabkit.core import files
from colabkit.core.disk import in_units
from colabkit.core.table import COLOURS, Table, new_figure, save_figure
from colabkit.pipelines.dataset.profile.heard import Listened

_WIDTHS = {"float16": 2, "float32": 4, "float64": 8, "int16": 2, "int32": 4}
_MOST_CHANNELS = 12  # that are drawn
_BELIEVABLE = ((16_000, "int16"), (16_000, "float32"), (24_000, "float32"), (48_000, "float32"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a place of segments holds. Of a sample, counts by rate, type and broken files are those of the sample.

    `hours` is None where the length of what is there cannot be known; `hours_margin` is half of its 95 % interval, 0
    when every header was read. `durations_seconds` are quantiles 0, 5, 25, 50, 75, 95 and 100 %; those below "channels"
    are hours.
    """

    address: str
    num_files: int
    num_bytes: int
    num_inspected: int
    hours: float | None
    hours_margin: float = 0.0
    expected_hours: float | None = None
    default_rate_hz: int | None = None
    rates_hz: dict[str, int] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    num_channels: dict[str, int] = field(default_factory=dict)
    num_without_rate: int = 0
    num_with_text: int = 0
    num_with_codes: int = 0
    channels: dict[str, int] = field(default_factory=dict)
    channel_hours: dict[str, float] = field(default_factory=dict)
    speakers: int = 0
    largest_speakers: dict[str, int] = field(default_factory=dict)
    file_bytes: list[float] = field(default_factory=list)
    durations_seconds: list[float] = field(default_factory=list)
    duration_counts: list[int] = field(default_factory=list)
    duration_edges_seconds: list[float] = field(default_factory=list)
    num_broken: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    num_duplicate_keys: int = 0
    num_duplicate_audio: int = 0
    listened: Listened = field(default_factory=Listened)
    estimates_bytes: dict[str, float] = field(default_factory=dict)

    @property
    def is_sample(self) -> bool:
        return self.num_inspected < self.num_files

    def contradiction(self) -> str:
        """Return how what is there differs from what was expected, "" where it does not by more than a tenth."""
        if (
            not self.expected_hours
            or self.hours is None
            or abs(self.hours - self.expected_hours) <= 0.1 * self.expected_hours
        ):
            return ""
        per_second = self.num_bytes / (self.expected_hours * 3600)
        kinds = [
            (int(rate), dtype) for rate in self.rates_hz for dtype in self.dtypes if dtype in _WIDTHS
        ] or _BELIEVABLE
        meant = ", ".join(
            f"{rate / 1000:g} kHz {dtype} is {rate * _WIDTHS[dtype] / 1000:.1f} kB/s "
            f"({self.num_bytes / (rate * _WIDTHS[dtype] * 3600):.0f} h)"
            for rate, dtype in kinds
        )
        return (
            f"{self.num_bytes / 1e9:.4g} GB in {self.expected_hours:g} h would be "
            f"{per_second / 1000:.1f} kB for a second; {meant}; "
            f"there are {self.hours:.4g} h, not {self.expected_hours:g}"
        )

    def table(self) -> Table:
        """Return all of it for people."""
        return Table(["what", "found"], _rows(self), f"Segments in {self.address}")

    def save(self, path: Path) -> None:
        """Write all of it as JSON."""
        files.write_json(path, asdict(self))


def length_text(found: Profile) -> str:
    """Write the length of all, and how sure it is."""
    if found.hours is None:
        return "not known"
    unit, scale = ("h", 1) if found.hours >= 1 else ("min", 60)
    about = f"{found.hours * scale:,.{2 if found.hours * scale < 100 else 1}f} {unit}"
    if not found.is_sample:
        return f"{about}, exact"
    margin = found.hours_margin * scale
    return f"{about} ± {margin:.2g} {unit} (95 %, from {found.num_inspected:,} of {found.num_files:,} files)"


def draw_profile(found: Profile, path: Path) -> None:
    """Draw how long the segments are, and the hours of each channel, as a PNG."""
    figure, axes = new_figure(1, (7.0, 5.0))
    axes.remove()
    above, below = figure.subplots(2, 1)  # each with its own unit below it
    edges = found.duration_edges_seconds
    if edges:
        widths = [b - a for a, b in zip(edges, edges[1:], strict=False)]
        above.bar(
            edges[:-1], found.duration_counts, widths, align="edge", color=COLOURS[0], edgecolor="white", linewidth=0.4
        )
    above.set_xlabel("length in seconds")
    above.set_ylabel("segments" + (" of the sample" if found.is_sample else ""))
    above.set_title(f"{found.num_files:,} segments, {length_text(found)}", loc="left", fontsize=10)
    hours = dict(sorted(found.channel_hours.items(), key=lambda item: -item[1])[:_MOST_CHANNELS])
    unit, scale = ("hours", 1) if max(hours.values(), default=0) >= 1 else ("minutes", 60)
    names = [name or "(none named)" for name in hours][::-1]
    below.barh(names, [scale * value for value in hours.values()][::-1], color=COLOURS[2])
    below.set_xlabel(unit)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _rows(found: Profile) -> list[list[object]]:
    lengths, sizes, heard = found.durations_seconds, found.file_bytes, found.listened
    rows: list[list[object]] = [
        [
            "files",
            f"{found.num_files:,}, {found.num_bytes / 1e9:.4g} GB"
            + (f", {in_units(sizes[0])} to {in_units(sizes[-1])}, half below {in_units(sizes[3])}" if sizes else ""),
        ],
        [
            "inspected",
            f"{found.num_inspected:,}, a sample of every channel and size" if found.is_sample else "all headers",
        ],
        ["length in all", length_text(found)],
        [
            "lengths",
            f"{lengths[0]:.2f} to {lengths[-1]:.2f} s, half below {lengths[3]:.2f} s" if lengths else "not known",
        ],
        ["rate", _parts(found.rates_hz, " Hz") + _unless_zero(found.num_without_rate, " do not tell theirs")],
        ["type", _parts(found.dtypes)],
        ["audio channels", _parts(found.num_channels)],
        ["channels", _parts(found.channels) or "none named"],
        ["speakers", f"{found.speakers:,}, most: {_parts(found.largest_speakers)}" if found.speakers else "none named"],
        ["with text", f"{found.num_with_text:,}"],
        ["with codes", f"{found.num_with_codes:,}"],
        [
            "broken",
            f"{found.num_broken:,}" + "".join(f"\n{name}: {fault}" for name, fault in list(found.broken.items())[:5]),
        ],
        ["duplicates", f"{found.num_duplicate_keys:,} keys, {found.num_duplicate_audio:,} the same audio"],
        [
            "heard",
            f"{heard.num_heard}: {heard.num_clipped} clipped, {heard.num_silent} silent, {heard.num_faulty} faulty"
            + (f", median {heard.median_lufs:.1f} LUFS" if heard.median_lufs is not None else "")
            + "".join(f"\n{fault}" for fault in heard.faults),
        ],
    ]
    rows += [
        [f"would be: {name}", f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"]
        for name, size in found.estimates_bytes.items()
    ]
    if found.contradiction():
        rows.append(["CONTRADICTION", found.contradiction()])
    return rows


def _parts(counts: Mapping[str, int], unit: str = "") -> str:
    shown = [
        f"{name or '(none)'}{unit} ({number:,})" if len(counts) > 1 else f"{name or '(none)'}{unit}"
        for name, number in list(counts.items())[:8]
    ]
    return ", ".join(shown) + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")


def _unless_zero(number: int, text: str) -> str:
    return f"; {number:,}{text}" if number else ""
