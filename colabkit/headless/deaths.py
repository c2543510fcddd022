"""Deaths of kernels: the exit code or signal, and whether memory ran out."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from colabkit.core.runtime import cgroup_values

_GIB = 2**30
_CAUSES = {
    "SIGSEGV": "a fault in compiled code, such as a library built for other versions of what is installed",
    "SIGABRT": "compiled code gave up, such as CUDA or a check in a C++ library",
    "SIGBUS": "a mapped file was cut, or shared memory (/dev/shm) is full: give the container more with --shm-size",
    "SIGILL": "a library was built for another kind of processor",
    "SIGFPE": "a fault of arithmetic in compiled code",
    "SIGTERM": "somebody asked it to stop",
    "SIGINT": "somebody interrupted it",
    "SIGXCPU": "the limit of CPU time is used up",
}


def oom_kills(root: str = "/") -> int:
    """Count the processes that were killed in this machine or container because memory ran out, since it started."""
    counts = []
    for name in ("memory.events", "memory.oom_control"):  # cgroup v2 and v1
        counts += [_count(text) for text in cgroup_values(root, "memory", name)]
    if not counts:  # no cgroup: the machine is ours alone
        with suppress(OSError):  # no Linux, or a sandbox that has no such file
            counts.append(_count(Path(root, "proc/vmstat").read_text()))
    return max(counts, default=0)


def _count(text: str) -> int:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return 0


def explain_death(exit_code: int | None, *, new_oom_kills: int, used_bytes: int, memory_gib: float) -> tuple[str, str]:
    """Return what happened to a kernel and what to do; a negative exit code is a signal's number, as in subprocess."""
    if exit_code is None or exit_code >= 0:
        how = "it ended by itself" if exit_code is None else f"it ended by itself with exit code {exit_code}"
        return how, "look in its last output for the reason, then run the same command again: it continues"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    how = f"killed by {name} (signal {-exit_code})"
    used = f"; it used {used_bytes / _GIB:.1f} of {memory_gib:.1f} GiB when it was last looked at" if used_bytes else ""
    if new_oom_kills > 0:
        return (
            f"{how}: memory ran out (oom_kill rose by {new_oom_kills}){used}",
            "use smaller batches or a machine with more memory, then run the same command again: it continues",
        )
    if name == "SIGKILL":
        full = memory_gib > 0 and used_bytes / _GIB > 0.8 * memory_gib
        cause = (
            "memory ran out, most likely"
            if full
            else ("somebody or something killed it: a person, a scheduler, or the host when its memory ran out")
        )
        return (
            f"{how}: {cause}{used}",
            "run the same command again: it continues; if it happens again, use smaller batches or a larger machine",
        )
    return f"{how}: {_CAUSES.get(name, 'no usual cause is known')}", "run the same command again: it continues"
