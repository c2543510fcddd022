"""Faults of a disk: every OSError turned into one clear error, free space, folder sync."""

from __future__ import annotations

import pickle

from colabkit.core import disk


def test_the_number_of_a_disk_fault_crosses_processes_too(tmp_path):
    error = disk.disk_fault(OSError(28, "No space left"), tmp_path, "write")
    assert pickle.loads(pickle.dumps(error)).errno == 28
