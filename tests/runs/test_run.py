"""Tests of colabkit.runs.run: how a run ends in every way it can, and what it leaves behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from colabkit.core import files
from colabkit.core.errors import ChangedError, DataError, Rehearsed, StateError, Stopped, UsageError
from colabkit.runs.steps import step
from colabkit.training.checkpoints.checkpoints import checkpoints_of

GROWN = [("02_grow", unit) for unit in range(4)]


def report_of(toy, run="a"):
    return json.loads((toy.root / "toy" / run / "report.json").read_text())


def steps_of(toy):
    return {row["id"]: row["outcome"] for row in report_of(toy)["steps"]}


def signal_at(step_id, unit, number=signal.SIGTERM):
    def hook(name, at, run):
        if (name, at) == (step_id, unit):
            os.kill(os.getpid(), number)

    return hook


def raise_at(step_id, error):
    def hook(name, at, run):
        if name == step_id:
            raise error

    return hook


# Done


def test_a_step_of_another_machine_is_left_to_it_and_not_recorded(toy):
    steps = tuple(
        replace(s, elsewhere=lambda config: "the machine in the attic does it") if s.id == "02_grow" else s
        for s in toy.STEPS
    )
    with pytest.raises(UsageError):
        toy.do_all(steps=steps)  # what needs its result cannot go on here
    assert "02_grow  skip: the machine in the attic does it" in toy.said
    assert steps_of(toy)["02_grow"] == "skip" and not (toy.root / "toy/a/ledger/02_grow.json").exists()
    assert toy.do_all() == [*GROWN, ("03_use", 0)], "what was left is done where it belongs"


def test_a_dry_run_ends_well_and_records_nothing(toy):
    toy.hooks.append(raise_at("02_grow", Rehearsed("Dry run: 3 numbers would grow", fix="set dry_run=no")))
    with pytest.raises(Rehearsed) as caught:
        toy.do_all()
    assert caught.value.exit_code == 0 and not (toy.root / "toy/a/ledger/02_grow.json").exists()
    toy.hooks.clear()
    assert toy.do_all()[-1] == ("03_use", 0)


def test_a_whole_run_and_its_report(toy):
    toy.do_all(comment="kept")
    report = report_of(toy)
    assert report["state"] == "done" and report["metrics"] == {"numbers": 3, "sum": 6.0, "result": 6.0}
    assert steps_of(toy) == {"01_make": "run", "02_grow": "run", "03_use": "run"}
    assert [c["name"] for c in report["choices"]] == ["make.size", "grow.plan"] and report["problems"][0][
        "item"
    ] == "seven"
    config = json.loads((toy.root / "toy/a/config.json").read_text())
    assert config["pipeline"] == "toy" and config["settings"]["make"]["comment"] == "kept"
    assert toy.said[0] == "01_make  run: not done yet" and toy.said[-1].startswith("03_use  done in ")


def test_a_skipped_step_keeps_its_metrics_choices_and_problems_in_the_report(toy):
    toy.do_all()
    before = report_of(toy)
    toy.do_all()
    after = report_of(toy)
    assert toy.outcomes() == ["skip"] * 3 and before == after, "a finished run stays as it is"
    toy.do_all(stop="02")
    (toy.root / "toy/a/03_use/result.json").unlink()
    toy.do_all()
    after = report_of(toy)
    assert steps_of(toy) == {"01_make": "skip", "02_grow": "skip", "03_use": "run"}
    assert {k: before[k] for k in ("metrics", "choices", "problems", "state")} == {
        k: after[k] for k in ("metrics", "choices", "problems", "state")
    }


def test_steps_before_the_first_asked_for_stay_in_the_report(toy):
    toy.do_all()
    with toy.open() as run:
        told = run.do_all(start="03").data
    assert told["metrics"] == {"numbers": 3, "sum": 6.0, "result": 6.0}
    assert told["steps"][0]["reason"].endswith("not looked at") and len(told["choices"]) == 2


def test_a_part_of_the_steps(toy):
    assert toy.do_all(stop="01") == [("01_make", 0)] and report_of(toy)["state"] == "running"
    assert toy.do_all(start="02", stop="grow") == GROWN
    assert toy.do_all(start="3") == [("03_use", 0)] and report_of(toy)["state"] == "done"


def test_cell_by_cell_is_the_same_as_all_at_once(toy):
    with toy.open() as run:
        for one in toy.STEPS:
            assert run.do(one.id)["step"] == one.id
        assert run.folder_of("3").name == "03_use" and run.output == run.path
        assert "result" in str(run.metrics_table()) and run.scratch.is_dir()
        with pytest.raises(UsageError, match="No such step"):
            run.do("04")


def test_metrics_that_are_no_number_do_not_cost_the_step(toy):
    @step("04_odd", writes=())
    def odd(config, run):
        """Measure nothing."""
        return {"nan": float("nan"), "inf": float("inf"), "none": None}

    steps = (*toy.STEPS, odd)
    toy.do_all(steps=steps)
    toy.do_all(steps=steps)
    assert report_of(toy)["metrics"]["nan"] is None and toy.outcomes() == ["skip"] * 4


def test_a_step_may_return_nothing(toy):
    @step("01_quiet")
    def quiet(config, run):
        """Be quiet."""

    toy.do_all(steps=(quiet,))
    assert report_of(toy)["state"] == "done" and report_of(toy)["metrics"] == {}


# Stopped


def test_sigterm_in_a_step_that_does_not_resume_stops_at_once_and_a_later_run_goes_on(toy):
    before = signal.getsignal(signal.SIGTERM)
    toy.hooks.append(signal_at("03_use", 0))
    with pytest.raises(Stopped) as caught:
        toy.do_all()
    assert (
        caught.value.exit_code == 75 and "SIGTERM" in str(caught.value) and signal.getsignal(signal.SIGTERM) == before
    )
    assert report_of(toy)["state"] == "stopped" and steps_of(toy)["03_use"] == "stopped"
    toy.hooks.clear()
    assert toy.do_all() == [("03_use", 0)] and report_of(toy)["state"] == "done"


def test_sigterm_in_a_step_that_resumes_asks_it_to_save_and_stop(toy):
    toy.hooks.append(signal_at("02_grow", 1))
    with pytest.raises(Stopped):
        toy.do_all()
    assert toy.log == [("01_make", 0), ("02_grow", 0), ("02_grow", 1)], "the unit at work is finished and saved"
    toy.hooks.clear()
    assert toy.do_all() == [("02_grow", 2), ("02_grow", 3), ("03_use", 0)]


def test_sigterm_while_the_last_unit_is_at_work_finishes_that_step_and_stops_before_the_next(toy):
    toy.hooks.append(signal_at("02_grow", 3))
    with pytest.raises(Stopped):
        toy.do_all()
    assert toy.log[-1] == ("02_grow", 3) and steps_of(toy)["02_grow"] == "run" and report_of(toy)["state"] == "stopped"
    toy.hooks.clear()
    assert toy.do_all() == [("03_use", 0)]


def test_sigterm_in_the_last_step_of_all_leaves_a_finished_run(toy):
    toy.hooks.append(signal_at("02_grow", 3))
    toy.do_all(steps=toy.STEPS[:2])
    assert report_of(toy)["state"] == "done"


def test_after_a_stop_the_same_run_object_goes_on(toy):
    toy.hooks.append(signal_at("02_grow", 1))
    with toy.open() as run:
        run.do("01")
        with pytest.raises(Stopped):
            run.do("02")
        toy.hooks.clear()
        run.do("02")
        run.do("03")
    assert toy.log[1:] == [*GROWN, ("03_use", 0)] and report_of(toy)["state"] == "done"


def test_a_step_that_swallows_the_stop_is_not_taken_for_done(toy):
    @step("01_greedy", writes=("a.txt",))
    def greedy(config, run):
        """Take every fault for one of its input."""
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            run.report.problem("a.wav", str(error))
        (run.output / "a.txt").write_text("")

    with pytest.raises(Stopped):
        toy.do_all(steps=(greedy,))
    assert not (toy.root / "toy/a/ledger/01_greedy.json").exists()


def test_a_stop_in_a_redo_tells_to_leave_redo_out_and_then_goes_on(toy):
    toy.do_all()
    toy.hooks.append(signal_at("02_grow", 1))
    with pytest.raises(Stopped) as caught:
        toy.do_all(redo=["02"])
    assert "without --redo" in caught.value.fix
    toy.hooks.clear()
    assert toy.do_all() == GROWN[2:]
    toy.hooks.append(signal_at("03_use", 0))
    with pytest.raises(Stopped) as caught:
        toy.do_all(rate=1.0, redo=["01"])
    toy.hooks.clear()
    with toy.open(rate=1.0) as run:
        assert "--redo" not in run.stopped().fix
        run.do_all()


def test_an_interrupt_by_hand_is_a_stop(toy):
    toy.hooks.append(raise_at("03_use", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        toy.do_all()
    assert report_of(toy)["state"] == "stopped" and report_of(toy)["steps"][-1]["reason"] == "KeyboardInterrupt"


def test_in_a_thread_there_are_no_signals_but_the_work_is_done(toy):
    faults = []

    def work():
        try:
            toy.do_all()
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert faults == [] and report_of(toy)["state"] == "done"


def test_a_choice_made_before_the_stop_is_remembered_after_it(toy):
    toy.hooks.append(signal_at("02_grow", 1))
    with pytest.raises(Stopped):
        toy.do_all()
    toy.hooks.clear()
    toy.do_all()
    record = json.loads((toy.root / "toy/a/ledger/02_grow.json").read_text())
    assert [c["name"] for c in record["choices"]] == ["grow.plan"]
    assert "grow.plan" in [c["name"] for c in report_of(toy)["choices"]]


# Failed


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("it broke\nsecond line"),
        DataError("Bad data", fix="mend"),
        MemoryError(),
        OSError("a library's message"),
        AssertionError(),
    ],
)
def test_an_error_in_a_step_is_raised_as_it_is_and_reported(toy, error):
    toy.hooks.append(raise_at("03_use", error))
    with pytest.raises(type(error)) as caught:
        toy.do_all()
    assert caught.value is error
    assert report_of(toy)["state"] == "failed" and steps_of(toy)["03_use"] == "failed"
    assert report_of(toy)["steps"][-1]["reason"].startswith(type(error).__name__)
    toy.hooks.clear()
    assert toy.do_all() == [("03_use", 0)] and report_of(toy)["state"] == "done"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_fault_becomes_our_error(toy, code):
    toy.hooks.append(raise_at("03_use", OSError(code, "no", "/somewhere/file")))
    with pytest.raises(StateError) as caught:
        toy.do_all()
    assert (
        caught.value.errno == code
        and "finish 03_use" in str(caught.value)
        and isinstance(caught.value.__cause__, OSError)
    )


def test_a_disk_that_is_full_for_the_report_too_does_not_hide_the_cause(toy, monkeypatch):
    def full(*args, **how):
        raise StateError("Cannot write: full", fix="make room")

    def hook(name, unit, run):
        if name == "03_use":
            monkeypatch.setattr(files, "write_json", full)
            raise OSError(errno.ENOSPC, "No space left on device", "/x")

    toy.hooks.append(hook)
    with pytest.raises(StateError, match="finish 03_use"):
        toy.do_all()
    assert any("report could not be written" in line for line in toy.said)
    monkeypatch.undo()
    toy.hooks.clear()
    assert toy.do_all() == [("03_use", 0)]


def test_a_disk_that_fails_before_the_step_begins_is_reported_too(toy, monkeypatch):
    toy.do_all()
    monkeypatch.setattr(
        type(toy.root), "rename", lambda *args: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only"))
    )
    with pytest.raises(StateError, match="read-only"):
        toy.do_all(redo=["03"])
    (toy.root / "toy/a/03_use/result.json").unlink()
    with pytest.raises(StateError, match="read-only"):
        toy.do_all()
    assert report_of(toy)["state"] == "failed"
    monkeypatch.undo()
    assert toy.do_all() == [("03_use", 0)]


def test_a_run_that_stops_for_other_settings_says_so_in_the_report(toy):
    toy.do_all()
    with pytest.raises(ChangedError):
        toy.do_all(rate=1.0)
    assert report_of(toy)["state"] == "stopped" and steps_of(toy) == {"01_make": "stop"}
    config = json.loads((toy.root / "toy/a/config.json").read_text())
    assert config["settings"]["grow"]["rate"] == 0.5, "what the results were made with"


def test_a_run_that_was_taken_over_publishes_nothing(toy):
    def hook(name, unit, run):
        run.run_folder.ensure_held = lambda: (_ for _ in ()).throw(StateError("taken over", fix="use another"))

    toy.hooks.append(hook)
    with pytest.raises(StateError, match="taken over"):
        toy.do_all()
    assert not (toy.root / "toy/a/01_make").exists() and not (toy.root / "toy/a/ledger/01_make.json").exists()


@pytest.mark.parametrize(("name", "told"), [("onnx.helper", "colabkit[toy]"), ("colabkit.nothing", "")])
def test_a_library_that_is_not_installed_is_told_with_its_cure_but_a_fault_of_ours_is_not(toy, name, told):
    toy.hooks.append(raise_at("03_use", ModuleNotFoundError(f"No module named {name!r}", name=name)))
    with pytest.raises(StateError if told else ModuleNotFoundError) as caught:
        toy.do_all()
    assert (
        told in getattr(caught.value, "fix", "") and name in str(caught.value) and report_of(toy)["state"] == "failed"
    )


# The lock


OPEN = "import sys; from colabkit.runs.state import open_run; open_run(sys.argv[1], 'toy', 'a').close()"


def test_an_open_run_is_locked_and_a_closed_one_is_not(toy):
    def other():
        return subprocess.run([sys.executable, "-c", OPEN, str(toy.root)], capture_output=True, text=True)

    with toy.open() as run:
        assert other().returncode == 0, "it is only looked at"
        run.hold()
        assert "another process is using it" in other().stderr
        run.close()
        run.close()
        assert other().returncode == 0
    toy.hooks.append(raise_at("01_make", RuntimeError()))
    with pytest.raises(RuntimeError):
        toy.do_all()
    assert other().returncode == 0


def test_a_step_that_resumes_and_another_version_of_it_do_not_mix(toy):
    toy.hooks.append(signal_at("02_grow", 1))
    with pytest.raises(Stopped):
        toy.do_all()
    toy.hooks.clear()
    steps = tuple(replace(s, version=2) for s in toy.STEPS)
    with pytest.raises(ChangedError, match="version 1 of this step, now 2"):
        toy.do_all(steps=steps, start="02")


# Looking through a finished run


def everything_in(folder):
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_ino, path.is_dir() or path.read_bytes())
        for path in [folder, *folder.rglob("*")]
    }


def test_a_finished_run_is_gone_through_without_a_single_write(toy):
    toy.do_all()
    before = everything_in(toy.root)
    with toy.open() as run:
        run.do_all()
        assert run.report.data["metrics"] == {"numbers": 3, "sum": 6.0, "result": 6.0}
        assert [s["outcome"] for s in run.report.data["steps"]] == ["skip"] * 3
    assert everything_in(toy.root) == before


def test_a_run_of_which_only_the_report_was_not_finished_gets_it(toy):
    toy.do_all()
    path = toy.root / "toy/a/report.json"
    path.write_text(path.read_text().replace('"done"', '"running"'))  # killed just before its last word
    with toy.open() as run:
        run.do_all()
    assert report_of(toy)["state"] == "done"


def test_opening_a_run_makes_nothing_before_there_is_work(toy):
    with toy.open() as run:
        assert list(toy.root.iterdir()) == []
        run.do("01")
        assert (toy.root / "toy/a/config.json").exists() and toy.log == [("01_make", 0)]


def test_what_another_process_did_meanwhile_is_not_done_again(toy):
    with toy.open() as run, toy.open() as other:
        other.do_all()
        other.close()
        toy.log.clear()
        toy.said.clear()
        run.do_all()
        assert toy.log == [] and toy.outcomes() == ["skip"] * 3


def test_a_run_that_is_worked_at_is_refused_at_once_and_the_look_leaves_no_trace(toy):
    looking = "import sys; from colabkit.runs.state import open_run\nopen_run(sys.argv[1], 'toy', 'a', lazily=True)"
    with toy.open() as run:
        run.hold()
        before = everything_in(toy.root)
        done = subprocess.run([sys.executable, "-c", looking, str(toy.root)], capture_output=True, text=True)
        assert "another process is using it" in done.stderr and f"process {os.getpid()}" in done.stderr
        assert everything_in(toy.root) == before
    assert subprocess.run([sys.executable, "-c", looking, str(toy.root)]).returncode == 0


# A Drive below the run


@pytest.fixture
def drive(monkeypatch):
    from colabkit.runs import run as run_module
    from colabkit.runs.medium import MountedDrive
    from colabkit.training.checkpoints import checkpoints

    for module in (run_module, checkpoints):
        monkeypatch.setattr(module, "medium_of", lambda path: MountedDrive())


def test_checkpoints_of_a_run_on_drive_go_to_this_machine_first_and_leave_nothing_there(toy, drive):
    places = []

    @step("01_train", writes=("w.json",), resumes=True)
    def train(config, run):
        """Train."""
        points = checkpoints_of(run)
        found = points.load_latest()
        places.append((points.scratch, found and found[0]))
        points.save(len(places), {"n": 1}, wait=True)
        kept = {1: 1, 2: 2, 3: 1}[len(places)]
        assert len(list(points.scratch.iterdir())) == len(list(points.folder.glob("generation-*"))) == kept
        if len(places) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            raise run.stopped()
        files.write_json(run.output / "w.json", 1)

    with pytest.raises(Stopped):
        toy.do_all(steps=(train,))
    assert places[0][0].exists()
    toy.do_all(steps=(train,))
    assert places[1] == (places[0][0], 1) and not places[0][0].exists()
    toy.do_all(steps=(train,), redo=["01"])
    assert places[2][1] is None, "a step made anew does not go on with old checkpoints"


def test_a_report_that_drive_does_not_take_is_written_later(toy, monkeypatch):
    write, failing = files.write_json, []

    def away(path, *args, **how):
        if failing and path.name == "report.json":
            raise files.disk_fault(
                OSError(errno.ENOTCONN, "Transport endpoint is not connected"), path, "write report.json"
            )
        write(path, *args, **how)

    monkeypatch.setattr(files, "write_json", away)

    def hook(name, unit, run):
        failing[:] = [1] if (name, unit) in (("02_grow", 1), ("02_grow", 2)) else []

    toy.hooks.append(hook)
    toy.do_all()
    assert report_of(toy)["state"] == "done" and "report.json" not in str(report_of(toy)["problems"])


def test_a_known_end_of_the_machine_asks_for_one_checkpoint(toy, monkeypatch):
    monkeypatch.setenv("COLABKIT_ENDS_AT", "+3")
    with toy.open() as run:
        assert [run.wants_checkpoint() for _ in range(3)] == [True, False, False]
        assert "may end at" in toy.said[-1] and "COLABKIT_ENDS_AT" in toy.said[-1]
        run.stop_requested = "SIGTERM"
        assert run.wants_checkpoint()
