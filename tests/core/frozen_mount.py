"""A real FUSE mount that takes every request and answers none, as a dead Drive does: python frozen_mount.py FOLDER.

It says READY when it is mounted. When it is killed, whoever waits in the mount gets an error, and the mount can be
taken away.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HEADER = struct.Struct("<IIQ")  # length, operation, number of the request
_INIT = 26
_LAZY = 2  # MNT_DETACH


def main(folder: str) -> None:
    """Mount, answer the greeting, and then only read."""
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if libc.mount(b"frozen", folder.encode(), b"fuse.frozen", 0, options.encode()):
        raise SystemExit(f"mount: {os.strerror(ctypes.get_errno())}")
    print("READY", flush=True)
    while True:
        _, operation, number = _HEADER.unpack_from(message := os.read(device, 1 << 17))
        if operation == _INIT:
            major, minor = struct.unpack_from("<II", message, 40)
            body = struct.pack("<IIIIHHIIHHI7I", major, min(minor, 31), 65536, 0, 12, 10, 65536, 1, 0, 0, *[0] * 8)
            os.write(device, struct.pack("<IiQ", 16 + len(body), 0, number) + body)


@contextmanager
def frozen(folder: Path) -> Iterator[str]:
    """Mount it on a new folder; yields "" or why this machine does not allow it."""
    folder.mkdir(parents=True)
    server = subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        ready = server.stdout.readline().strip() == "READY"
        yield "" if ready else server.communicate()[1].strip().splitlines()[-1]
    finally:
        server.kill()
        server.wait()
        ctypes.CDLL(None).umount2(str(folder).encode(), _LAZY)
        server.stdout.close()
        server.stderr.close()


if __name__ == "__main__":
    main(sys.argv[1])
