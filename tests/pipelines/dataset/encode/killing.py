"""Runs of `encode` that are killed at chosen events: forked from a process that has imported what they need.

The parent imports no library that starts threads (obstore, pyarrow): a child does, and a thread would not survive the
fork.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from colabkit.io.places.folder import Folder
from colabkit.io.places.names import joined
from colabkit.pipelines.dataset.encode import job
from colabkit.pipelines.dataset.encode.journal import Journal
from colabkit.pipelines.dataset.encode.spool import Spool
from colabkit.pipelines.dataset.store.commit import MANIFEST
from tests.pipelines.dataset.encode.small_codec import SmallCodec, read_small

KINDS = {"sidecar": {}, "npz": {"output_format": "npz"}, "claims": {"claims": True}, "full": {"full": 0.05}}
QUOTA, PIECE = 4 << 20, 512 << 10


@dataclass
class Trap:
    """Counts what happens and kills its process at one of the events; `full` of the spool's writes fail with ENOSPC."""

    at: int = -1
    full: float = 0.0
    seed: int = 0
    log: int = -1
    count: int = 0
    random: random.Random = field(default_factory=random.Random)

    def event(self, name: str) -> None:
        self.count += 1
        if self.count == self.at:
            self.write({"killed": name})
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, value: dict) -> None:
        os.write(self.log, (json.dumps(value) + "\n").encode())


class TrappedObjects:
    """Objects whose every call is an event before and after it."""

    def __init__(self, inner, trap: Trap):
        self.inner, self.trap, self.address = inner, trap, inner.address

    def __getattr__(self, name: str):
        act = getattr(self.inner, name)

        def call(*arguments, **settings):
            self.trap.event(f"before {name}")
            result = act(*arguments, **settings)
            if name == "put" and arguments[0].startswith("codes/manifest/"):
                self.trap.write({"committed": arguments[0], "crc32": zlib.crc32(arguments[1])})
            self.trap.event(f"after {name}")
            return result

        return call


class CountedCodec(SmallCodec):
    """Writes down the waves of each batch before it is encoded."""

    def __init__(self, trap: Trap):
        super().__init__(most=6.0)
        self.trap = trap

    def encode_batch(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.trap.write({"batch": [zlib.crc32(np.ascontiguousarray(wave)) for wave in waves]})
        self.trap.event("before encode")
        result = super().encode_batch(waves)
        self.trap.event("after encode")
        return result


def set_traps(trap: Trap) -> None:
    """Make events of what the journal and the spool do, in this process."""

    def around(owner: type, name: str) -> None:
        act = getattr(owner, name)

        def call(self, *arguments, **settings):
            trap.event(f"before {name}")
            result = act(self, *arguments, **settings)
            trap.event(f"after {name}")
            return result

        setattr(owner, name, call)

    for name in ("encoded", "uploaded", "committed", "left_aside"):
        around(Journal, name)
    around(Spool, "drop")
    put = Spool.put

    def put_in_halves(self, name: str, content: bytes) -> None:
        if trap.random.random() < trap.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        trap.event("before spool")
        (self.folder / f"{name}.part").write_bytes(content[: len(content) // 2])
        trap.event("within spool")
        put(self, name, content)
        trap.event("after spool")

    Spool.put = put_in_halves


def in_child(
    log: Path,
    run: Callable[[Trap], object],
    *,
    at: int = -1,
    after_seconds: float | None = None,
    full: float = 0.0,
    seed: int = 0,
    seconds: float = 120.0,
) -> tuple[int, list[dict]]:
    """Fork, run something there, and return the exit code (-9 when killed) and what it wrote down.

    It is killed at an event, or after some seconds.
    """
    begun = log.stat().st_size if log.exists() else 0
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(int(seconds))  # one that hangs is a fault, too
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            null = os.open(log.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(null, 1)
            os.dup2(null, 2)
            trap = Trap(at, full, seed, handle, random=random.Random(seed))
            set_traps(trap)
            run(trap)
            trap.write({"events": trap.count})
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    until = None if after_seconds is None else time.monotonic() + after_seconds
    while not (ended := os.waitpid(child, 0 if until is None else os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            until = None
        else:
            time.sleep(0.002)
    status = ended[1]
    with open(log) as lines:
        lines.seek(begun)
        return os.waitstatus_to_exitcode(status), [json.loads(line) for line in lines]


@dataclass
class Campaign:
    """Runs killed again and again until their work is done; `faults` says what was not as it must be."""

    folder: Path
    open_store: Callable[[], object]  # segments/ and the trials' outputs below it
    expected: dict[str, str] = field(default_factory=dict)  # what an undisturbed run makes: hashes by name
    output_format: str = "sidecar"
    full: float = 0.0
    claims: bool = False
    open_source: Callable[[], object] | None = None  # segments/ of another place
    share_of_instants: float = 0.3  # of the kills; the others stand at events
    most_seconds: float = 1.0
    num_kills: int = 0
    num_runs: int = 0
    num_encoded_again: int = 0
    most_encoded_again: int = 0
    faults: list[str] = field(default_factory=list)
    where: Counter = field(default_factory=Counter)

    def run_all(self, kills: int, events: int, chances: random.Random, most_in_one: int = 8) -> None:
        """Kill so often, or until something is not as it must be."""
        number = 0
        while self.num_kills < kills and not self.faults:
            self.trial(number, chances, events // 2, min(most_in_one, kills - self.num_kills))
            number += 1

    def told(self) -> dict:
        """Return the figures."""
        return {
            "kills": self.num_kills,
            "runs": self.num_runs,
            "again": self.num_encoded_again,
            "most_again": self.most_encoded_again,
            "faults": self.faults,
            "where": dict(self.where),
        }

    def trial(self, number: int, chances: random.Random, most_events: int, most_kills: int) -> None:
        """Work on one output until it is done, with kills at random events."""
        name, log = f"trial-{number}", self.folder / f"trial-{number}.log"
        scratch = self.folder / name / "scratch"
        scratch.mkdir(parents=True)
        committed: dict[str, int] = {}
        seen: Counter = Counter()
        kills = 0
        while True:
            kill: dict = {}
            if kills < most_kills:
                kill = (
                    {"after_seconds": chances.uniform(0, self.most_seconds)}
                    if chances.random() < self.share_of_instants
                    else {"at": chances.randint(1, max(2, most_events))}
                )
            began = time.monotonic()
            code, told = in_child(
                log, lambda trap: self.run(trap, name, scratch), full=self.full, seed=chances.randint(0, 2**30), **kill
            )
            if not kill:
                self.most_seconds = max(0.2, 0.6 * (time.monotonic() - began))
            self.num_runs += 1
            batches = [entry["batch"] for entry in told if "batch" in entry]
            again = sum(seen[wave] > 0 for batch in batches for wave in batch)
            self.check(name, told, committed, batches, seen, code)
            self.num_encoded_again += again
            if code == 0:
                break
            if code != -signal.SIGKILL:
                self.faults.append(f"{name}: exit code {code}, see {log.with_suffix('.out')}")
                return
            self.where.update([next((entry["killed"] for entry in told if "killed" in entry), "any instant")])
            kills += 1
            self.num_kills += 1
        _, told = in_child(log, lambda trap: trap.write({"faults": self.compare(name, scratch)}))
        self.faults += next(
            (entry["faults"] for entry in told if "faults" in entry), [f"{name}: could not be compared"]
        )

    def run(self, trap: Trap, name: str, scratch: Path):
        """Call encode; in the child."""
        store = self.open_store()
        sharing = job.Sharing(claims=self.claims, worker="w", poll_seconds=0.1, lease_seconds=5)
        source = self.open_source() if self.open_source else store.below("segments")
        return job.encode(
            TrappedObjects(source, trap),
            TrappedObjects(store.below(name), trap),
            CountedCodec(trap),
            scratch=scratch,
            read_segment=read_small,
            quota_bytes=QUOTA,
            piece_bytes=PIECE,
            num_downloads=3,
            output_format=self.output_format,
            sharing=sharing,
            write_npz=lambda segment: segment.key.encode() + b"\0" + segment.codes.tobytes(),
        )

    def check(
        self, name: str, told: list[dict], committed: dict[str, int], batches: list[list[int]], seen: Counter, code: int
    ) -> None:
        """See that what is encoded again was in the batch in flight at its process's kill, and commits are once."""
        again = [wave for batch in batches for wave in batch if seen[wave]]
        self.most_encoded_again = max(self.most_encoded_again, len(again))
        if wrong := [wave for wave in again if seen[wave] != 1]:
            self.faults.append(f"{name}: {len(wrong)} segments encoded again that were in no batch in flight")
        for batch in batches[:-1] if code else batches:
            for wave in batch:
                seen[wave] = 2  # in the journal: must not come again
        if code and batches:
            for wave in batches[-1]:
                seen[wave] = 1  # was in flight, or its journal entry was written just now
        for entry in told:
            if "committed" in entry:
                if entry["committed"] in committed:
                    self.faults.append(f"{name}: {entry['committed']} committed twice")
                committed[entry["committed"]] = entry["crc32"]

    def compare(self, name: str, scratch: Path) -> list[str]:
        """Return what is not as in an undisturbed run, byte for byte, or is left in the spool; in a child."""
        found, faults = results(self.open_store().below(name)), []
        if found.keys() != self.expected.keys():
            faults.append(
                f"{name}: lost {sorted(self.expected.keys() - found.keys())[:3]}, "
                f"besides {sorted(found.keys() - self.expected.keys())[:3]}"
            )
        elif differing := [key for key in found if found[key] != self.expected[key]]:
            faults.append(f"{name}: other bytes in {differing[:3]}")
        if left := os.listdir(scratch / "spool"):
            faults.append(f"{name}: {len(left)} files are left in the spool")
        return faults

    def learn(self) -> int:
        """Run once undisturbed for what is expected; returns how many events that has."""
        log, scratch = self.folder / "calm.log", self.folder / "calm" / "scratch"
        scratch.mkdir(parents=True)
        full, self.full = self.full, 0.0
        began = time.monotonic()
        code, told = in_child(log, lambda trap: self.run(trap, "calm", scratch))
        self.full, self.most_seconds = full, 0.6 * (time.monotonic() - began)
        if code:
            raise RuntimeError(log.with_suffix(".out").read_text()[-3000:])
        place = self.folder / "expected"
        in_child(log, lambda trap: place.write_text(json.dumps(results(self.open_store().below("calm")))))
        self.expected = json.loads(place.read_text())
        return next(entry["events"] for entry in told if "events" in entry)


def results(objects) -> dict[str, str]:
    """Return what must be the same for any number of kills: codes, full segments, what the manifest says of them."""
    found = {}
    for entry in objects.list():
        if entry.name.startswith("encoded/") or (
            entry.name.startswith("codes/") and entry.name.endswith(".parquet") and "/plan/" not in entry.name
        ):
            found[entry.name] = hashlib.sha256(objects.get(entry.name)).hexdigest()
    manifest = json.loads(objects.get(MANIFEST))
    found[MANIFEST] = json.dumps([manifest["pieces"], manifest["num_items"], manifest["num_left_aside"]])
    return found


class FolderStore(Folder):
    """A folder whose puts need not outlive the machine, for many trials in little time."""

    def below(self, prefix: str) -> Folder:
        return FolderStore(self.root / joined("", prefix))
