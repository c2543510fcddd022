"""Fetch segments: neighbours in a shard by one range, each payload into the spool, and what is broken told."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from colabkit.core.disk import disk_fault
from colabkit.core.errors import ChangedError, ColabkitError, DataError, StateError, UsageError
from colabkit.io.places.http.patience import Unreachable
from colabkit.io.places.place import Place
from colabkit.pipelines.dataset.codecs.codec import Codec
from colabkit.pipelines.dataset.encode.spool import Spool
from colabkit.pipelines.dataset.segments.segment import Segment
from colabkit.pipelines.dataset.store.items import Item, Items

CHANGED = "changed since it was planned"
ReadSegment = Callable[[bytes, str, Mapping[str, str]], Segment]
_RANGE_BYTES = 8 << 20  # of one read: large enough that the way there and back does not count
ROOM_SECONDS = 60.0  # how long a disk that others have filled is waited for
_GAP_BYTES = 64 << 10  # what lies between two segments of a shard and is read with them
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_MAGIC = (
    (b"fLaC", ".flac"),
    (b"RIFF", ".wav"),
    (b"PK", ".npz"),
    (b"OggS", ".ogg"),
    (b"ID3", ".mp3"),
    (b"\xff", ".mp3"),
)


class LeftAsideError(Exception):
    """An item cannot be used; `args[0]` says why, `changed` that it is another one than was planned."""

    def __init__(self, reason: str, *, changed: bool = False):
        super().__init__(reason)
        self.reason, self.changed = reason, changed


@dataclass(slots=True)
class Order:
    """Items that are fetched by one request, and the room they take."""

    numbers: list[int]
    costs: dict[int, int]
    future: Future = field(default_factory=Future)

    @property
    def cost(self) -> int:
        return sum(self.costs.values())


@dataclass(frozen=True, slots=True)
class Fetched:
    """An item that lies in the spool with its length in frames of the codec, or the reason why it is left aside."""

    number: int
    num_frames: int = 0
    seconds: float = 0.0
    reason: str = ""
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A segment at the codec's rate. wave: (sample,) float32; `known` goes into its row."""

    wave: np.ndarray
    known: dict[str, object]


class Fetcher:
    """Reads items of a plan from their source. Safe for many threads."""

    def __init__(
        self,
        source: Place,
        items: Items,
        spool: Spool,
        codec: Codec,
        read_segment: ReadSegment,
        *,
        most_cost: int,
        say: Callable[[str], None] = print,
        room_seconds: float | None = None,
    ):
        self.source, self.items, self.spool, self.codec, self.read_segment = source, items, spool, codec, read_segment
        self.most_cost, self.say = most_cost, say
        self.room_seconds = ROOM_SECONDS if room_seconds is None else room_seconds
        self.halted = threading.Event()  # whoever waits for room is to leave
        self.num_bytes = 0
        self.adopted: set[int] = set()  # items that an earlier run has fetched
        self._lock = threading.Lock()
        self._told_full = False

    def orders(self, numbers: Iterable[int]) -> Iterator[Order]:
        """Yield what to fetch together, in order."""
        items, order = self.items, None
        for number in numbers:
            cost = self.spool.cost(int(items.length[number]))
            if order is not None and self._joins(order, number, cost):
                order.numbers.append(number)
                order.costs[number] = cost
                continue
            if order is not None:
                yield order
            order = Order([number], {number: cost})
        if order is not None:
            yield order

    def _joins(self, order: Order, number: int, cost: int) -> bool:
        items, first, last = self.items, order.numbers[0], order.numbers[-1]
        if items.is_whole[number] or items.objects[number] != items.objects[last]:
            return False
        gap = int(items.offset[number] - items.offset[last] - items.length[last])
        span = int(items.offset[number] + items.length[number] - items.offset[first])
        return 0 <= gap <= _GAP_BYTES and span <= _RANGE_BYTES and order.cost + cost <= self.most_cost

    def fetch(self, order: Order) -> list[Fetched]:
        """Bring an order's items into the spool and look at them. Raises: what is no fault of an item."""
        missing = [n for n in order.numbers if n not in self.adopted or not self._lies_there(n)]
        try:
            payloads = self._read(missing) if missing else {}
        except LeftAsideError as error:
            return [Fetched(n, reason=error.reason, changed=error.changed) for n in order.numbers]
        return [self._looked_at(n, payloads.pop(n, None)) for n in order.numbers]

    def _lies_there(self, number: int) -> bool:
        payload = self.spool.take(self.name_of(number))
        return payload is not None and self._fits(number, payload)

    def prepare(self, number: int) -> Prepared:
        """Return an item's wave and what is known of it. Raises: LeftAsideError."""
        segment, crc32 = self.segment(number)
        wave = _at_rate(segment.wave, segment.rate_hz, self.codec.rate_hz_in)
        return Prepared(
            wave,
            {
                "num_samples": len(segment.wave),
                "rate_hz": segment.rate_hz,
                "speaker": segment.speaker,
                "channel": segment.channel,
                "text": segment.text,
                "metadata": json.dumps(dict(segment.metadata), ensure_ascii=False, sort_keys=True),
                "crc32": crc32,
            },
        )

    def segment(self, number: int) -> tuple[Segment, int]:
        """Return an item's segment, from the spool or, where it vanished, from the source, and its bytes' CRC-32."""
        payload = self.spool.take(self.name_of(number))
        if payload is None:
            payload = self._read([number])[number]
        return self._parse(self.items[number], payload), zlib.crc32(payload)

    def name_of(self, number: int) -> str:
        """Return what an item is called in the spool: another one when it changes."""
        return hashlib.sha256(self.items[number].identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def _read(self, numbers: list[int]) -> dict[int, bytes]:
        first, last = self.items[numbers[0]], self.items[numbers[-1]]
        for is_last_try in (False, True):
            try:
                content = self._get(first, last)
            except ChangedError as error:
                raise LeftAsideError(f"{CHANGED}: {error.got}", changed=True) from error
            except (Unreachable, UsageError, StateError):
                raise
            except DataError as error:
                raise LeftAsideError(_told(error)) from error
            with self._lock:
                self.num_bytes += len(content)
            payloads = {numbers[0]: content}
            if not first.is_whole:
                starts = {n: self.items.offset[n] - first.offset for n in numbers}
                payloads = {n: content[start : start + self.items.length[n]] for n, start in starts.items()}
            if is_last_try or all(self._fits(n, payload) for n, payload in payloads.items()):
                return payloads
        raise AssertionError("the last try returns or raises")

    def _get(self, first: Item, last: Item) -> bytes:
        if first.is_whole:
            return self.source.get(first.object, version=first.version)
        return self.source.get(first.object, first.offset, last.offset + last.length, version=first.version)

    def _fits(self, number: int, payload: bytes) -> bool:
        expected = int(self.items.crc32[number])
        return len(payload) == self.items.length[number] and (expected == -1 or expected == zlib.crc32(payload))

    def _looked_at(self, number: int, payload: bytes | None) -> Fetched:
        try:
            if payload is not None and not self._fits(number, payload):
                raise LeftAsideError(
                    f"its bytes are not those that were uploaded: {len(payload)} bytes with another checksum"
                )
            num_samples, rate_hz = int(self.items.num_samples[number]), int(self.items.rate_hz[number])
            if not num_samples:
                held = payload if payload is not None else self.spool.take(self.name_of(number))
                segment = self._parse(self.items[number], held or b"")
                num_samples, rate_hz = len(segment.wave), segment.rate_hz
            if not num_samples:
                raise LeftAsideError("it holds no audio")
            if payload is not None:
                self._keep(number, payload)
            num_frames = self.codec.num_frames(_num_samples_at(num_samples, rate_hz, self.codec.rate_hz_in))
            return Fetched(number, num_frames, num_samples / rate_hz)
        except LeftAsideError as error:
            return Fetched(number, reason=error.reason, changed=error.changed)

    def _parse(self, item: Item, payload: bytes) -> Segment:
        suffix = next((suffix for magic, suffix in _MAGIC if payload.startswith(magic)), "")
        name = item.object if item.is_whole else item.key + suffix
        try:
            return self.read_segment(payload, name, json.loads(item.columns) if item.columns else {})
        except (StateError, UsageError):
            raise
        except ColabkitError as error:
            raise LeftAsideError(_told(error)) from error
        except (ValueError, TypeError, KeyError, EOFError, OSError, RuntimeError) as error:  # of libraries
            raise LeftAsideError(f"{type(error).__name__}: {error}".splitlines()[0]) from error

    def _keep(self, number: int, payload: bytes) -> None:
        """Put a payload into the spool; a disk that others have filled is waited for. Raises: StateError."""
        until = time.monotonic() + self.room_seconds
        while True:
            try:
                self.spool.put(self.name_of(number), payload)
                return
            except OSError as error:
                if error.errno not in FULL or time.monotonic() > until or self.halted.is_set():
                    raise disk_fault(
                        error,
                        self.spool.folder,
                        "keep what was fetched ahead",
                        needed_bytes=len(payload),
                    ) from error
                if not self._told_full:
                    self.say("  WARNING others have filled the disk: waiting until there is room")
                self._told_full = True
            self.halted.wait(0.2)


def _told(error: ColabkitError) -> str:
    return str(error).splitlines()[0]


def _num_samples_at(num_samples: int, rate_hz: int, wanted_hz: int) -> int:
    return -(-num_samples * wanted_hz // rate_hz)


def _at_rate(wave: np.ndarray, rate_hz: int, wanted_hz: int) -> np.ndarray:
    """Return a wave at another rate, of the length that was planned with. wave: (sample,)."""
    if rate_hz == wanted_hz:
        return np.ascontiguousarray(wave, np.float32)
    import soxr

    length = _num_samples_at(len(wave), rate_hz, wanted_hz)
    made = soxr.resample(wave, rate_hz, wanted_hz)[:length]
    return np.pad(made, (0, length - len(made))).astype(np.float32, copy=False)
