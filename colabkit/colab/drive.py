"""google.colab.drive: Google Drive's folder at a path of your choice."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from colabkit.colab.place import here, real
from colabkit.colab.refusals import MountError, UnsupportedError
from colabkit.core.drive import drive_mountpoint
from colabkit.core.mounts import look_at_all
from colabkit.core.runtime import Runtime

__all__ = ["flush_and_unmount", "mount"]

LINK = "MyDrive"
_mounted: dict[Path, bool] = {}  # mount point -> whether we made the folder


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    """Show Google Drive as `mountpoint`/MyDrive; elsewhere than on Colab from the folder COLABKIT_DRIVE names.

    Raises ValueError for a mount point that cannot be used, NotImplementedError where there is no Drive to mount.
    """
    runtime = here()
    if runtime.on_colab_vm:
        _mount_on_colab(runtime, mountpoint, force_remount, timeout_ms, readonly)
        return
    source = _synced_folder()
    if " " in os.fspath(mountpoint):
        raise MountError(
            "Mountpoint must not contain a space",
            got=os.fspath(mountpoint),
            fix="drive.mount('/content/drive') or another path without a space",
        )
    place = Path(os.path.abspath(os.path.expanduser(mountpoint)))
    if _links_to(place) is not None and (not force_remount and _links_to(place) == source):
        _mounted.setdefault(place, False)
        _say_already(mountpoint)
        return
    _require_free(place, force_remount)
    _link(place, source)
    if readonly:
        print("Files can still be changed: readonly is not enforced elsewhere than on Colab.")
    print(f"Mounted at {mountpoint}")


def flush_and_unmount(timeout_ms=24 * 60 * 60 * 1000):
    """Take Drive's folder away again; what was written stays with the program that synchronises it."""
    runtime = here()
    colab = real("drive", runtime)
    if colab:
        colab.flush_and_unmount(timeout_ms=timeout_ms)
        return
    if not _mounted:
        print("Drive not mounted, so nothing to flush and unmount.")
        return
    for place, made in list(_mounted.items()):
        del _mounted[place]
        if _links_to(place) is None:
            continue  # somebody changed it since: not ours any more
        (place / LINK).unlink()
        if made:
            _remove_if_empty(place)


def _mount_on_colab(runtime: Runtime, mountpoint, force_remount, timeout_ms, readonly) -> None:
    # The real call waits for the page's answer before it looks whether Drive is there already.
    is_usual = os.path.normpath(os.path.expanduser(mountpoint)) == os.fspath(drive_mountpoint(runtime.root))
    if is_usual and not force_remount and runtime.drive_mounted:
        _say_already(mountpoint)
        return
    # Where Drive cannot be mounted at all, the real one says so without asking.
    colab = real("drive", runtime, answered=runtime.answers_drive_auth or not runtime.drive_possible)
    if colab is None:
        raise MountError(
            "mount failed: nobody is there to give permission",
            where=mountpoint,
            fix=f"run drive.mount('{mountpoint}') once in this notebook's page on Colab, then start this again",
        )
    colab.mount(mountpoint, force_remount=force_remount, timeout_ms=timeout_ms, readonly=readonly)


def _say_already(mountpoint) -> None:
    print(
        f"Drive already mounted at {mountpoint}; to attempt to forcibly remount, "
        f'call drive.mount("{mountpoint}", force_remount=True).'
    )


def _synced_folder() -> str:
    named = os.environ.get("COLABKIT_DRIVE", "")
    if not named:
        raise UnsupportedError(
            "Mounting drive is unsupported in this environment",
            fix="set COLABKIT_DRIVE to a folder that Google Drive for desktop or `rclone mount` keeps in "
            "step with Drive; or leave Drive out: colabkit keeps its runs in COLABKIT_STATE",
        )
    folder = os.path.abspath(os.path.expanduser(named))
    # Drive for desktop shows the user's own files beside the shared drives. The folder of a program that died may hang.
    places = [os.path.join(folder, "My Drive"), os.path.join(folder, LINK), folder]
    looks = look_at_all(places)
    if not (looks[-1].exists and looks[-1].is_folder):
        raise MountError(
            f"mount failed: {looks[-1].fault or 'it is not a folder'}",
            where=f"COLABKIT_DRIVE={named}",
            fix="start the program that synchronises it, or set COLABKIT_DRIVE to a folder that exists",
        )
    return next(place for place, found in zip(places, looks, strict=True) if found.exists and found.is_folder)


def _links_to(place: Path) -> str | None:
    """Return where MyDrive leads, when it is all there is at `place`: only a mount of ours looks like that."""
    try:
        if place.is_symlink() or os.listdir(place) != [LINK]:
            return None
        return os.readlink(place / LINK)
    except OSError:  # not there, not a folder, or not a link
        return None


def _require_free(place: Path, force_remount: bool) -> None:
    fix = f"choose a path that does not exist yet: drive.mount('{place}2')"
    if place.is_symlink():
        raise MountError("Mountpoint must not be a symlink", got=os.fspath(place), fix=fix)
    if place.is_dir():
        if os.listdir(place) and not (force_remount and _links_to(place) is not None):
            raise MountError("Mountpoint must not already contain files", got=os.fspath(place), fix=fix)
    elif place.exists():
        raise MountError("Mountpoint must either be a directory or not exist", got=os.fspath(place), fix=fix)
    elif not place.parent.is_dir():
        raise MountError(
            "Mountpoint must be in a directory that exists",
            got=os.fspath(place),
            fix=f"mkdir -p '{place.parent}', then the same again",
        )


def _link(place: Path, source: str) -> None:
    made = not place.exists()
    try:
        if made:
            place.mkdir()
        if _links_to(place) is not None:  # checked before: to be replaced
            (place / LINK).unlink()
        (place / LINK).symlink_to(source, target_is_directory=True)
    except OSError as error:
        if _links_to(place) != source:  # somebody else was faster, with the same
            if made:
                _remove_if_empty(place)
            raise MountError(
                f"mount failed: {error.strerror}",
                where=place,
                fix="choose a path in a folder you may write to, such as drive.mount('./drive')",
            ) from error
    _mounted[place] = made or _mounted.get(place, False)


def _remove_if_empty(place: Path) -> None:
    with suppress(OSError):  # something was put there: it stays
        place.rmdir()
