"""A real mounted file system (FUSE) that shows a folder and fails on order, as Google Drive's does.

    python failing_mount.py BACKING MOUNTPOINT WEATHER.json

The weather file is read again whenever it changes: {"fault_share": 0.05, "away": false, "full": false, "seed": 1}.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import random
import sys
import threading
from pathlib import Path

FAULTS = (errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT)
_STAT = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_mtime", "st_atime", "st_ctime")


def main() -> None:
    from mfusepy import FUSE, FuseOSError, Operations

    def failing(operation):
        @functools.wraps(operation)
        def carried_out(self, path, *arguments):
            self._fail_perhaps(operation.__name__)
            try:
                return operation(self, self.backing + path, *arguments)
            except OSError as error:
                raise FuseOSError(error.errno) from error

        return carried_out

    class FailingMount(Operations):
        def __init__(self, backing: str, weather: str):
            self.backing, self.weather_path, self.weather, self.changed = backing, weather, {}, 0
            self.dice, self.lock = random.Random(), threading.Lock()

        def _fail_perhaps(self, operation: str) -> None:
            with self.lock:
                try:
                    changed = os.stat(self.weather_path).st_mtime_ns
                    if changed != self.changed:
                        self.weather, self.changed = json.loads(Path(self.weather_path).read_text()), changed
                        self.dice.seed(self.weather.get("seed", 0))
                except (OSError, ValueError):
                    pass  # being written: the weather stays as it was
                weather, chance = self.weather, self.dice.random()
                which = self.dice.choice(FAULTS)
            if operation in ("init", "destroy", "release", "statfs"):
                return
            if weather.get("away") or chance < weather.get("fault_share", 0.0):
                raise FuseOSError(errno.ENOTCONN if weather.get("away") else which)
            if weather.get("full") and operation in ("write", "create", "mkdir"):
                raise FuseOSError(errno.ENOSPC)

        def init(self, path):
            pass

        def destroy(self, path):
            pass

        def getattr(self, path, handle=None):
            found = os.lstat(path)
            return {key: getattr(found, key) for key in _STAT}

        def readdir(self, path, handle):
            return [".", "..", *os.listdir(path)]

        def statfs(self, path):
            found = os.statvfs(path)
            return {
                key: getattr(found, key)
                for key in ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_files", "f_frsize")
            }

        def create(self, path, mode, info=None):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

        def open(self, path, flags):
            return os.open(path, flags & ~os.O_APPEND)

        def read(self, path, size, offset, handle):
            return os.pread(handle, size, offset)

        def write(self, path, data, offset, handle):
            return os.pwrite(handle, data, offset)

        def truncate(self, path, length, handle=None):
            os.truncate(path, length)

        def release(self, path, handle):
            os.close(handle)

        def flush(self, path, handle):
            pass

        def fsync(self, path, data_only, handle):
            os.fsync(handle)

        def mkdir(self, path, mode):
            os.mkdir(path, mode)

        def rmdir(self, path):
            os.rmdir(path)

        def unlink(self, path):
            os.unlink(path)

        def rename(self, path, new):
            os.rename(path, self.backing + new)

        def chmod(self, path, mode):
            os.chmod(path, mode)

        def utimens(self, path, times=None):
            os.utime(path, times)

        def access(self, path, mode):
            pass

    for name, operation in list(vars(FailingMount).items()):
        if not name.startswith("_"):
            setattr(FailingMount, name, failing(operation))
    backing, mountpoint, weather = sys.argv[1:]
    # The kernel remembers nothing, so that every fault is seen.
    FUSE(
        FailingMount(backing, weather),
        mountpoint,
        foreground=True,
        nothreads=True,
        fsname="drive",
        direct_io=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
    )


if __name__ == "__main__":
    main()
