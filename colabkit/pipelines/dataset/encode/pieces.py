"""The plan: which segments make which piece of the result. A function of the listing and the settings alone.

A plan is put into the store once and holds for all who work on it. What is uploaded later makes a generation of its own
behind it: nothing that is done is planned anew.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from colabkit.core.errors import ChangedError, DataError
from colabkit.io.places.place import Place, Taken
from colabkit.pipelines.dataset.store.items import Items

FORMAT = 1
PLANS = "codes/plan"
_METADATA = b"colabkit.plan"
_NAME = re.compile(rf"{PLANS}/(\d{{5}})\.parquet")
_ARRAYS = ("offset", "length", "is_whole", "crc32", "num_samples", "rate_hz")


@dataclass(frozen=True, slots=True)
class Piece:
    """Segments start..stop of a plan, committed together. `id` sorts in the order of the work."""

    id: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Generation:
    """One plan as it lies in the store.

    `bounds` are where its pieces end. `replaces`: none before it counts any more.
    """

    number: int
    items: Items
    bounds: tuple[int, ...]
    settings: dict
    replaces: bool = False


class Plan:
    """The generations that count, one after another: `items` of all, and their `pieces`."""

    def __init__(self, generations: Sequence[Generation]):
        self.generations = list(generations)
        self.items = Items.join([g.items for g in self.generations])
        self.pieces: list[Piece] = []
        start = 0
        for generation in self.generations:
            for number, (first, last) in enumerate(pairwise((0, *generation.bounds))):
                self.pieces.append(Piece(f"{generation.number:05d}-{number:05d}", start + first, start + last))
            start += len(generation.items)

    @property
    def digest(self) -> str:
        """Name the numbering of the pieces: what is added later does not change it."""
        first = self.generations[0]
        text = json.dumps([first.number, first.bounds, first.items.keys[:1], first.items.keys[-1:]])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def inputs_hash(self, piece: Piece, codec_fingerprint: str) -> str:
        """Return what names the result of a piece: its segments, their versions, the codec and the format."""
        digest = hashlib.sha256(f"{FORMAT}\0{codec_fingerprint}".encode())
        for i in range(piece.start, piece.stop):
            digest.update(b"\n" + self.items[i].identity.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:32]

    def pieces_of(self, wanted: Items) -> list[Piece]:
        """Return the pieces that hold any of some segments."""
        if len(wanted) == len(self.items):
            return list(self.pieces)
        places = set(wanted.places())
        holds = np.fromiter((place in places for place in self.items.places()), bool, len(self.items))
        return [piece for piece in self.pieces if holds[piece.start : piece.stop].any()]


def cut(lengths: np.ndarray, most_bytes: int) -> tuple[int, ...]:
    """Return where parts end that hold up to `most_bytes`, or one segment that is larger. lengths: (item,)."""
    ends = np.cumsum(lengths)
    bounds, start = [], 0
    while start < len(lengths):
        before = int(ends[start - 1]) if start else 0
        start = max(start + 1, int(np.searchsorted(ends, before + most_bytes, "right")))
        bounds.append(start)
    return tuple(bounds)


def make_plan(
    wanted: Items,
    output: Place,
    settings: dict,
    piece_bytes: int,
    *,
    redo: Callable[[Plan], bool] | None = None,
    write: bool = True,
) -> Plan:
    """Return the plan in the store with a generation for what it does not hold yet; who writes it first has written it.

    `redo` tells of the plan so far whether all is to be made anew. With `write=False` nothing is put.
    Raises: ChangedError when the plan was made with other settings; DataError for one that is damaged.
    """
    known: dict[int, Generation] = {}
    while True:
        known |= dict(_read_generations(output, known))
        generations = [known[number] for number in sorted(known)]
        for generation in generations:
            _check_settings(generation, settings, output.address)
        anew = max((i for i, g in enumerate(generations) if g.replaces), default=0)
        counting = generations[anew:]
        replaces = bool(counting and redo and redo(Plan(counting)))
        new = wanted if replaces or not counting else _new_items(wanted, counting)
        if not len(new):
            return Plan(counting)
        number = max(known, default=-1) + 1
        made = Generation(number, new, cut(new.length, piece_bytes), settings, replaces)
        try:
            if write:
                output.put(f"{PLANS}/{number:05d}.parquet", _to_bytes(made), only_if_absent=True)
        except Taken:
            continue  # another worker has put the same, or what it found; read it and look again
        return Plan([made] if replaces else [*counting, made])


def _check_settings(generation: Generation, settings: dict, where: str) -> None:
    """Raise ChangedError when a plan was made with other settings."""
    changed = [name for name, value in settings.items() if generation.settings.get(name) != value]
    if changed:
        raise ChangedError(
            "The codes here are made with other settings",
            where=where,
            got=", ".join(f"{name}={generation.settings.get(name)!r}" for name in changed),
            expected=", ".join(f"{name}={settings[name]!r}" for name in changed),
            fix="go on with those settings, or choose another prefix for these",
        )


def _new_items(wanted: Items, generations: list[Generation]) -> Items:
    known = {place for g in generations for place in g.items.places()}
    is_new = np.fromiter((place not in known for place in wanted.places()), bool, len(wanted))
    return wanted.take(is_new)


def _read_generations(output: Place, known: dict[int, Generation]) -> Iterator[tuple[int, Generation]]:
    for found in list(output.list(PLANS)):
        match = _NAME.fullmatch(found.name)
        if match and int(match[1]) not in known:
            yield int(match[1]), _from_bytes(output.get(found.name), f"{output.address}/{found.name}")


def _to_bytes(generation: Generation) -> bytes:
    """Return a plan as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = generation.items
    columns = {"key": items.keys, "object": items.objects, "version": items.versions, "columns": items.columns}
    table = pa.table(
        {name: pa.array([_printable(v) for v in values], pa.string()) for name, values in columns.items()}
        | {name: getattr(items, name) for name in _ARRAYS}
    )
    header = {
        "version": FORMAT,
        "number": generation.number,
        "bounds": generation.bounds,
        "settings": generation.settings,
        "replaces": generation.replaces,
    }
    sink = pa.BufferOutputStream()
    are_whole = bool(items.is_whole.all())  # then each has another name and version; else they repeat
    pq.write_table(
        table.replace_schema_metadata({_METADATA: json.dumps(header).encode()}),
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=["columns"] if are_whole else ["object", "version", "columns", "rate_hz"],
        column_encoding=dict.fromkeys(["key", "object"] if are_whole else ["key"], "DELTA_BYTE_ARRAY"),
    )
    return sink.getvalue().to_pybytes()


def _from_bytes(content: bytes, where: str) -> Generation:
    """Read a plan. Raises: DataError, ChangedError for one of another format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
        header = json.loads(table.schema.metadata[_METADATA])
        texts = (table[name].to_pylist() for name in ("key", "object", "version", "columns"))
        items = Items(*texts, *(table[name].to_numpy() for name in _ARRAYS)) if header["version"] == FORMAT else None
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "The plan in the store is damaged",
            got=f"{type(error).__name__}: {error}",
            where=where,
            expected="a Parquet file of a plan",
            fix="choose another prefix for the codes, or delete codes/ there to begin anew",
        ) from error
    if items is None:
        raise ChangedError(
            "The plan in the store was made by another version of colabkit",
            got=f"format {header['version']}",
            expected=f"format {FORMAT}",
            where=where,
            fix="go on with that version, or choose another prefix",
        )
    return Generation(header["number"], items, tuple(header["bounds"]), header["settings"], header["replaces"])


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
