"""Kill a run at chosen and at random instants, run it again until it ends, and compare what it made."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from colabkit.runs.steps import Step

KILLED = -9
SERVER = Path(__file__).with_name("forks.py")
MOST_ATTEMPTS = 400  # of one run: a run that needs more makes no progress


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (negative: the signal), what it printed, how long it took."""

    code: int
    text: str
    seconds: float


def environment(threads: int) -> dict[str, str]:
    """Return the environment of every process that is compared: the number of threads decides sums' order."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COLABKIT_", "WANDB_"))}
    # OpenBLAS starts its threads when NumPy is imported, pyarrow one of its allocator's: they could not be forked.
    return kept | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "PYTHONUNBUFFERED": "1",
    }


def arguments(pipeline: str, state: Path, run: str, settings: tuple[str, ...]) -> list[str]:
    """Return the command line of one run, after `colabkit`."""
    return ["run", pipeline, "--state", str(state), "--run", run, *(p for s in settings for p in ("--set", s))]


def command(line: list[str], *, threads: int = 1, timeout: float = 600) -> Ended:
    """Run colabkit in a process of its own, as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "colabkit", *line],
        env=environment(threads),
        timeout=timeout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Ended(done.returncode, done.stdout, 0.0)


class Server:
    """Starts commands of one pipeline in forked children, and kills them on order."""

    def __init__(self, pipeline: str, folder: Path, *, threads: int = 1):
        self.pipeline, self.folder = pipeline, folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._errors = open(folder / "server.log", "w")
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), pipeline],
            env=environment(threads),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._answer()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._errors.close()

    def run(self, line: list[str], watched: Path, **order: object) -> Ended:
        """Carry out a command to its end; see `forks` for what an order may hold."""
        self.begin(line, watched, **order)
        return self.end()

    def begin(self, line: list[str], watched: Path, **order: object) -> None:
        """Start a command and leave it running."""
        self._log = self.folder / "child.log"
        self._log.unlink(missing_ok=True)
        given = {"arguments": line, "log": str(self._log), "watched": str(watched), **order}
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        self.pid = self._answer()["pid"]

    def end(self) -> Ended:
        """Wait for the command that was begun."""
        answer = self._answer()
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return Ended(answer["code"], text, answer["seconds"])

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the forking process died:\n{(self.folder / 'server.log').read_text()}")
        return json.loads(line)


def results(folder: Path) -> dict[str, object]:
    """Return all that must be equal: every output's hash as it is on disk, the metrics, and the choices made.

    Raises: AssertionError when a record does not tell the truth about its files, or work is left half done.
    """
    report = json.loads((folder / "report.json").read_text())
    found: dict[str, object] = {"state": report["state"], "choices": {c["name"]: c["value"] for c in report["choices"]}}
    found |= {f"metric {name}": value for name, value in report["metrics"].items()}
    records = sorted((folder / "ledger").glob("*.json"))
    assert records, f"no records in {folder}"
    for path in records:
        record = json.loads(path.read_text())
        assert record["outputs"], f"{path.name} lists no outputs"
        for name, (size, sha256) in record["outputs"].items():
            data = (folder / record["step"] / name).read_bytes()
            actual = hashlib.sha256(data).hexdigest()
            assert (len(data), actual) == (size, sha256), f"{record['step']}/{name} is not what its record says"
            found[f"file {record['step']}/{name}"] = actual
    half_done = sorted(p.name for p in folder.iterdir() if p.name.endswith(".partial"))
    assert not half_done, f"left over in {folder}: {half_done}"
    return found


def differences(expected: dict[str, object], got: dict[str, object]) -> list[str]:
    """Return one line for everything that is not identical, to the last bit."""
    return [
        f"{name}: {expected.get(name)!r} undisturbed, {got.get(name)!r} now"
        for name in sorted(expected.keys() | got.keys())
        if repr(expected.get(name)) != repr(got.get(name))
    ]


def tree(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return {path: (mtime_ns, size, hash)} of every file and {path/: (mtime_ns, 0, "")} of every folder below."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name, info = path.relative_to(folder).as_posix(), path.stat()
        if path.is_dir():
            found[name + "/"] = (info.st_mtime_ns, 0, "")
        else:
            found[name] = (info.st_mtime_ns, info.st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def read_events(listing: Path) -> list[tuple[str, str]]:
    """Return the events of an undisturbed run, each once, in the order of first appearance."""
    return list(dict.fromkeys(tuple(json.loads(line)) for line in listing.read_text().splitlines()))


def is_boundary(event: tuple[str, str]) -> bool:
    """Tell whether an event is a step's or checkpoint's boundary: half made, made, recorded; begun, whole, removed."""
    kind, path = event
    parts = path.split("/")
    if kind in ("mkdir", "rename") and len(parts) == 1:
        return not path.endswith(".json") and path not in ("ledger", "logs")
    if kind == "rename" and (parts[0] == "ledger" or parts[-1] == "STARTED.json"):
        return True
    return (
        len(parts) >= 3
        and parts[1] == "checkpoints"
        and ((kind in ("mkdir", "rmdir") and len(parts) == 3) or (kind == "open" and parts[-1] == "COMMIT.json"))
    )


def event_of_step(step: Step, events: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the events inside a step's work at which to ask it to stop: a checkpoint's end, or its first output."""
    own = [e for e in events if e[1].startswith(f"{step.id}.partial/") and "STARTED.json" not in e[1]]
    whole = [e for e in own if e[0] == "open" and e[1].endswith("/COMMIT.json")]
    return whole[1:3] if step.resumes else own[:1]


@dataclass
class Tally:
    """What a campaign of kills came to."""

    kills: int = 0
    runs: int = 0
    differences: list[str] = field(default_factory=list)
    unreached: list[tuple[str, tuple[str, str]]] = field(default_factory=list)
    most_left_bytes: int = 0  # of temporary files, in one run

    def __str__(self) -> str:
        return f"{self.kills} kills, {self.runs} runs, {len(self.differences)} differences"


class Campaign:
    """Kills runs of one pipeline in a folder of its own and compares each with the expected results."""

    def __init__(
        self,
        server: Server,
        state: Path,
        settings: tuple[str, ...],
        expected: dict[str, object],
        *,
        most_seconds: float,
        say: Callable[[str], None] = print,
    ):
        self.server, self.state, self.settings, self.expected = server, state, settings, expected
        self.most_seconds, self.say = most_seconds, say
        self.tally = Tally()
        self._attempts = 0

    @property
    def name(self) -> str:
        return f"kill{self.tally.runs:04d}"

    @property
    def folder(self) -> Path:
        return self.state / self.server.pipeline / self.name

    def at_events(self, events: Iterator[tuple[str, str]] | list[tuple[str, str]], most_kills: int = 10**9) -> None:
        """Kill just before and just after each event, one run as long as it lasts, then the next."""
        for event in events:
            # Nothing may follow a removal in its thread, by which to tell that it is done.
            for moment in ("before", "after")[: 1 if event[0] in ("remove", "rmdir") else 2]:
                if self.tally.kills >= most_kills:
                    return
                # What an earlier kill already got behind it does not come again in the same run: then a fresh one.
                for _ in range(2):
                    if self.attempt(event=event, moment=moment):
                        break
                else:
                    self.tally.unreached.append((moment, event))

    def at_random(self, most_kills: int, seed: int = 0) -> None:
        """Kill at random instants, early and late ones, until there are so many kills; ends the last run."""
        chance = random.Random(seed)
        while self.tally.kills < most_kills:
            scale = chance.choice((0.1, 0.3, 1.0))
            self.attempt(kill_after_seconds=chance.random() * scale * self.most_seconds)

    def finish(self) -> Tally:
        """Let the run at hand end undisturbed, and compare it."""
        if self._attempts:
            self.attempt()
        return self.tally

    def attempt(self, **order: object) -> bool:
        """Run once more; returns True when it was killed. A run that ended is compared, and the next one is new."""
        self._attempts += 1
        line = arguments(self.server.pipeline, self.state, self.name, self.settings)
        ended = self.server.run(line, self.folder, **order)
        if ended.code == KILLED:
            self.tally.kills += 1
            if self._attempts > MOST_ATTEMPTS:
                raise RuntimeError(f"{self.name} does not end after {self._attempts} attempts")
            return True
        if ended.code != 0:
            found = [f"{self.name} ended with exit code {ended.code}: {ended.text[-2000:]}"]
        else:
            try:
                found = [f"{self.name}: {line}" for line in differences(self.expected, results(self.folder))]
            except (AssertionError, OSError) as error:
                found = [f"{self.name}: {error}"]
        left = sum(p.stat().st_size for p in self.folder.rglob(".colabkit-*"))
        self.tally.most_left_bytes = max(self.tally.most_left_bytes, left)
        self.tally.differences += found
        name, self.tally.runs = self.name, self.tally.runs + 1
        self.say(f"{name}: ended after {self._attempts} attempts, {len(found)} differences; in all {self.tally}")
        for text in found:
            self.say("  " + text)
        self._attempts = 0
        return False
