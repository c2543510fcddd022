"""A dead kernel's signal is told, and whether memory ran out, as far as it can be known."""

from __future__ import annotations

import pytest

from colabkit.headless.deaths import explain_death, oom_kills

GIB = 2**30


@pytest.mark.parametrize(
    ("code", "new_oom", "used", "how", "fix"),
    [
        (
            -9,
            1,
            15 * GIB,
            "SIGKILL (signal 9): memory ran out (oom_kill rose by 1); it used 15.0 of 16.0 GiB",
            "smaller batches",
        ),
        (-9, 0, 15 * GIB, "killed by SIGKILL (signal 9): memory ran out, most likely", "smaller batches"),
        (-9, 0, 2 * GIB, "somebody or something killed it", "run the same command again"),
        (-9, 0, 0, "somebody or something killed it", "run the same command again"),
        (-11, 0, 0, "SIGSEGV (signal 11): a fault in compiled code", "run the same"),
        (-7, 0, 0, "--shm-size", "run the same"),
        (-63, 0, 0, "signal 63", "run the same"),
        (0, 0, 0, "ended by itself with exit code 0", "last output"),
        (3, 0, 0, "exit code 3", "last output"),
        (None, 0, 0, "ended by itself", "last output"),
    ],
)
def test_explanations(code, new_oom, used, how, fix):
    told, mend = explain_death(code, new_oom_kills=new_oom, used_bytes=used, memory_gib=16.0)
    assert how in told and fix in mend


def machine(root, files: dict[str, str]):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


def test_counts_of_a_container(tmp_path):
    """As Linux writes them: cgroup v2, v1, and a machine without cgroups."""
    assert (
        oom_kills(
            machine(
                tmp_path / "v2",
                {
                    "proc/self/cgroup": "0::/kubepods/pod1\n",
                    "sys/fs/cgroup/kubepods/pod1/memory.events": "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\n",
                    "proc/vmstat": "oom_kill 99\n",
                },
            )
        )
        == 2
    )
    assert (
        oom_kills(
            machine(
                tmp_path / "v1",
                {
                    "proc/self/cgroup": "4:memory:/docker/x\n",
                    "sys/fs/cgroup/memory/docker/x/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
                },
            )
        )
        == 3
    )
    assert (
        oom_kills(
            machine(tmp_path / "bare", {"proc/self/cgroup": "0::/\n", "proc/vmstat": "nr_free_pages 1\noom_kill 5\n"})
        )
        == 5
    )
    assert oom_kills(str(tmp_path / "nothing")) == 0


def test_this_machine_can_be_asked():
    assert oom_kills() >= 0
