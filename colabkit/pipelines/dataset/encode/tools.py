"""Tools that the parts of the engine share, the piece in hand, and what was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from colabkit.core.teller import Teller
from colabkit.io.places.place import Place
from colabkit.pipelines.dataset.encode.claims import Claims
from colabkit.pipelines.dataset.encode.codec_calls import Encoder
from colabkit.pipelines.dataset.encode.credits import Credits
from colabkit.pipelines.dataset.encode.fetch import Fetcher
from colabkit.pipelines.dataset.encode.journal import Journal
from colabkit.pipelines.dataset.encode.pieces import Piece, Plan
from colabkit.pipelines.dataset.store.commit import Committer


@dataclass(slots=True)
class Tally:
    """What was done in this run; num_items are those settled in one way or the other."""

    num_items: int = 0
    num_encoded: int = 0
    num_left_aside: int = 0
    num_changed: int = 0
    num_batches: int = 0
    num_pieces: int = 0
    seconds_to_first: float | None = None
    stopped: bool = False


@dataclass(slots=True)
class Work:
    """A piece being worked on: its claim's token, how many items are not settled, and the states of the others."""

    piece: Piece
    token: int = 0
    num_left: int = 0
    states: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What the engine works with."""

    plan: Plan
    fetcher: Fetcher
    credits: Credits
    journal: Journal
    committer: Committer
    encoder: Encoder
    output: Place
    claims: Claims | None
    journal_bytes: int  # of the quota, kept for the journal
    write_npz: Callable[[Any], bytes] | None
    problem: Callable[[str, str], None]
    teller: Teller  # asked whether to stop
    tick: Callable[[Tally], None]  # called now and then
    most_failed_fraction: float = 0.5
    num_downloads: int = 16
    num_decoders: int = 3
    num_uploads: int = 8
    poll_seconds: float = 5.0
