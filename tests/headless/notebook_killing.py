"""Kills of a notebook's kernel and papermill, at cell boundaries and at random; run again until it ends, compared."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import nbformat

from colabkit.pipelines import find
from tests.contracts.killing import differences, environment, results
from tests.contracts.small import settings_of
from tests.headless.conftest import BIN, statuses

ROOT = Path(__file__).resolve().parents[2]
VICTIMS = (("kernel",), ("papermill",), ("kernel",), ("kernel", "papermill"))
PIPELINE = "diarization"
NUM_STEPS, CHECKPOINT_EVERY_STEPS = 12, 3  # as small.py has it
MOST_ATTEMPTS = 200  # of one run: one that needs more makes no progress


def arguments(state: Path, run: str, output: Path) -> list[str]:
    """Return the command line of papermill for one run."""
    pipeline = find(PIPELINE)
    values = {"STATE": str(state), "RUN": run, "SETTINGS": " ".join(settings_of(pipeline)), "LARGEST_DER": "9"}
    return [
        str(ROOT / "notebooks" / f"{pipeline.notebook}.ipynb"),
        str(output),
        "--engine",
        "colabkit",
        "--kernel",
        "python3",
        "--autosave-cell-every",
        "1",
        *(w for name, value in values.items() for w in ("-p", name, value)),
    ]


def made_by(state: Path, run: str) -> dict[str, object]:
    """Return all of a run that must be equal.

    The order of its choices is no part of it: a resumed step tells some anew.
    """
    found = results(state / PIPELINE / run)
    return found | {"choices": dict(sorted(found["choices"].items()))}


def plainly(state: Path, run: str, output: Path) -> str:
    """Run papermill as a user does, with nothing imported before; returns what it printed."""
    done = subprocess.run(
        [str(BIN / "papermill"), *arguments(state, run, output)],
        env=environment(1),
        timeout=600,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the undisturbed run failed:\n{done.stdout}")
    return done.stdout


@dataclass
class Tally:
    """What a campaign came to."""

    kills: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    most_repeated_steps: int = 0
    repeated_steps: int = 0
    steps: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        return sum(self.kills.values())

    def __str__(self) -> str:
        of = ", ".join(f"{number} of {victims}" for victims, number in sorted(self.kills.items()))
        return (
            f"{self.num_kills} kills ({of}), {self.runs} runs ended and compared, {len(self.faults)} faults; "
            f"{self.repeated_steps} of {self.steps} optimizer steps repeated, "
            f"at most {self.most_repeated_steps} by one kill"
        )


class Server:
    """The process that forks papermills."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._errors = open(folder / "server.log", "w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.headless.notebook_forks", PIPELINE],
            cwd=ROOT,
            text=True,
            env=environment(1),
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
        self._process.stdout.close()
        self._errors.close()

    def run(self, order: dict) -> dict:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the forking process died:\n{Path(self._errors.name).read_text()}")
        return json.loads(line)


class Campaign:
    """Kills runs in a folder of its own, and holds each against what an undisturbed one made."""

    def __init__(self, server: Server, place: Path, expected: dict[str, object], *, say: Callable[[str], None] = print):
        self.server, self.place, self.expected, self.say = server, place, expected, say
        self.seconds = 0.0  # of a whole run
        place.mkdir(exist_ok=True)
        self.state = place / "state"
        self.tally = Tally()
        self._victims: Iterator[tuple[str, ...]] = cycle(VICTIMS)
        self._begin_run()

    @property
    def name(self) -> str:
        return f"kill{self.tally.runs:04d}"

    @property
    def folder(self) -> Path:
        return self.state / PIPELINE / self.name

    @property
    def output(self) -> Path:
        return self.place / f"{self.name}.ipynb"

    def _begin_run(self) -> None:
        self._attempts, self._records, self._done_steps = 0, {}, 0
        self._steps_file = self.place / f"{self.name}.steps"

    def at_boundaries(self, cells: range, most_kills: int) -> None:
        """Kill before each cell begins and after it ended, again and again until there are so many kills."""
        for cell, moment in cycle([(cell, moment) for cell in cells for moment in ("before", "after")]):
            if self.tally.num_kills >= most_kills:
                return
            if (cell, moment) == (cells[0], "before") and self._attempts:
                self.finish()
            self.attempt(cell=cell, moment=moment, victims=next(self._victims))

    def at_random(self, most_kills: int, seed: int = 0) -> None:
        """Kill at random instants, a quarter within training, until there are so many kills or something is wrong."""
        chance = random.Random(seed)
        while self.tally.num_kills < most_kills and not self.tally.faults:
            if chance.random() < 0.25:
                self.attempt(kill_at_step=chance.randrange(NUM_STEPS), victims=next(self._victims))
                continue
            scale = chance.choice((0.3, 0.6, 1.0))  # what is done already is skipped: later attempts are shorter
            self.attempt(
                kill_after_seconds=chance.uniform(0.05, 1.0) * scale * self.seconds, victims=next(self._victims)
            )

    def finish(self) -> Tally:
        """Let the run at hand end undisturbed, and compare it."""
        while self._attempts:
            self.attempt()
        return self.tally

    def attempt(self, **order: object) -> bool:
        """Run once more; returns True when it was killed. One that ended is compared, and the next one is new."""
        self._attempts += 1
        if self._attempts > MOST_ATTEMPTS:
            raise RuntimeError(f"{self.name} does not end after {self._attempts} attempts")
        log = self.place / "papermill.log"
        for old in (log, Path(f"{log}.kernel")):
            old.unlink(missing_ok=True)
        before = self._steps_file.stat().st_size if self._steps_file.exists() else 0
        answer = self.server.run(
            {
                "arguments": arguments(self.state, self.name, self.output),
                "log": str(log),
                "steps": str(self._steps_file),
                **order,
            }
        )
        text = log.read_text(errors="replace") if log.exists() else ""  # it may be killed before it has one
        self._count_steps(before)
        self._check_records()
        if answer["code"] == 0:
            if self._attempts == 1:
                self.seconds = min(self.seconds or answer["seconds"], answer["seconds"])
            self._compare()
            return False
        victims = "+".join(order.get("victims", ()))
        wanted = -9 if "papermill" in victims else 1
        if (
            answer["code"] in (wanted, -9)
            and victims
            and (answer["code"] == -9 or "killed by SIGKILL" in text or "The kernel did not start" in text)
        ):
            self.tally.kills[victims] = self.tally.kills.get(victims, 0) + 1
            self._check_statuses(answer["code"])
        elif "stop_at_step" in order and answer["code"] == 75:
            self._check_statuses(75)
        else:
            self._fault(f"exit code {answer['code']} after {order}: {text[-1500:]}")
        return True

    def _count_steps(self, before: int) -> None:
        if not self._steps_file.exists():
            return
        with open(self._steps_file) as opened:
            opened.seek(before)
            new = [int(line) for line in opened.read().splitlines()]
        self.tally.steps += len(new)
        if new:
            repeated = self._done_steps - new[0]
            if repeated < 0 or new != list(range(new[0], new[0] + len(new))):
                self._fault(f"optimizer steps {new} after {self._done_steps} done: some were left out")
            self.tally.repeated_steps += max(repeated, 0)
            self.tally.most_repeated_steps = max(self.tally.most_repeated_steps, repeated)
            self._done_steps = max(self._done_steps, new[-1] + 1)

    def _check_records(self) -> None:
        """A finished step's record stays as it is: the step is not done again."""
        for path in sorted((self.folder / "ledger").glob("*.json")):
            text = path.read_text()
            if self._records.setdefault(path.name, text) != text:
                self._fault(f"{path.stem} was done again")

    def _check_statuses(self, code: int) -> None:
        """What the executed notebook says of its cells, however it was killed, is true."""
        if not self.output.exists():
            return  # killed before papermill had begun with it
        try:
            notebook = nbformat.read(self.output, as_version=4)
            found = statuses(notebook)
            # Killed itself, papermill may have noted before that its kernel was.
            allowed = {
                -9: ({"completed", "running", "failed", "pending"}, 1),
                1: ({"completed", "failed", "pending"}, 1),
                75: ({"completed", "failed", "pending"}, 1),
            }[code]
            assert set(found) <= allowed[0] and found.count("running") + found.count("failed") <= allowed[1], found
            assert code == -9 or notebook.metadata.papermill.exception is True, found
            assert code == -9 or found.count("failed") == 1 or set(found) == {"pending"}, found
        except (AssertionError, ValueError, AttributeError) as error:
            self._fault(f"the executed notebook after exit code {code}: {type(error).__name__}: {error}")

    def _compare(self) -> None:
        try:
            found = differences(self.expected, made_by(self.state, self.name))
            if set(statuses(nbformat.read(self.output, as_version=4))) != {"completed"}:
                found.append("the executed notebook is not whole")
        except (AssertionError, OSError) as error:
            found = [str(error)]
        for text in found:
            self._fault(text)
        attempts, name = self._attempts, self.name
        self.tally.runs += 1
        self._begin_run()
        self.say(f"{name}: ended after {attempts} attempts, {len(found)} differences; in all {self.tally}")

    def _fault(self, text: str) -> None:
        self.tally.faults.append(f"{self.name}: {text}")
        self.say(f"  {self.name}: {text}")
