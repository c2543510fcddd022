"""What the known codecs are, as published: rates, codes and what an hour of them weighs; for tables and plans, not to encode."""

from __future__ import annotations

import math
from dataclasses import dataclass

from colabkit.core.errors import UsageError
from colabkit.core.table import Table
from colabkit.pipelines.dataset.codecs.codec import Codec
from colabkit.pipelines.dataset.codecs.names import FITTED, HUB_IDS


@dataclass(frozen=True, slots=True)
class CodecFacts:
    """One codec as it is used here without further settings; codes are stored as uint16."""

    name: str
    hub_id: str
    rate_hz_in: int
    rate_hz_out: int
    frame_rate_hz: float
    num_codebooks: int
    codebook_size: int

    @property
    def codes_per_second(self) -> float:
        return self.frame_rate_hz * self.num_codebooks

    @property
    def kbps(self) -> float:
        return self.codes_per_second * math.log2(self.codebook_size) / 1000

    @property
    def bytes_per_hour(self) -> int:
        return round(3600 * self.codes_per_second * 2)


_KNOWN = {facts.name: facts for facts in (
    CodecFacts("neucodec", HUB_IDS["neucodec"], 16_000, 24_000, 50.0, 1, 65_536),
    CodecFacts("xcodec2", HUB_IDS["xcodec2"], 16_000, 16_000, 50.0, 1, 65_536),
    CodecFacts("mimi", HUB_IDS["mimi"], 24_000, 24_000, 12.5, 32, 2_048),
    CodecFacts("encodec", HUB_IDS["encodec"], 24_000, 24_000, 75.0, 2, 1_024),
    CodecFacts("dac-16khz", HUB_IDS["dac-16khz"], 16_000, 16_000, 50.0, 12, 1_024),
    CodecFacts("dac", HUB_IDS["dac"], 24_000, 24_000, 75.0, 32, 1_024),
    CodecFacts("dac-44khz", HUB_IDS["dac-44khz"], 44_100, 44_100, 44_100 / 512, 9, 1_024),
    CodecFacts(FITTED, "fitted on your data", 16_000, 16_000, 50.0, 8, 256))}


def facts(name: str) -> CodecFacts:
    """Return what is known of a codec by its short name or Hub id. Raises: UsageError for another one."""
    for known in _KNOWN.values():
        if name.partition("@")[0] in (known.name, known.hub_id) or (name == "dac-24khz" and known.name == "dac"):
            return known
    raise UsageError("Nothing is known of this codec without opening it", got=name, expected=", ".join(_KNOWN),
                     fix="open it: facts_of(open_codec(name))")


def facts_of(codec: Codec) -> CodecFacts:
    """Return the facts of an opened codec."""
    return CodecFacts(codec.name, codec.name, codec.rate_hz_in, codec.rate_hz_out, codec.frame_rate_hz, codec.num_codebooks,
                      codec.codebook_size)


def table() -> Table:
    """Return all known codecs for people."""
    return Table(["codec", "model", "in, kHz", "out, kHz", "frames/s", "codebooks", "size", "kbit/s", "MB/hour"],
                 [[f.name, f.hub_id, f.rate_hz_in / 1000, f.rate_hz_out / 1000, round(f.frame_rate_hz, 2), f.num_codebooks,
                   f.codebook_size, round(f.kbps, 2), round(f.bytes_per_hour / 1e6, 2)] for f in _KNOWN.values()])
