"""Google Drive on a Colab VM: is it mounted, asked without hanging, and mounting it when it is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from colabkit.core import mounts
from colabkit.core.errors import StateError

_PATIENCE_SECONDS = 2.0
_WITHOUT_DRIVE = "set COLABKIT_STATE=/content/state to work without Drive (runs are then lost with the VM)"


@dataclass(frozen=True, slots=True)
class DriveStatus:
    """`kind` is "mounted", "absent", "shadowed" (something else is in its place) or "dead" (no answer)."""

    kind: str
    fault: str = ""

    @property
    def mounted(self) -> bool:
        return self.kind == "mounted"


def drive_mountpoint(root: str | os.PathLike = "/") -> Path:
    """Say where Drive is mounted below the file system's `root`."""
    return Path(root, "content/drive")


def my_drive(root: str | os.PathLike = "/") -> Path | None:
    """Find the user's own folder in Drive under either of its spellings; may hang on a dead mount."""
    spellings = (drive_mountpoint(root) / name for name in ("MyDrive", "My Drive"))
    return next(filter(os.path.isdir, spellings), None)


def drive_status(root: str | os.PathLike = "/", timeout_seconds: float = _PATIENCE_SECONDS) -> DriveStatus:
    """Tell whether My Drive is mounted, in at most `timeout_seconds`: touching a dead mount can hang."""
    found = mounts.look(drive_mountpoint(root), timeout_seconds, root)
    return DriveStatus("dead", found.fault) if found.fault else _look(os.fspath(root))


def _look(root: str) -> DriveStatus:
    mountpoint = os.fspath(drive_mountpoint(root))
    try:
        if my_drive(root) is None:
            if os.listdir(mountpoint):
                return DriveStatus("shadowed", f"{mountpoint} holds files but no My Drive")
            return DriveStatus("absent")
    except FileNotFoundError:
        return DriveStatus("absent")
    except NotADirectoryError:
        return DriveStatus("shadowed", f"{mountpoint} is a file")
    except OSError as error:
        return DriveStatus("dead", f"no answer: {error.strerror}")
    points = [point for point, _ in mounts.mounted(root)]
    if not points or any(point == mountpoint or point.startswith(mountpoint + "/") for point in points):
        return DriveStatus("mounted")  # without a table to ask, what is there is believed
    # A program that made this path before Drive was mounted: what is written here ends with the VM.
    return DriveStatus("shadowed", f"{mountpoint} is a folder on this VM's own disk")


def require_drive(
    root: str | os.PathLike = "/", *, mount: Callable[[str], object] | None = None, nobody_to_ask: str = ""
) -> Path:
    """Return My Drive, mounting it if it is absent; StateError saying how to mount it where that fails.

    Mounting asks the user a question: `nobody_to_ask` says why there is nobody and keeps it from waiting.
    `mount(mountpoint)` replaces google.colab.drive.mount.
    """
    # Look before asking: drive.mount waits for the front end's answer even when Drive is mounted already.
    status = drive_status(root)
    fault = status.fault
    if status.kind == "absent" and nobody_to_ask:
        fault = f"not asked to mount it: {nobody_to_ask}"
    elif status.kind == "absent":
        try:
            _mount(mount, drive_mountpoint(root))
        except Exception as error:  # whatever it raises means one thing: no Drive
            fault = f"mounting failed: {error or type(error).__name__}"
        else:
            status = drive_status(root)
            fault = status.fault or "mounted, and still not there"
    found = my_drive(root) if status.mounted else None
    if found is None:
        raise _not_mounted(drive_mountpoint(root), status.kind, fault)
    return found


def _mount(mount: Callable[[str], object] | None, mountpoint: Path) -> None:
    if mount is None:
        from google.colab import drive  # only a Colab VM has it

        mount = drive.mount
    mount(os.fspath(mountpoint))


def _not_mounted(mountpoint: Path, kind: str, fault: str) -> StateError:
    first = f"move it away (mv '{mountpoint}' '{mountpoint}.local'), then " if kind == "shadowed" else ""
    force = ", force_remount=True" if kind == "dead" else ""
    return StateError(
        "Cannot keep runs on Google Drive: it is not mounted",
        got=fault,
        where=mountpoint,
        fix=f"{first}run this in a notebook cell: from google.colab import drive; "
        f"drive.mount('{mountpoint}'{force}) and then the same again; or {_WITHOUT_DRIVE}",
    )
