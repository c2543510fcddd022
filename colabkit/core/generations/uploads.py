"""Wait until a mounted Drive has taken what was written: a finished run that is not uploaded ends with the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from colabkit.core.generations.medium import Medium

PATIENCE_SECONDS = 300.0
_ASK_SECONDS = 2.0


def wait_for_uploads(medium: Medium, paths: Iterable[Path], *, say: Callable[[str], object] = print,
                     patience_seconds: float = PATIENCE_SECONDS, ask_seconds: float = _ASK_SECONDS) -> list[Path]:
    """Wait until every file would outlive this machine, at most so long; returns those that would not yet."""
    waiting = [path for path in paths if not medium.is_uploaded(path)] if medium.is_remote else []
    if not waiting:
        return []
    say(f"{medium.name} is still taking {len(waiting)} files; waiting for it, at most {patience_seconds / 60:.0f} min")
    end = time.monotonic() + patience_seconds
    while waiting and time.monotonic() < end:
        time.sleep(ask_seconds)
        waiting = [path for path in waiting if not medium.is_uploaded(path)]
    if waiting:
        say(f"WARNING {medium.name} has not taken {len(waiting)} files yet, such as {waiting[0]}: keep this machine until it "
            "has, or run flush_and_unmount of google.colab.drive")
    else:
        say(f"{medium.name} has taken everything")
    return waiting
