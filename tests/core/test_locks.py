"""Tests of colabkit.core.locks through open_run: two processes, kill -9, fork, disks without locks."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from colabkit.core import locks
from colabkit.core.errors import StateError
from colabkit.runs.state import open_run

HOLD = """
import errno, os, sys, time
from colabkit.core import locks
from colabkit.core.errors import StateError
from colabkit.runs.state import open_run
locks.HEARTBEAT_SECONDS = 0.05
without = sys.argv[2]
if without == "flock on the run's disk":
    real = locks.fcntl.flock
    def flock(handle, how):
        if "/.lock" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSYS, "not implemented")
        real(handle, how)
    locks.fcntl.flock = flock
elif without == "fcntl":
    locks.fcntl = None
try:
    run = open_run(sys.argv[1], "asr", "run")
except StateError as error:
    print("refused", str(error).replace(chr(10), " "), flush=True)
    sys.exit(3)
print("held", flush=True)
"""
WAYS = ["nothing", "flock on the run's disk", "fcntl"]


@pytest.fixture
def hold(tmp_path, monkeypatch):
    """Start processes that open the same run and, by default, hold it until killed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "fast"))
    (tmp_path / "fast").mkdir()
    (tmp_path / "root").mkdir()
    started = []

    def start(without="nothing", then="time.sleep(60)"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD + then, str(tmp_path / "root"), without], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def try_to_open(root):
    """Say what another process is told that opens the run and ends."""
    return subprocess.run([sys.executable, "-c", HOLD, str(root), "nothing"], stdout=subprocess.PIPE, text=True).stdout


def lease(**changes):
    record = {
        "pid": 2**22 + 5,
        "host": "elsewhere",
        "since": time.time() - 90,
        "beat": time.time(),
        "token": "t",
        "machine": "elsewhere",
        "born": "1",
    } | changes
    return json.dumps(record).encode().ljust(512)


@pytest.fixture
def leased(tmp_path, monkeypatch):
    """A run folder on a disk without kernel locks; quick heartbeats."""
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "_SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.02)
    (tmp_path / "asr" / "run").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("without", WAYS)
def test_a_second_process_is_refused_with_a_name_and_kill_9_frees_the_run(hold, without):
    first = hold(without)
    assert first.stdout.readline() == "held\n"
    second = hold(without)
    told = second.stdout.readline()
    assert told.startswith("refused Cannot open the run: another process is using it")
    assert f"process {first.pid} on host {socket.gethostname()[:80]}, since 20" in told
    assert "fix:" in told and "--run" in told and second.wait() == 3
    os.kill(first.pid, signal.SIGKILL)  # not waited for: a zombie counts as dead
    time.sleep(0.1)
    third = hold(without, "run.close()")
    assert third.stdout.readline() == "held\n" and third.wait() == 0
    assert hold(without, "").stdout.readline() == "held\n"


@pytest.mark.parametrize("without", WAYS)
def test_of_many_at_once_exactly_one_wins(hold, without):
    together = [hold(without) for _ in range(4)]
    answers = [process.stdout.readline().split()[0] for process in together]
    assert sorted(answers) == ["held", "refused", "refused", "refused"]


@pytest.mark.parametrize("without", ["nothing", "flock on the run's disk"])
def test_a_forked_worker_that_outlives_its_parent_does_not_keep_the_run(hold, without):
    parent = hold(without, "pid = os.fork()\nif pid: print(pid, flush=True)\ntime.sleep(60)")
    assert parent.stdout.readline() == "held\n"
    worker = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait()
        assert hold(without).stdout.readline() == "held\n"
        os.kill(worker, 0)
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("without", WAYS)
def test_a_forked_worker_that_closes_its_copy_does_not_free_the_run(hold, without):
    parent = hold(
        without,
        "pid = os.fork()\nif pid == 0: run.close(); os._exit(0)\n"
        "os.waitpid(pid, 0); print('forked', flush=True); time.sleep(60)",
    )
    assert parent.stdout.readline() == "held\n" and parent.stdout.readline() == "forked\n"
    assert hold(without).stdout.readline().startswith("refused")


def test_the_same_process_may_open_its_run_again(tmp_path):
    first = open_run(tmp_path, "asr", "run")
    second = open_run(tmp_path, "asr", "run")  # a notebook cell run twice
    first.close()
    first.close()
    told = try_to_open(tmp_path)
    assert told.startswith("refused") and f"process {os.getpid()} " in told
    (tmp_path / "link").symlink_to(tmp_path)
    open_run(tmp_path / "link", "asr", "run").close()  # and under another name of the same folder
    second.close()
    assert try_to_open(tmp_path) == "held\n"


def test_a_link_to_the_root_is_the_same_run(tmp_path, hold):
    holder = hold()
    assert holder.stdout.readline() == "held\n"
    (tmp_path / "link").symlink_to(tmp_path / "root")
    with pytest.raises(StateError, match=f"process {holder.pid}"):
        open_run(tmp_path / "link", "asr", "run")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL])
def test_every_way_to_have_no_flock_falls_back_to_the_lease(tmp_path, monkeypatch, code):
    def no_flock(handle, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.fcntl, "flock", no_flock)
    monkeypatch.setattr(locks, "_SETTLE_SECONDS", 0.01)
    with open_run(tmp_path, "asr", "run") as run:
        assert json.loads((run.path / ".lease").read_text())["pid"] == os.getpid()
    assert not (run.path / ".lease").exists()


def test_a_disk_that_fails_while_locking_is_a_state_error_and_leaves_no_lock(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:

        def full(*args):
            raise OSError(errno.ENOSPC, "No space left")

        patch.setattr(os, "pwrite", full)
        with pytest.raises(StateError, match="Cannot lock the run"):
            open_run(tmp_path, "asr", "run")
    open_run(tmp_path, "asr", "run").close()
    assert try_to_open(tmp_path) == "held\n"


# The lease


def test_a_live_lease_of_another_host_refuses(leased):
    (leased / "asr/run/.lease").write_bytes(lease(pid=77))
    with pytest.raises(StateError, match="process 77 on host elsewhere, since 20"):
        open_run(leased, "asr", "run")
    assert json.loads((leased / "asr/run/.lease").read_bytes())["token"] == "t"


@pytest.mark.parametrize("skew_seconds", [-7_200, -61, 61, 7_200])
def test_a_live_lease_is_respected_however_wrong_its_host_s_clock_goes(leased, skew_seconds, capsys):
    path, stop = leased / "asr/run/.lease", threading.Event()
    path.write_bytes(lease(beat=time.time() + skew_seconds))

    def beat():
        while not stop.wait(locks.HEARTBEAT_SECONDS):
            path.write_bytes(lease(beat=time.time() + skew_seconds))

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(StateError, match="on host elsewhere"):
            open_run(leased, "asr", "run")
    finally:
        stop.set()
        beating.join()
    assert "is watched for" in capsys.readouterr().out


def test_a_lease_given_back_while_it_is_watched_is_taken_at_once(leased, monkeypatch):
    path = leased / "asr/run/.lease"
    path.write_bytes(lease(beat=0))
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 60.0)
    threading.Timer(0.3, path.unlink).start()
    began = time.monotonic()
    open_run(leased, "asr", "run").close()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "content",
    [lease(beat=time.time() - 61), lease(beat=time.time() + 7_200), b"", b"\0" * 512, b"[1]", b'{"pid": "x"}'],
)
def test_a_lease_without_heartbeat_or_sense_is_taken_over(leased, content):
    (leased / "asr/run/.lease").write_bytes(content)
    with open_run(leased, "asr", "run") as run:
        assert json.loads((run.path / ".lease").read_bytes())["pid"] == os.getpid()


def test_a_dead_process_of_this_machine_loses_its_lease_at_once(leased):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for dead in (
        lease(machine=locks._machine(), pid=ended.pid),
        lease(machine=locks._machine(), pid=1, born="-1"),  # a reused pid: started at another time
        lease(machine=locks._machine(), pid=os.getpid()),
    ):  # ours, never given back
        (leased / "asr/run/.lease").write_bytes(dead)
        open_run(leased, "asr", "run").close()
    living = lease(machine=locks._machine(), pid=1, born=locks._born(1), beat=0)
    (leased / "asr/run/.lease").write_bytes(living)
    with pytest.raises(StateError, match="process 1 "):
        open_run(leased, "asr", "run")


@pytest.mark.parametrize("before", [None, lease(beat=0)], ids=["no lease", "dead lease"])
def test_who_loses_the_race_for_a_lease_finds_out(leased, monkeypatch, before):
    path = leased / "asr/run/.lease"
    if before:
        path.write_bytes(before)
    rival = lease(pid=4242, token="rival")
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: path.write_bytes(rival))
    with pytest.raises(StateError, match="process 4242"):
        open_run(leased, "asr", "run")
    assert path.read_bytes() == rival


def test_the_heartbeat_beats_in_place_and_stops(leased):
    run = open_run(leased, "asr", "run")
    path = run.path / ".lease"
    inode, first = path.stat().st_ino, json.loads(path.read_bytes())["beat"]
    deadline = time.time() + 5
    while json.loads(path.read_bytes())["beat"] == first and time.time() < deadline:
        time.sleep(0.02)
    assert json.loads(path.read_bytes())["beat"] > first and path.stat().st_ino == inode
    run.close()
    time.sleep(0.1)
    assert not path.exists()


def test_a_frozen_holder_finds_out_and_does_not_fight(leased):
    run = open_run(leased, "asr", "run")
    path = run.path / ".lease"
    run.ensure_held()
    taken = lease(token="other", pid=4242)
    deadline = time.time() + 5
    while run._lock.lost_to is None and time.time() < deadline:
        path.write_bytes(taken)  # again, where a heartbeat was just being written
        time.sleep(0.02)
    with pytest.raises(StateError, match="frozen.*process 4242"):
        run.ensure_held()
    run.close()
    assert path.read_bytes() == taken


def test_a_holder_just_woken_looks_before_it_says_it_holds(leased, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 60)
    run = open_run(leased, "asr", "run")
    (run.path / ".lease").write_bytes(lease(token="other"))
    run.ensure_held()  # its last beat is fresh: nothing can have been taken
    run._lock._last_beat -= locks.LEASE_SECONDS
    with pytest.raises(StateError, match="frozen"):
        run.ensure_held()
    run.close()


def test_a_disk_away_for_a_moment_does_not_end_the_lease(leased):
    run = open_run(leased, "asr", "run")
    path = run.path / ".lease"
    path.rename(path.with_name("away"))
    time.sleep(0.15)
    path.with_name("away").rename(path)
    assert run._lock.missed_beats > 0
    before = json.loads(path.read_bytes())["beat"]
    deadline = time.time() + 5
    while json.loads(path.read_bytes())["beat"] <= before and time.time() < deadline:
        time.sleep(0.02)
    assert json.loads(path.read_bytes())["beat"] > before
    run.ensure_held()
    run.close()


def test_the_module_imports_without_fcntl():
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from colabkit.core import locks; from colabkit.runs import state\nassert locks.fcntl is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
