"""Checkpoints in generations: everything that matters, declared by name, whole or not there.

The latest checkpoint is the newest generation whose COMMIT verifies, never the newest name: a generation cut off at any
byte is passed over. No pickle anywhere. Saving copies the tensors (the only part that blocks), then writes in a thread.

On a disk of this machine generations are written to their folder. On a remote medium such as Google Drive they are
written to `scratch` on this machine first, and brought over by a Publisher: where the medium is away, training goes on
and it catches up. Resuming takes the newest whole generation of both places.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from colabkit.core.disk import disk_fault, faults_told, in_units
from colabkit.core.errors import StateError
from colabkit.runs.medium import Medium, medium_of
from colabkit.runs.run import Run
from colabkit.training.checkpoints import generation, tensor_file
from colabkit.training.checkpoints.sender import RETRY_SECONDS, Job, Publisher
from colabkit.training.random_state import random_state, set_random_state

__all__ = ["Checkpoints", "random_state", "restore", "set_random_state"]

LATEST = "LATEST"  # names the newest generation where a listing may be old; a hint, never trusted
MOST_HINTS = 3  # written while none of them is known to have gone up; each keeps its generation
SPARE_BYTES = 1 << 30  # left free on this machine's disk
STOP_PATIENCE_SECONDS = 20.0  # what a machine about to end may give
END_PATIENCE_SECONDS = 600.0


def checkpoints_of(run: Run, name: str = "checkpoints", *, keep_last: int = 2) -> Checkpoints:
    """Open the checkpoints of a run's step at work; on a remote medium they go to this machine's disk first."""
    folder, medium = run.output / name, medium_of(run.output)
    scratch = run.scratch_at_work / name if medium.is_remote else None
    if scratch is not None:
        run.say(f"  checkpoints are written to {scratch} and brought to {medium.name} while training goes on")
    return Checkpoints(
        folder, keep_last=keep_last, scratch=scratch, medium=medium, identity=run.identity_at_work, say=run.say
    )


class Checkpoints:
    """The generations in one folder. `keep_last` generations are kept, and the one named best.

    `scratch` is a folder on this machine's own disk, needed where `medium` is remote. `identity` names the work:
    generations of other work in these folders are passed over.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep_last: int = 2,
        scratch: str | Path | None = None,
        medium: Medium | None = None,
        identity: str = "",
        say: Callable[[str], object] = print,
        retry_seconds: tuple[float, ...] | None = None,
    ):
        self.folder, self.keep_last, self.identity, self.say = Path(folder), keep_last, identity, say
        self.medium, self.local = medium or Medium(), Medium()
        self.scratch = Path(scratch) if scratch is not None and self.medium.is_remote else None
        self.retry_seconds = retry_seconds or RETRY_SECONDS
        self.stored_step = -1  # the newest that would outlive this machine
        self._sent: Path | None = None
        self._hinted, self._num_hints = "", 0
        self._findable: set[Path] | None = None  # what another machine may find by the hint; None: not looked yet
        self._writer: threading.Thread | None = None
        self._fault: Exception | None = None
        self._whole: dict[Path, generation.About] = {}  # written or verified by this process
        self._broken: set[Path] = set()  # those that were passed over
        self._publisher = None
        if self.scratch is not None:
            self._publisher = Publisher(
                self._send, self._confirm, medium_name=self.medium.name, say=say, retry_seconds=self.retry_seconds
            )

    def save(self, step: int, state: dict[str, Any], *, best: bool = False, wait: bool = False) -> None:
        """Save generation `step`: any nesting of dicts, lists, numbers, text and tensors.

        Returns as soon as the tensors are copied, unless `wait`. A fault of an earlier write is raised here.
        """
        self._join()
        if self._has(step, best):
            return  # the same step again, after a resume: it is the same state
        nesting, tensors = tensor_file.take(state)
        self._writer = threading.Thread(
            target=self._write, args=(step, nesting, tensors, best), daemon=False, name=self._thread_name()
        )
        self._writer.start()
        if wait:
            self._join()
            if not self._flush(STOP_PATIENCE_SECONDS):
                self.say(f"  WARNING {self.medium.name} has not stored step {step} yet: it lies in {self.scratch}")

    def wait(self, patience_seconds: float | None = None) -> None:
        """Wait until everything is stored.

        Raises: the StateError it met: a full disk, a read-only folder, a Drive that stays away.
        """
        self._join()
        patience_seconds = END_PATIENCE_SECONDS if patience_seconds is None else patience_seconds
        if not self._flush(patience_seconds):
            raise StateError(
                "Cannot store the last checkpoint",
                where=self.folder,
                got=f"{self.medium.name} did not take it for {patience_seconds:g} seconds",
                expected="an answer, and room on it",
                fix="mount it again or make room (on Google Drive empty the trash), then run the same again: "
                f"it continues with what is in {self.scratch}",
            )

    def _flush(self, patience_seconds: float) -> bool:
        with faults_told(self.folder, "store a checkpoint"):
            return self._publisher is None or self._publisher.flush(patience_seconds)

    def load_latest(self) -> tuple[int, dict[str, Any]] | None:
        """Return (step, state) of the newest generation that verifies, or None; says which it passed over.

        Raises: StateError when a remote medium does not answer: to begin anew would repeat what is only out of reach.
        """
        return self._load_first(best=False)

    def load_best(self) -> tuple[int, dict[str, Any]] | None:
        """Return (step, state) of the newest whole generation saved as best, or None."""
        return self._load_first(best=True)

    def _load_first(self, *, best: bool) -> tuple[int, dict[str, Any]] | None:
        self._join_others()
        for medium, folder in self._generations():
            try:
                if best and not self._patiently(medium, lambda m=medium, f=folder: generation.read_about(m, f).best):
                    continue
                about, state = self._patiently(medium, lambda m=medium, f=folder: generation.read(m, f))
                self._require_identity(about, folder)
            except StateError as error:
                if getattr(error, "errno", None) is not None and medium.is_remote:
                    raise
                self._whole.pop(folder, None)
                self._broken.add(folder)
                self.say(f"checkpoint {folder.name} passed over: {error.what}")
            else:
                self._whole[folder] = about
                return about.step, state
        return None

    def _generations(self) -> list[tuple[Medium, Path]]:
        """Return all generations of both places, newest first, this machine's before the remote medium's."""
        found = [(self.medium, self.folder / name) for name in self._patiently(self.medium, self._stored_names)]
        if self.scratch is not None:
            found = [
                (self.local, self.scratch / name) for name in _only_generations(self.local.names(self.scratch))
            ] + found
        return sorted(found, key=lambda item: -generation.step_of(item[1].name))

    def _stored_names(self) -> list[str]:
        names = set(self.medium.names(self.folder))
        if self.medium.is_remote:
            with suppress(FileNotFoundError):  # nothing was stored yet
                names.add(self.medium.read(self.folder / LATEST).decode(errors="replace").strip())
        return _only_generations(names)

    def _patiently(self, medium: Medium, ask: Callable[[], Any]) -> Any:
        """Ask a remote medium again while it is away. Raises: StateError with errno when it stays away."""
        for pause in (*self.retry_seconds[:4], None) if medium.is_remote else (None,):
            try:
                return ask()
            except OSError as error:
                if pause is None:
                    raise disk_fault(error, self.folder, "read the checkpoints") from error
                threading.Event().wait(pause)

    def _require_identity(self, about: generation.About, folder: Path) -> None:
        if about.identity != self.identity:
            raise StateError("it belongs to other work", where=folder, fix=generation.PASSED_OVER)

    def _join(self) -> None:
        """Wait for the write in flight and raise its fault."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault

    def _join_others(self) -> None:
        for thread in threading.enumerate():  # a notebook's loop that was interrupted may still be writing
            if thread.name == self._thread_name():
                thread.join()

    def _thread_name(self) -> str:
        return f"checkpoint {self.folder.absolute()}"

    def _has(self, step: int, best: bool) -> bool:
        """Tell whether this process knows a step to be saved whole; marks it as best where asked."""
        for folder, about in list(self._whole.items()):
            if about.step == step:
                if best and not about.best:
                    medium = self.local if folder.parent == self.scratch else self.medium
                    self._patiently(medium, lambda m=medium, f=folder: generation.mark_best(m, f))
                    self._whole[folder] = replace(about, best=True)
                    self._offer(step, True, folder)
                return True
        return False

    def _write(self, step: int, nesting: Any, tensors: dict[str, Any], best: bool) -> None:
        place = self.folder
        try:
            place = self._place_for(sum(t.numel() * t.element_size() for t in tensors.values()))
            medium = self.local if place == self.scratch else self.medium
            folder = self._patiently(
                medium,
                lambda: self._write_new(
                    medium, place, tensor_file.chunks(nesting, tensors), step=step, best=best, identity=self.identity
                ),
            )
            self._offer(step, best, folder)
        except OSError as error:
            self._fault = disk_fault(error, place, "write a checkpoint")
        except Exception as error:  # told by the next save: a training that saves nothing must not look well
            self._fault = error

    def _write_new(self, medium: Medium, place: Path, chunks: Iterable[bytes], **about: Any) -> Path:
        """Write a generation under a name that was never used; then older ones go."""
        folder = place / generation.new_name(about["step"])
        self._whole[folder] = generation.write(medium, folder, chunks, **about)
        try:
            self._rotate(medium, folder)
        except (OSError, StateError):
            if not medium.is_remote:
                raise  # what a Drive does not remove now, the next rotation removes
        return folder

    def _place_for(self, num_bytes: int) -> Path:
        """Choose where a generation of so many bytes goes first: this machine's disk is watched, it fills up unseen."""
        if self.scratch is None:
            return self.folder
        self.scratch.mkdir(parents=True, exist_ok=True)
        if self.local.free_bytes(self.scratch) < num_bytes + SPARE_BYTES:
            self._rotate(self.local, None)
        free = self.local.free_bytes(self.scratch)
        if free >= num_bytes + SPARE_BYTES:
            return self.scratch
        self.say(
            f"  WARNING only {in_units(free)} are free on this machine's disk: the checkpoint of {in_units(num_bytes)} "
            f"goes straight to {self.medium.name}, and training waits where that is away"
        )
        return self.folder

    def _offer(self, step: int, best: bool, folder: Path) -> None:
        if folder.parent == self.scratch:
            self._publisher.offer(Job(step, best, folder))

    def _send(self, job: Job) -> None:
        """Copy a generation from this machine to the remote medium."""
        try:
            about = generation.read_about(self.local, job.folder)
            chunks = self.local.chunks(job.folder / generation.STATE)
            self._sent = self._write_new(
                self.medium, self.folder, chunks, step=about.step, best=job.best, identity=about.identity, copy_of=about
            )
        except (StateError, FileNotFoundError):
            if job.folder.exists() and generation.COMMIT in self.local.names(job.folder):
                raise
            self._sent = None  # a newer one has taken its place on this machine

    def _confirm(self) -> bool:
        """Tell whether the newest generation sent would outlive this machine, and can be found by another."""
        folder = self._sent
        if folder is None:
            return True
        hint = self.folder / LATEST
        try:
            if self._hinted != folder.name and self._num_hints < MOST_HINTS and self._is_uploaded(folder):
                if self._findable is None:  # what the hint says elsewhere could not be told: whatever is there stays
                    self._findable = {self.folder / name for name in self._stored_names()}
                self._findable.add(folder)  # any of them may be what another machine reads
                self._num_hints += 1
                self.medium.overwrite(hint, folder.name.encode())
                self._hinted = folder.name
        except OSError:
            return False  # asked again soon
        if self._hinted != folder.name or not self.medium.is_uploaded(hint):
            return False
        self.stored_step, self._findable, self._num_hints = (
            max(self.stored_step, generation.step_of(folder.name)),
            {folder},
            0,
        )
        return True

    def _is_uploaded(self, folder: Path) -> bool:
        return all(self.medium.is_uploaded(folder / name) for name in (generation.STATE, generation.COMMIT))

    def _rotate(self, medium: Medium, newest: Path | None) -> None:
        """Remove generations the newest makes needless: not the last, the best, or one whose heir is not uploaded."""
        if medium.is_remote and self._findable is None:
            self._findable = {self._findable_elsewhere()}
        place = self.scratch if medium is self.local and self.scratch is not None else self.folder
        folders = sorted(
            (place / name for name in _only_generations(medium.names(place))),
            key=lambda folder: (generation.step_of(folder.name), folder == newest),
        )
        if newest is not None:
            folders = [f for f in folders if generation.step_of(f.name) <= generation.step_of(newest.name)]
        one_a_step = {generation.step_of(f.name): f for f in folders if self._is_whole(medium, f)}
        whole = list(one_a_step.values())
        uploaded = [f for f in whole if self._is_uploaded(f)] if medium.is_remote else whole
        kept = {*whole[-self.keep_last :], *uploaded[-1:], *(self._findable or ())}
        if place == self.scratch:
            kept |= self._publisher.folders()
        for known in (whole, uploaded):
            kept |= set([f for f in known if self._whole[f].best][-1:])
        for folder in folders:
            if folder not in kept:
                self._whole.pop(folder, None)
                medium.remove(folder)

    def _findable_elsewhere(self) -> Path:
        """Return the generation that another machine would find by the hint.

        Raises: StateError while that cannot be told.
        """
        hint = self.folder / LATEST
        try:
            name = self.medium.read(hint).decode(errors="replace").strip()
        except FileNotFoundError:
            return self.folder  # nothing was ever stored
        if not self.medium.is_uploaded(hint):
            raise StateError(
                f"{self.medium.name} has not taken {LATEST} yet", where=hint, fix="nothing to do: it is asked again"
            )
        return self.folder / name

    def _is_whole(self, medium: Medium, folder: Path) -> bool:
        """Tell whether a generation's COMMIT stands.

        One that was never loaded is believed, as reading it all would take long.
        """
        if folder not in self._whole and folder not in self._broken:
            try:
                self._whole[folder] = generation.read_about(medium, folder)
            except StateError:
                self._broken.add(folder)
        return folder in self._whole


def _only_generations(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(generation.PREFIX))


def restore(parts: dict[str, Any], state: dict[str, Any]) -> None:
    """Load each part's state into it (load_state_dict). Raises: StateError when the names do not match."""
    if set(parts) - set(state):
        raise StateError(
            "The checkpoint does not hold all parts",
            got=sorted(state),
            expected=str(sorted(parts)),
            fix="redo the step (--redo), or go back to the version of colabkit that made it",
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
