"""A profile's picture: how long the segments are, and the hours of each channel."""

from __future__ import annotations

from pathlib import Path

from colabkit.core.table import COLOURS, new_figure, save_figure
from colabkit.pipelines.dataset.profile.profile import Profile, length_text

_MOST_CHANNELS = 12


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
