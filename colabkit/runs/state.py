"""The state root (Google Drive on a Colab VM), run folders, locks and local scratch."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import secrets
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from colabkit.core.disk import disk_fault, faults_told, patiently, sync_folder
from colabkit.core.drive import require_drive
from colabkit.core.errors import StateError, UsageError
from colabkit.core.locks import RunLock, acquire_run_lock, is_held, local_folder, require_free
from colabkit.core.runtime import Runtime, detect
from colabkit.runs.ownership import is_marked, mark, require_ours

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PROBE = b"colabkit can write here\n" * 256  # more than a block, so that a full disk shows


@dataclass(frozen=True, slots=True)
class StateRoot:
    """The folder that holds every pipeline's runs, and a sentence saying why it is this one."""

    path: Path
    reason: str
    chosen_by_us: bool = False  # or on Drive: it must be ours alone

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def state_root(
    explicit: str | os.PathLike | None = None,
    runtime: Runtime | None = None,
    *,
    read_only: bool = False,
    env: Mapping[str, str] | None = None,
    mount_drive: Callable[[str], object] | None = None,
) -> StateRoot:
    """Open the state root: `explicit`, else COLABKIT_STATE, else Drive on a Colab VM, else ~/colabkit.

    Makes the folder, on Colab also the link /content/colabkit to it, and proves with a probe file that it can
    be written; `read_only` does none of this and never asks to mount Drive. Raises StateError.
    `mount_drive(mountpoint)` replaces google.colab.drive.mount.
    """
    env = os.environ if env is None else env
    runtime = runtime or detect(env)
    if explicit or env.get("COLABKIT_STATE"):
        path = Path(os.path.abspath(os.path.expanduser(explicit or env["COLABKIT_STATE"])))
        reason = "It was given with --state." if explicit else "COLABKIT_STATE is set to it."
        if _is_on_drive(path, runtime):
            _require_drive(runtime, mount_drive, read_only)
    elif runtime.drive_possible:
        path = _require_drive(runtime, mount_drive, read_only) / "colabkit"
        if not read_only:
            _make_folder(path)
            path = _link_to_drive(Path(runtime.root, "content/colabkit"), path, runtime)
        reason = "My Drive keeps runs when the Colab VM ends."
    else:
        path = Path(os.path.abspath(os.path.expanduser("~/colabkit")))
        reason = "It is the default on a computer of your own."
        if runtime.on_colab_vm:
            reason = "This VM has no Drive: this folder is lost with the VM."
    if read_only:
        if not path.is_dir():
            raise StateError(
                "Cannot read the state folder: there is none",
                where=path,
                fix="start a run first (colabkit run), or name the folder: --state /its/folder",
            )
    elif not is_marked(path):  # used before: what was proved then is not written again
        _make_folder(path)
        _prove_writable(path)
    named = bool(explicit or env.get("COLABKIT_STATE"))
    return StateRoot(path, reason, chosen_by_us=not named or _is_on_drive(path, runtime))


def _is_on_drive(path: Path, runtime: Runtime) -> bool:
    """Tell whether a path leads into Drive's mount point, itself or through a link, mounted or not."""
    mountpoint = runtime.drive_mountpoint
    if not runtime.on_colab_vm:
        return False
    if path.is_relative_to(mountpoint):
        return True
    # Only its parent is resolved: touching a dead mount can hang.
    real_mountpoint = Path(os.path.realpath(mountpoint.parent), mountpoint.name)
    return Path(os.path.realpath(path)).is_relative_to(real_mountpoint)


def _require_drive(runtime: Runtime, mount_drive: Callable[[str], object] | None, read_only: bool) -> Path:
    nobody = ""
    if read_only:
        nobody = "a look at the state never asks"
    elif mount_drive is None and not runtime.answers_drive_auth:
        nobody = runtime.front_end_reason
    return require_drive(runtime.root, mount=mount_drive, nobody_to_ask=nobody)


def _link_to_drive(link: Path, target: Path, runtime: Runtime) -> Path:
    """Make `link` lead to `target`; never touches a real file or folder, nor a link to other data."""
    try:
        for _ in range(2):  # a second look if another process makes the link meanwhile
            if not os.path.lexists(link):
                try:
                    os.symlink(target, link)
                except FileExistsError:
                    continue
            break
        if not link.is_symlink():
            raise _in_the_way(link)
        leads_to = Path(os.path.normpath(link.parent / os.readlink(link)))
        if link.exists():
            if not os.path.samefile(link, target):
                raise _other_link(link, leads_to)
        elif leads_to.is_relative_to(runtime.drive_mountpoint):
            fresh = link.with_name(f".colabkit-link-{secrets.token_hex(4)}")
            os.symlink(target, fresh)
            os.replace(fresh, link)  # it led to a folder of this Drive that is gone
        else:
            raise _other_link(link, leads_to)
    except OSError as error:
        raise disk_fault(error, link, "link the state folder to Google Drive") from error
    return link


def _in_the_way(link: Path) -> StateError:
    kind = "folder" if link.is_dir() else "file"
    name = shlex.quote(str(link))
    return StateError(
        f"Cannot link {link} to Google Drive: a {kind} has this name",
        where=link,
        fix=f"move it away: mv {name} {shlex.quote(f'{link}-moved')} and run the same again; "
        "or name another state folder: --state /content/drive/MyDrive/colabkit",
    )


def _other_link(link: Path, leads_to: Path) -> StateError:
    return StateError(
        f"Cannot link {link} to Google Drive: it is a link to another place",
        got=str(leads_to),
        where=link,
        fix=f"remove the link (its target stays): rm {shlex.quote(str(link))} and run the same "
        f"again; or keep using that place: --state {shlex.quote(str(leads_to))}",
    )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_fault(error, path, "make the state folder") from error


def _prove_writable(path: Path) -> None:
    probe = path / f".colabkit-probe-{os.getpid()}"
    try:
        try:
            with open(probe, "wb") as opened:
                opened.write(_PROBE)
            intact = probe.read_bytes() == _PROBE
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise disk_fault(error, path, "write to the state folder", needed_bytes=len(_PROBE)) from error
    if not intact:
        raise StateError(
            "Cannot trust the state folder: it gives back other bytes than were written",
            where=path,
            fix="choose another folder: --state /another/folder",
        )


class RunFolder:
    """One run's durable folder, open: locked for this process unless read-only. Use it in a `with` block."""

    def __init__(self, root: Path, pipeline: str, name: str, *, read_only: bool = False):
        self.pipeline, self.name = pipeline, name
        self.root, self.path = root, root / pipeline / name
        self.read_only = read_only
        self._lock: RunLock | None = None

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"RunFolder({os.fspath(self.path)!r}{', read_only=True' if self.read_only else ''})"

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def scratch(self) -> Path:
        """A private folder on this machine's fast disk, the same at every opening; made on demand."""
        return local_folder(hashlib.sha256(os.path.realpath(self.path).encode()).hexdigest()[:16])

    @property
    def is_held(self) -> bool:
        """Whether this object has taken the right to write."""
        return self._lock is not None

    def hold(self) -> None:
        """Make the folder and take the right to write it; holding it already is fine.

        Raises: StateError naming the process that has it.
        """
        if self._lock is not None:
            return
        try:
            for place in (self.path.parent, self.path):  # one at a time: a vanished root must not be made anew
                if not place.is_dir():
                    try:
                        place.mkdir()
                        sync_folder(place.parent)
                    except FileExistsError:
                        if not place.is_dir():
                            raise
        except OSError as error:
            raise disk_fault(error, self.path, "make the run folder") from error
        self._lock = acquire_run_lock(self.path)
        mark(self.root)

    def ensure_held(self) -> None:
        """Raise StateError if the run was taken over while this process was frozen; ask before publishing."""
        if self._lock is not None:
            self._lock.ensure_held()

    def close(self) -> None:
        """Give the lock back; closing twice is harmless."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def open_run(
    root: StateRoot | str | os.PathLike, pipeline: str, run: str, *, read_only: bool = False, lazily: bool = False
) -> RunFolder:
    """Open (and make) the folder <root>/<pipeline>/<run> for this process alone.

    Another process in the same run ends in one StateError that names it; the same process may open it again. With
    `lazily` nothing is made or written before `hold()` is called: a finished run that is looked through stays as it is.
    `read_only` writes nothing ever, and raises StateError if the run does not exist.
    """
    folder = Path(os.fspath(root))
    for kind, name in (("pipeline", pipeline), ("run", run)):
        _require_name(kind, name)
    opened = RunFolder(folder, pipeline, run, read_only=read_only)
    with faults_told(opened.path, "open the run"):
        if read_only and not opened.path.is_dir():
            raise _no_such_run(folder, pipeline, run)
        patiently(
            lambda: require_ours(folder, pipeline, opened.path, chosen_by_us=getattr(root, "chosen_by_us", False))
        )
        if lazily:
            require_free(opened.path)
        if not read_only and (not lazily or is_held(opened.path)):  # held: a notebook cell run twice
            opened.hold()
    return opened


def list_runs(root: StateRoot | str | os.PathLike, pipeline: str) -> list[str]:
    """List the names of a pipeline's runs, sorted; none if it has never run here."""
    return _names_in(Path(os.fspath(root), pipeline))


def _names_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise disk_fault(error, folder, "list the runs") from error


def _require_name(kind: str, name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith("."):
        better = re.sub(r"[^A-Za-z0-9._-]+", "-", str(name)).strip("-._")[:64] or "first"
        raise UsageError(
            f"Cannot use this {kind} name",
            got=name,
            expected="1 to 64 letters, digits, '.', '_' or '-', beginning with letter or digit",
            fix=f"use --run {better}" if kind == "run" else "see the names: colabkit list",
        )


def _no_such_run(root: Path, pipeline: str, run: str) -> StateError:
    runs = list_runs(root, pipeline)
    close = difflib.get_close_matches(run, runs, n=1)
    if runs:
        shown = ", ".join(runs[:10]) + (f" and {len(runs) - 10} more" if len(runs) > 10 else "")
        fix = f"did you mean --run {close[0]}?" if close else f"choose one of them: --run {runs[0]}"
        return StateError(
            f"Cannot find this run of {pipeline}", got=run, expected=f"one of: {shown}", where=root / pipeline, fix=fix
        )
    return StateError(
        f"Cannot find this run of {pipeline}: it has none here",
        got=run,
        where=root,
        fix=f"start one: colabkit run {pipeline} --run {run}; or name the folder: --state /dir",
    )
