"""A medium's faults are OSError with their own number, whatever the operation: by it a Drive is waited for or not."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from colabkit.runs.medium import AWAY, MountedDrive

OPERATIONS = {
    "make_folder": lambda medium, at: medium.make_folder(at / "new"),
    "write": lambda medium, at: medium.write(at / "file", [b"abc"]),
    "overwrite": lambda medium, at: medium.overwrite(at / "LATEST", b"abc"),
    "names": lambda medium, at: medium.names(at / "old"),
    "remove": lambda medium, at: medium.remove(at / "old"),
    "free_bytes": lambda medium, at: medium.free_bytes(at),
}
CALLS = (
    (os, "open"),
    (os, "fsync"),
    (os, "mkdir"),
    (os, "listdir"),
    (os, "lstat"),
    (os, "truncate"),
    (os, "unlink"),
    (os, "rmdir"),
    (shutil, "disk_usage"),
    (os, "write"),
    (os, "close"),
)


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_fault_of_any_call_keeps_its_number(tmp_path, monkeypatch, name, code):
    """Each call of the system that an operation makes fails once, in turn."""
    num_met = 0
    for module, call in CALLS:
        at = tmp_path / f"{call}"
        (at / "old").mkdir(parents=True)
        (at / "old" / "state").write_bytes(b"state")
        real, met = getattr(module, call), []

        def failing(*args, real=real, met=met, **how):
            if met:
                return real(*args, **how)
            met.append(args)
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(module, call, failing)
            try:
                OPERATIONS[name](MountedDrive(), at)
            except OSError as error:
                assert error.errno == code in AWAY
                num_met += 1
    assert num_met, "no call of the system was met"
