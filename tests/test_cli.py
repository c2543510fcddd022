"""Tests of colabkit.cli: every command, every exit code, and no traceback for what a user can mend."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from colabkit import __version__, cli, pipelines
from colabkit.core.errors import DataError

GROWN = [("02_grow", unit) for unit in range(4)]

# A process of its own that knows the toy pipeline; {before} is run first.
SCRIPT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("toy_conftest", {conftest!r})
toy = importlib.util.module_from_spec(spec); sys.modules["toy_conftest"] = toy; spec.loader.exec_module(toy)
from colabkit import cli, pipelines
pipelines.discover = lambda: [toy.ToyPipeline()]
{before}
sys.exit(cli.main())
"""


@pytest.fixture
def command(toy, monkeypatch, capsys, tmp_path):
    """Run a command in this process; returns exit code, stdout, stderr."""
    monkeypatch.setattr(pipelines, "discover", lambda: [toy.pipeline])
    monkeypatch.setenv("COLABKIT_STATE", str(tmp_path))

    def run(*arguments):
        toy.log.clear()
        capsys.readouterr()
        try:
            code = cli.main(list(arguments))
        except SystemExit as end:  # argparse's own
            code = end.code
        out = capsys.readouterr()
        assert "Traceback" not in out.err + out.out
        return code, out.out, out.err

    return run


def process(arguments, state, before=""):
    script = SCRIPT.format(conftest=str(Path(__file__).with_name("conftest.py")), before=before)
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"COLABKIT_STATE": str(state)},
    )


# run


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"colabkit {__version__}\n"


def test_run_twice(command, toy, tmp_path):
    code, out, err = command("run", "toy")
    assert code == 0 and err == "" and toy.log == [("01_make", 0), *GROWN, ("03_use", 0)]
    assert (
        "01_make  run: not done yet" in out
        and re.search(r"result +6", out)
        and str(tmp_path / "toy/demo/report.json") in out
    )
    code, out, _ = command("run", "09")
    assert code == 0 and toy.log == [] and out.count("skip: done") == 3


@pytest.mark.parametrize("wanted", ["02", "2", "grow", "02_grow"])
def test_redo_and_from_take_ids_numbers_and_names(command, toy, wanted):
    assert command("run", "toy")[0] == 0
    assert command("run", "toy", "--redo", wanted)[0] == 0 and toy.log == GROWN
    assert command("run", "toy", "--redo", wanted, "--redo", "03", "--from", wanted)[0] == 0
    assert toy.log == [*GROWN, ("03_use", 0)]


def test_from_and_to(command, toy):
    assert command("run", "toy", "--to", "make")[0] == 0 and toy.log == [("01_make", 0)]
    assert command("run", "toy", "--from", "2", "--to", "02")[0] == 0 and toy.log == GROWN
    assert command("run", "toy", "--from", "use")[0] == 0 and toy.log == [("03_use", 0)]


def test_settings_preset_and_run_name(command, toy, tmp_path):
    code, out, _ = command(
        "run", "toy", "--preset", "big", "--set", "grow.units=2", "--set", "grow.rate=1e0", "--run", "mine"
    )
    assert code == 0 and len(toy.log) == 4 and "grow.units = 2  (preset: 4)" in out
    assert json.loads((tmp_path / "toy/mine/02_grow/grown.json").read_text()) == 72.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "tyo"], "colabkit run toy"),
        (["run", "toy", "--preset", "dmo"], "demo or big"),
        (["run", "toy", "--set", "make.sise=3"], "did you mean size?"),
        (["run", "toy", "--set", "size=3"], "did you mean make.size?"),
        (["run", "toy", "--set", "make.size=x"], "a whole number"),
        (["run", "toy", "--set", "make.size"], "NAME=VALUE"),
        (["run", "toy", "--from", "9"], "one of 01_make"),
        (["run", "toy", "--to", "grwo"], "did you mean 02_grow?"),
        (["run", "toy", "--from", "03", "--to", "01"], "--from before --to"),
        (["run", "toy", "--redo", "x"], "No such step"),
        (["run", "toy", "--from", "02", "--redo", "01"], "leave out --from"),
        (["run", "toy", "--from", "02"], "run 01_make first"),
        (["run", "toy", "--run", "a/b"], "--run a-b"),
        (["status", "tyo"], "No such pipeline"),
        (["apply", "tyo", __file__, "--output", "o"], "No such pipeline"),
        ([], "COMMAND"),
        (["rnu"], "invalid choice"),
        (["run"], "NAME"),
        (["run", "toy", "--colour"], "unrecognized"),
        (["apply", "toy"], "--output"),
        (["apply", "toy", "--output", "o"], "FILE"),
    ],
)
def test_wrong_use_is_2_and_starts_nothing(command, toy, arguments, words):
    code, out, err = command(*arguments)
    assert code == 2 and words in err and toy.log == []


def test_several_faults_are_told_at_once(command):
    code, _, err = command("run", "toy", "--set", "make.size=x", "--set", "grow.rat=1", "--set", "nothing.a=1")
    assert code == 2 and all(words in err for words in ("make.size", "did you mean rate?", "nothing: no such setting"))


def test_other_settings_are_1_and_the_mend_works(command, toy):
    command("run", "toy")
    code, _, err = command("run", "toy", "--set", "make.size=5")
    assert code == 1 and "make.size=3, now 5" in err and "--redo 01_make" in err and toy.log == []
    assert command("run", "toy", "--set", "make.size=5", "--redo", "01_make")[0] == 0 and len(toy.log) == 6


def test_a_failed_step_is_1(command, toy):
    def hook(name, unit, run):
        raise DataError("Cannot read a.wav", fix="remove it")

    toy.hooks.append(hook)
    code, _, err = command("run", "toy")
    assert code == 1 and err == "\nCannot read a.wav.\n  fix:   remove it\n"
    assert json.loads(command("status", "toy", "--json")[1])["state"] == "failed"


def test_a_state_folder_that_cannot_be_is_1(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = command("run", "toy", "--state", str(tmp_path / "file" / "below"))
    assert code == 1 and "fix:" in err


def test_interrupt_by_hand_is_75_and_goes_on(command, toy):
    def hook(name, unit, run):
        if (name, unit) == ("02_grow", 2):
            os.kill(os.getpid(), signal.SIGINT)

    toy.hooks.append(hook)
    code, _, err = command("run", "toy")
    assert code == 75 and "what is done is kept" in err
    toy.hooks.clear()
    assert command("run", "toy")[0] == 0 and toy.log == [*GROWN[2:], ("03_use", 0)]


@pytest.mark.parametrize("at", [("01_make", 0), ("02_grow", 1), ("02_grow", 3), ("03_use", 0)])
def test_sigterm_is_75_and_goes_on(command, toy, at):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def hook(name, unit, run):
        if (name, unit) == at:
            os.kill(os.getpid(), signal.SIGTERM)

    toy.hooks.append(hook)
    code, _, err = command("run", "toy")
    assert code == 75 and "SIGTERM" in err and "again" in err and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    first = list(toy.log)
    toy.hooks.clear()
    assert command("run", "toy")[0] == 0
    assert len({*first, *toy.log}) == 6 and len(first) + len(toy.log) <= 7


def test_sigterm_to_a_real_process_between_and_in_steps(tmp_path, toy, command):
    # Slow steps: the signal comes while the second one works.
    before = "import time\ntoy.HOOKS.append(lambda name, unit, run: (print('at', name, flush=True), time.sleep(0.3)))"
    running = process(["run", "toy"], tmp_path, before)
    for line in running.stdout:
        if line.startswith("at 02_grow"):
            running.send_signal(signal.SIGTERM)
            break
    _, err = running.communicate(timeout=30)
    assert running.returncode == 75 and "Stopped by SIGTERM" in err and "Traceback" not in err
    assert command("run", "toy")[0] == 0 and toy.log == [*GROWN[1:], ("03_use", 0)]


def test_a_second_process_in_the_same_run_is_1(tmp_path, toy):
    with toy.open(run="demo") as run:
        run.hold()
        other = process(["run", "toy"], tmp_path)
        _, err = other.communicate(timeout=30)
    assert other.returncode == 1 and "another process is using it" in err and "Traceback" not in err


def test_a_pipe_that_is_closed_early_is_no_traceback(tmp_path):
    listing = process(["list", "--settings"], tmp_path, "toy.ToyPipeline.title = 'x' * 1_000_000")
    listing.stdout.read(10)
    listing.stdout.close()
    err = listing.stderr.read()
    assert listing.wait(30) == 1 and err == ""


# list, check, status


def test_list(command):
    code, out, _ = command("list")
    assert code == 0 and "toy: A toy" in out and "presets demo, big" in out and "Grow them; resumes" in out
    code, out, _ = command("list", "--settings")
    assert code == 0 and "make.size" in out and "how many numbers" in out and "a whole number" in out


def test_list_of_the_real_pipelines_needs_no_heavy_library():
    code = (
        "import sys; from colabkit import cli; cli.main(['list', '--settings']); "
        "sys.exit(','.join({'torch', 'scipy', 'transformers', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and "train.steps" in done.stdout


def test_python_m_colabkit():
    done = subprocess.run([sys.executable, "-m", "colabkit", "list"], capture_output=True, text=True)
    assert done.returncode == 0 and "diarization" in done.stdout
    assert subprocess.run([sys.executable, "-m", "colabkit", "lsit"], capture_output=True).returncode == 2


def test_check_makes_nothing(command, tmp_path):
    code, out, _ = command("check", "--state", str(tmp_path / "none"))
    assert code == 0 and "what it means" in out and not (tmp_path / "none").exists()


def test_status(command, tmp_path):
    code, _, err = command("status", "toy")
    assert code == 1 and "colabkit run toy" in err
    command("run", "toy")
    code, out, _ = command("status", "toy")
    assert code == 0 and "toy run demo (demo): done" in out and "03_use" in out and "result" in out
    code, out, err = command("status", "toy", "--json")
    report = json.loads(out)
    assert code == 0 and err == "" and report["state"] == "done" and report["metrics"]["sum"] == 6.0
    code, _, err = command("status", "toy", "--run", "dmeo")
    assert code == 1 and "did you mean --run demo?" in err
    (tmp_path / "toy/demo/report.json").unlink()
    code, _, err = command("status", "toy")
    assert code == 1 and "no report" in err and "colabkit run toy --run demo" in err
    (tmp_path / "toy/demo/report.json").write_text("{")
    assert command("status", "toy", "--json")[0] == 1


def test_status_while_the_run_is_open_elsewhere(command, toy):
    command("run", "toy")
    with toy.open(run="demo"):
        assert command("status", "toy")[0] == 0


# apply


@pytest.fixture
def inputs(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.wav", "a.mp3"):
        (tmp_path / "in" / name).write_text(name)
    return tmp_path / "in"


def test_apply(command, inputs, tmp_path):
    command("run", "toy")
    code, out, _ = command(
        "apply", "toy", str(inputs / "a.wav"), str(inputs / "b.wav"), "--output", str(tmp_path / "out/deep")
    )
    assert code == 0 and out.splitlines() == [str(tmp_path / "out/deep/a.out"), str(tmp_path / "out/deep/b.out")]
    assert (tmp_path / "out/deep/b.out").read_text().endswith("b.wav")


def test_apply_without_its_libraries_tells_the_cure(command, inputs, tmp_path, toy, monkeypatch):
    command("run", "toy")
    monkeypatch.setattr(type(toy.pipeline), "apply", lambda *args: __import__("a_library_nobody_has"))
    code, _, err = command("apply", "toy", str(inputs / "a.wav"), "--output", str(tmp_path / "out"))
    assert code == 1 and "a_library_nobody_has is not installed" in err and "colabkit[toy]" in err


def test_apply_checks_before_it_works(command, inputs, tmp_path):
    output = ["--output", str(tmp_path / "out")]
    code, _, err = command("apply", "toy", str(inputs / "a.wav"), *output)
    assert code == 1 and "start one: colabkit run toy" in err
    command("run", "toy")
    code, _, err = command("apply", "toy", str(inputs / "a.wav"), str(inputs / "zz.wav"), str(inputs), *output)
    assert code == 2 and "zz.wav" in err and f"'{inputs}'" in err and "a.wav" not in err
    code, _, err = command("apply", "toy", str(inputs / "a.wav"), str(inputs / "a.mp3"), *output)
    assert code == 2 and "same output" in err and "'a'" in err
    code, _, err = command("apply", "toy", str(inputs / "a.wav"), "--output", str(inputs / "b.wav"))
    assert code == 1 and "b.wav" in err and (inputs / "b.wav").read_text() == "b.wav"
