"""Claims on pieces: machines that share nothing but the store work on different ones, and take over from the dead."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from colabkit.core.errors import DataError
from colabkit.io.places.place import Place, Taken

CLAIMS = "codes/claims"
LEASE_SECONDS = 120.0


@dataclass(slots=True)
class _Held:
    version: str
    token: int
    beat: int = 0


class Claims:
    """The claims of one worker. Safe for many threads.

    A claim is renewed by replacing it; one that nobody has renewed for `lease_seconds`, as watched by our own clock, is
    over and may be taken. No two clocks are compared. Who takes a claim over gets a higher token (fencing): it is part
    of what is committed. Claims save work; that nothing is committed twice is what the conditional put of a manifest
    sees to.
    """

    def __init__(
        self,
        output: Place,
        worker: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.output, self.worker, self.lease_seconds, self.say, self.clock = output, worker, lease_seconds, say, clock
        self._held: dict[str, _Held] = {}
        self._seen: dict[str, tuple[str, float]] = {}  # the version of a claim, and since when it is that
        self._others: set[str] = set()
        self._lock = threading.Lock()

    def look(self) -> None:
        """Note the versions of all claims: one listing."""
        for found in self.output.list(CLAIMS):
            self._note(found.name.removeprefix(f"{CLAIMS}/").removesuffix(".json"), found.version)

    def take(self, piece: str) -> int | None:
        """Claim a piece; returns the token, None while another worker has it."""
        with self._lock:
            seen = self._seen.get(piece) if piece in self._others else None
        if seen is not None and not self._is_over(seen):
            return None
        found = self.output.get_if_there(self._name(piece))
        if found is None:
            return self._put(piece, 1, version="")
        content, version = found
        owner, token = _read(content)
        with self._lock:
            is_ours = piece in self._held
        if is_ours:
            return token
        if owner != self.worker:
            with self._lock:
                self._others.add(piece)
            if not self._is_over(self._note(piece, version)):
                return None
        taken = self._put(piece, token + 1, version=version)
        if taken is not None and owner != self.worker:
            self.say(
                f"  {piece} is taken over from {owner}, which has not been heard of for {self.lease_seconds:.0f} s"
            )
        return taken

    def renew(self) -> list[str]:
        """Renew what is held; returns what was lost to others."""
        with self._lock:
            held = dict(self._held)
        lost = []
        for piece, claim in held.items():
            content = self._content(claim.token, claim.beat + 1)
            version, is_ours = self._ask(piece, content, only_if_version=claim.version)
            if not is_ours:
                lost.append(piece)
                continue
            with self._lock:
                if piece in self._held:
                    self._held[piece] = _Held(version, claim.token, claim.beat + 1)
        for piece in lost:
            self.let_go(piece)
            self.say(f"  {piece} was taken over by another worker: this one was not heard of for too long")
        return lost

    def let_go(self, piece: str) -> None:
        """Renew a piece no longer: it is committed, or lost."""
        with self._lock:
            self._held.pop(piece, None)

    def keep_renewing(self, ended: threading.Event) -> None:
        """Renew three times a lease until the event is set."""
        while not ended.wait(self.lease_seconds / 3):
            self.renew()

    def _put(self, piece: str, token: int, version: str) -> int | None:
        content = self._content(token, 0)
        new, is_ours = self._ask(piece, content, only_if_absent=not version, only_if_version=version)
        if not is_ours:
            if new:
                self._note(piece, new)
            return None
        with self._lock:
            self._held[piece] = _Held(new, token)
            self._seen.pop(piece, None)
            self._others.discard(piece)
        return token

    def _ask(self, piece: str, content: bytes, **conditions: Any) -> tuple[str, bool]:
        """Put a claim; return the version that is there now, "" for none, and whether it is this claim."""
        try:
            return self.output.put(self._name(piece), content, **conditions), True
        except Taken:
            found = self.output.get_if_there(self._name(piece))
            return (found[1], found[0] == content) if found else ("", False)  # ours: the answer to it was lost

    def _note(self, piece: str, version: str) -> tuple[str, float]:
        with self._lock:
            seen = self._seen.get(piece)
            if seen is None or seen[0] != version:
                seen = self._seen[piece] = version, self.clock()
            return seen

    def _is_over(self, seen: tuple[str, float]) -> bool:
        return self.clock() - seen[1] >= self.lease_seconds

    def _content(self, token: int, beat: int) -> bytes:
        return json.dumps({"worker": self.worker, "token": token, "beat": beat}).encode()

    def _name(self, piece: str) -> str:
        return f"{CLAIMS}/{piece}.json"


def _read(content: bytes) -> tuple[str, int]:
    try:
        found = json.loads(content)
        return str(found["worker"]), int(found["token"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            "A claim is damaged",
            got=content[:80].decode("utf-8", "replace"),
            where=CLAIMS,
            expected="what a worker wrote",
            fix=f"delete {CLAIMS}/ while no worker is at work",
        ) from error
