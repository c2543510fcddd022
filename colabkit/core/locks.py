"""One process a run: a kernel lock where the disk has one, a lease with a heartbeat where it has none.

Not filelock's: its SoftFileLease, too, beats in place and takes a dead process's lease at once, but its record does
not say since when a run is held (test_a_second_process_is_refused_with_a_name_and_kill_9_frees_the_run), the leases
that runs have today say nothing to it (test_a_live_lease_of_another_host_refuses), and a live one of another host is
refused after the whole watch, not at its first beat.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from colabkit.core.disk import UNSUPPORTED, disk_fault
from colabkit.core.errors import StateError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HEARTBEAT_SECONDS = 10.0
# a heartbeat older than that, or so far ahead, may be that of a clock that goes wrong: it is watched
LEASE_SECONDS = 60.0
WATCHED_BEATS = 3  # a lease watched for so many heartbeats without one belongs to nobody, whatever the clocks say
_SETTLE_SECONDS = 0.3  # two that take a dead lease at once: the later writer wins, the earlier finds out
_RECORD_BYTES = 512  # fixed length: a heartbeat overwrites in place, a reader never sees a shorter file
_held: dict[str, RunLock] = {}
_held_guard = threading.RLock()


def local_folder(*parts: str) -> Path:
    """Make and return a private folder on this machine's fast disk: <temp>/colabkit-<user>/<parts>."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    folder = Path(tempfile.gettempdir(), f"colabkit-{user}")
    try:
        for part in ("", *parts):
            folder = folder / part
            folder.mkdir(mode=0o700, exist_ok=True)
            found = os.lstat(folder)
            if folder.is_symlink() or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
                raise StateError(
                    "Cannot use the local scratch folder: it is somebody else's or a link",
                    where=folder,
                    fix="choose another place: set TMPDIR to a folder of your own",
                )
    except OSError as error:
        raise disk_fault(error, folder, "make the local scratch folder") from error
    return folder


class RunLock:
    """The right to write one run folder, taken with `acquire_run_lock` and given back with `release`."""

    def __init__(self, folder: Path, key: str):
        self.folder, self.key = folder, key
        self.lost_to: dict | None = None
        self.missed_beats = 0
        self._owners = 1
        self._handle: int | None = None
        self._leased = False
        self._last_beat = time.time()
        self._token = secrets.token_hex(8)
        self._since = time.time()
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    @property
    def lease_path(self) -> Path:
        return self.folder / ".lease"

    def acquire(self) -> None:
        try:
            if fcntl is None:
                self._take_lease()
            elif not self._flock(self.folder / ".lock"):
                # On its own disk the kernel still tells this machine's processes apart; the lease does hosts.
                name = hashlib.sha256(self.key.encode()).hexdigest()[:16] + ".lock"
                self._flock(local_folder("locks") / name)
                self._take_lease()
        except BaseException as error:
            self._let_go()
            if isinstance(error, OSError):
                raise disk_fault(error, self.folder, "lock the run") from error
            raise

    def require_free(self) -> None:
        """Raise StateError if another process holds the run; writes nothing."""
        if fcntl is not None:
            try:
                handle = os.open(self.folder / ".lock", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                pass  # never locked, or nothing to ask here: taking the lock will tell
            else:
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno in _BUSY:
                        raise self._busy(_read_record(lambda: os.pread(handle, _RECORD_BYTES, 0))) from error
                finally:
                    os.close(handle)
        try:
            holder = _read_record(self.lease_path.read_bytes)
        except OSError:
            return  # the same
        if holder is not None and _is_alive(holder):
            raise self._busy(holder)

    def ensure_held(self) -> None:
        """Raise StateError if another process took the run while this one was frozen."""
        if self._leased and time.time() - self._last_beat > LEASE_SECONDS / 2:
            self._beat()
        if self.lost_to is not None:
            raise StateError(
                "Cannot go on: this process was frozen and another one has taken the run" + _named(self.lost_to),
                where=self.folder,
                fix="leave the run to that process, or stop it and run the same command again",
            )

    def release(self) -> None:
        """Give the run back; the last of several openers in this process frees it."""
        with _held_guard:
            self._owners -= 1
            if self._owners > 0:
                return
            if _held.get(self.key) is self:
                del _held[self.key]
            self._let_go()

    def _flock(self, path: Path) -> bool:
        """Take the kernel lock on `path`; False where the file system has none."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock_past_a_look(handle)
        except OSError as error:
            try:
                if error.errno in _BUSY:
                    raise self._busy(_read_record(lambda: os.pread(handle, _RECORD_BYTES, 0))) from error
            finally:
                os.close(handle)
            if error.errno in UNSUPPORTED:
                return False
            raise
        self._handle = handle
        os.pwrite(handle, self._record(), 0)
        return True

    def _take_lease(self) -> None:
        holder = _read_record(self.lease_path.read_bytes)
        if holder is not None and (alive := holder if _is_alive(holder) else self._watched(holder)):
            raise self._busy(alive)
        try:
            # Of several that find no lease only one may make it; a dead one is taken by whoever writes last.
            with open(self.lease_path, "r+b" if self.lease_path.exists() else "xb") as lease:
                self._leased = True
                lease.write(self._record())
        except (FileExistsError, FileNotFoundError):  # made or given back between two looks
            raise self._busy(_read_record(self.lease_path.read_bytes)) from None
        time.sleep(_SETTLE_SECONDS)
        winner = _read_record(self.lease_path.read_bytes)
        if winner is None or winner.get("token") != self._token:
            raise self._busy(winner)
        self._beating = threading.Thread(target=self._beat_until_stopped, name="colabkit-lease", daemon=True)
        self._beating.start()

    def _watched(self, holder: dict) -> dict | None:
        """Return who beats on in a lease of another host, by this machine's clock alone.

        Two clocks may differ by any amount.
        """
        if holder.get("machine") == _machine():
            return None
        seconds = WATCHED_BEATS * HEARTBEAT_SECONDS
        print(
            f"  the run has a lease without a fresh heartbeat{_named(holder)}: it is watched for {seconds:.0f} s, "
            "then taken",
            flush=True,
        )
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, HEARTBEAT_SECONDS / 4))
            found = _read_record(self.lease_path.read_bytes)
            if found not in (holder, None):
                return found
            if not self.lease_path.exists():
                return None  # given back meanwhile
        return None

    def _beat_until_stopped(self) -> None:
        while self.lost_to is None and not self._stop.wait(HEARTBEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        try:
            with open(self.lease_path, "r+b") as lease:
                holder = _parse(lease.read())
                if holder is not None and holder.get("token") != self._token:
                    self.lost_to = holder
                    return
                lease.seek(0)
                lease.write(self._record())
            self._last_beat = time.time()
        except OSError:
            self.missed_beats += 1  # a network disk that is away for a moment: the next beat tries again

    def _record(self) -> bytes:
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname()[:80],
            "since": round(self._since),
            "beat": round(time.time(), 1),
            "token": self._token,
            "machine": _machine(),
            "born": _born(os.getpid()),
        }
        return json.dumps(record).encode().ljust(_RECORD_BYTES)

    def _busy(self, holder: dict | None) -> StateError:
        who = f"process {holder['pid']}" if holder else "that process"
        return StateError(
            f"Cannot open the run: another process is using it{_named(holder)}",
            where=self.folder,
            fix=f"wait until {who} is done, or stop it, or choose another name with --run",
        )

    def _let_go(self) -> None:
        self._stop.set()
        if self._beating is not None:
            self._beating.join(timeout=5)
        if self._leased:
            self._leased = False
            try:
                holder = _parse(self.lease_path.read_bytes())
                if holder is not None and holder.get("token") == self._token:
                    self.lease_path.unlink()
            except OSError:
                self.missed_beats += 1  # nothing more to do: without heartbeats the lease runs out by itself
        if self._handle is not None:
            # The file stays: unlinking it would let two processes hold locks on two files of one name.
            handle, self._handle = self._handle, None
            for act in (lambda: os.ftruncate(handle, 0), lambda: os.close(handle)):
                try:
                    act()
                except OSError:
                    self.missed_beats += 1  # only the text of a message; a dead mount holds no lock


def _lock_past_a_look(handle: int) -> None:
    """Lock for this process alone; somebody who only looks holds the lock for an instant, too."""
    for tries_left in (2, 1, 0):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in _BUSY or not tries_left:
                raise
            time.sleep(0.01)


_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


def acquire_run_lock(folder: Path) -> RunLock:
    """Take the right to write `folder` or raise StateError naming process, host and since when.

    Opening the same run again in one process (a notebook cell run twice) shares the lock.
    """
    key = os.path.realpath(folder)
    with _held_guard:
        if key in _held:
            _held[key]._owners += 1
            return _held[key]
        lock = RunLock(Path(folder), key)
        lock.acquire()
        _held[key] = lock
        return lock


def require_free(folder: Path) -> None:
    """Raise StateError naming process, host and since when, if another process holds `folder`; writes nothing."""
    with _held_guard:
        if os.path.realpath(folder) not in _held:
            RunLock(Path(folder), "").require_free()


def is_held(folder: Path) -> bool:
    """Tell whether this process holds the right to write `folder`."""
    with _held_guard:
        return os.path.realpath(folder) in _held


def _forget_in_child() -> None:
    """Drop locks copied by fork: a worker that outlives its parent must not keep the run locked."""
    global _held_guard
    _held_guard = threading.RLock()
    for lock in _held.values():
        if lock._handle is not None:
            os.close(lock._handle)  # closes the copy only; the parent's lock stays
            lock._handle = None
        lock._beating, lock._leased = None, False
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def _parse(raw: bytes) -> dict | None:
    try:
        record = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("pid"), int):
        return None
    numbers = (record.get("since"), record.get("beat"))
    return record if all(isinstance(number, (int, float)) for number in numbers) else None


def _read_record(read: Callable[[], bytes]) -> dict | None:
    """Read a lock's record; a few tries bridge the moment between taking a lock and writing its record."""
    for _ in range(5):
        try:
            record = _parse(read())
        except FileNotFoundError:
            return None
        if record is not None:
            return record
        time.sleep(0.02)
    return None


def _named(holder: dict | None) -> str:
    if holder is None:
        return ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
    return f" (process {holder['pid']} on host {holder.get('host', 'unknown')}, since {since})"


def _is_alive(holder: dict) -> bool:
    """Judge a lease: by its process on this machine, by its heartbeat elsewhere."""
    if holder.get("machine") == _machine():
        if holder["pid"] == os.getpid():
            return False  # a lease of ours that was never given back
        alive = _process_is_alive(holder["pid"], holder.get("born"))
        if alive is not None:
            return alive
    return abs(time.time() - holder["beat"]) < LEASE_SECONDS


def _machine() -> str:
    """Tell machines, boots and containers apart where a host name alone does not."""
    parts = [socket.gethostname()[:80]]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:13],
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with suppress(OSError):  # not Linux: the host name has to do
            parts.append(read())
    return " ".join(parts)


def _born(pid: int) -> str | None:
    """Read a process's start time (clock ticks), which tells a reused pid; None: unknown, '': dead."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return ""
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]


def _process_is_alive(pid: int, born: str | None) -> bool | None:
    """Tell whether a process of this machine lives; None where that cannot be asked without harm."""
    if os.name == "nt":
        return None  # os.kill(pid, 0) sends Ctrl-C there
    now = _born(pid)
    if now is not None:
        return now != "" and (not born or now == born)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
