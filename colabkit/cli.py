"""The command line: colabkit list | check | plan | run | status | apply | notebook | store | trust.

Exit codes: 0 done, 1 failed, 2 wrong use, 75 stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import sys
from pathlib import Path

from colabkit import __version__
from colabkit.core import files
from colabkit.core.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    ColabkitError,
    StateError,
    Stopped,
    UsageError,
    missing_extra,
)
from colabkit.core.table import Table
from colabkit.core.teller import signals_to
from colabkit.headless.command import add_command as add_notebook_command
from colabkit.io.places.http.trust import add_command as add_trust_command
from colabkit.io.transfer.command import add_command as add_store_command


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code and never shows a traceback for an error a user can mend."""
    options = _parser().parse_args(arguments)
    try:
        # The default SIGTERM would kill between two steps without a word; steps that save their work replace this.
        with signals_to(_raise_stopped, signal.SIGTERM):
            code = options.command(options)
            sys.stdout.flush()
        return code or EXIT_DONE
    except ColabkitError as error:
        print(f"\n{error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "\nInterrupted; what is done is kept. Run the same command again, without --redo: it continues.",
            file=sys.stderr,
            flush=True,
        )
        return EXIT_STOPPED
    except BrokenPipeError:  # colabkit list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        print(f"\n{files.disk_fault(error, error.filename or '.', 'go on')}", file=sys.stderr, flush=True)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="colabkit", description="Speech notebooks that continue where they stood.")
    parser.add_argument("--version", action="version", version=f"colabkit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the pipelines, their presets and steps")
    command.add_argument("--settings", action="store_true", help="every setting with type, default and meaning")
    command.set_defaults(command=_list)

    command = commands.add_parser("check", help="what this machine is and can do")
    command.add_argument(
        "--state", default="", metavar="DIR", help="state root to look at (default: where a run would keep its state)"
    )
    command.set_defaults(command=_check)

    command = commands.add_parser(
        "plan", help="batch size, precision and memory of training on GPUs you name; needs none"
    )
    command.add_argument("name", metavar="NAME", help="pipeline, as in colabkit list")
    command.add_argument("--gpu", default="", metavar="A,B", help="GPUs with commas between (default: T4 to H200)")
    command.add_argument("--preset", default="full", help="demo, quick or full (default: full)")
    command.add_argument(
        "--set", action="append", default=[], metavar="a.b=v", help="change a setting; may be repeated"
    )
    command.add_argument("--json", action="store_true", help="the plan as JSON")
    command.set_defaults(command=_plan)

    command = commands.add_parser("run", help="carry out a pipeline; continues what was begun")
    _add_common(command)
    command.add_argument("--preset", default="demo", help="demo, quick or full (default: demo)")
    command.add_argument(
        "--set", action="append", default=[], metavar="a.b=v", help="change a setting; may be repeated"
    )
    command.add_argument("--from", dest="start", metavar="ID", help="first step")
    command.add_argument("--to", dest="stop", metavar="ID", help="last step")
    command.add_argument("--redo", action="append", default=[], metavar="ID", help="make a step anew; may be repeated")
    command.add_argument("--processes", type=int, metavar="N", help="train in so many processes (default: one a GPU)")
    command.add_argument(
        "--print-launch", action="store_true", help="print how to start this on several machines, start nothing"
    )
    command.add_argument("--nodes", type=int, default=1, metavar="N", help="machines, for --print-launch (default: 1)")
    command.add_argument(
        "--endpoint",
        default="",
        metavar="HOST:PORT",
        help="where the machines meet, for --print-launch (default: this machine, port 29400)",
    )
    command.set_defaults(command=_run)

    command = commands.add_parser("status", help="what of a run is done")
    _add_common(command)
    command.add_argument("--json", action="store_true", help="the report as JSON")
    command.set_defaults(command=_status)

    command = commands.add_parser("apply", help="use what a run made on files of yours")
    _add_common(command)
    command.add_argument("files", nargs="+", metavar="FILE", help="input files")
    command.add_argument("--output", required=True, metavar="DIR", help="folder to write to")
    command.set_defaults(command=_apply)

    add_notebook_command(commands)
    add_store_command(commands)
    add_trust_command(commands)
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", help="pipeline, as in colabkit list")
    command.add_argument("--run", default="", help="name of the run (default: the preset's name)")
    command.add_argument(
        "--state", default="", metavar="DIR", help="state root (default: COLABKIT_STATE, or what fits the machine)"
    )


def _list(options: argparse.Namespace) -> None:
    from colabkit.core.config import describe
    from colabkit.pipelines import discover

    for pipeline in discover():
        print(f"{pipeline.name}: {pipeline.title}")
        print(f"  notebook notebooks/{pipeline.notebook}.ipynb; presets {', '.join(pipeline.presets)}")
        if options.settings:
            print(Table(["setting", "type", "default", "meaning"], [list(r) for r in describe(pipeline.config_type)]))
        else:
            for step in pipeline.steps:
                print(f"  {step.id:14} {step.title}")


def _check(options: argparse.Namespace) -> None:
    from colabkit.launch import machine_table

    table = machine_table(options.state)
    print(table)
    for what, value, means in table.rows:
        if what == "state disk" and value.startswith("cannot be"):  # every run would fail: scripts want to know
            raise StateError(
                f"Runs cannot keep their state here: the folder {value}",
                got=means,
                where=options.state,
                fix="name another folder: --state /another/folder (or set COLABKIT_STATE)",
            )


def _plan(options: argparse.Namespace) -> None:
    from colabkit.plan import GPUS, notes, plan, table

    gpus = [name.strip() for name in options.gpu.split(",") if name.strip()] if options.gpu else GPUS
    try:
        found = plan(
            options.name, gpus, preset=options.preset, settings=options.set, say=_unsaid if options.json else print
        )
    except ModuleNotFoundError as error:
        raise missing_extra(error, options.name) from error.__cause__
    if options.json:
        print(json.dumps(files.plain(found), indent=1))
        return
    print(table(found), *notes(found), sep="\n")


def _run(options: argparse.Namespace) -> int:
    from colabkit.launch import configure, start
    from colabkit.pipelines import find
    from colabkit.runs.steps import select
    from colabkit.training.processes import ranks
    from colabkit.training.processes.team import dismiss_fellows

    settings = options.set + [f"{name}={options.processes}" for name in _process_settings(options)]
    if options.print_launch:
        return _print_launch(options, configure(options.name, options.preset, settings, say=_unsaid))
    if ranks.launched() and not ranks.join().is_first:
        from colabkit.worker import follow

        return follow(ranks.join())
    config = configure(options.name, options.preset, settings)
    wanted = {step.id for step in select(find(options.name).steps, options.start, options.stop, options.redo)}
    with start(options.name, config, preset=options.preset, run=options.run, state=options.state, wanted=wanted) as run:
        report = run.do_all(start=options.start, stop=options.stop, redo=options.redo)
        if report.data["metrics"]:
            print(run.metrics_table())
        print(f"report: {run.path / 'report.json'}")
    if ranks.launched():
        dismiss_fellows()
    return EXIT_DONE


def _process_settings(options: argparse.Namespace) -> list[str]:
    """Return the settings that --processes stands for."""
    from colabkit.pipelines import find

    if options.processes is None:
        return []
    return list(dict.fromkeys(step.processes for step in find(options.name).steps if step.processes))


def _unsaid(text: str) -> None:
    """What is printed is to be pasted: nothing else."""


def _print_launch(options: argparse.Namespace, config: object) -> int:
    """Print the torchrun command that starts the same run in several processes on each of several machines."""
    from colabkit.core.accelerators import count_gpus
    from colabkit.pipelines import find
    from colabkit.training.processes.team import asked_for

    state = options.state or os.environ.get("COLABKIT_STATE", "")
    if options.nodes < 1:
        raise UsageError("Cannot start on so many machines", got=options.nodes, expected="1 or more", fix="--nodes 2")
    if options.nodes > 1 and not state:
        raise UsageError(
            "Several machines need one state folder",
            got="the default, which each has for itself",
            expected="a folder that all of them share",
            fix="--state /shared/folder",
        )
    wanted = max((asked_for(step, config) for step in find(options.name).steps if step.processes), default=1)
    here = ["run", options.name, *(["--state", os.path.abspath(os.path.expanduser(state))] if state else [])]
    for name, value in (
        ("--preset", options.preset),
        ("--run", options.run),
        ("--from", options.start),
        ("--to", options.stop),
    ):
        here += [name, value] if value else []
    here += [
        word
        for name, values in (("--set", options.set), ("--redo", options.redo))
        for value in values
        for word in (name, value)
    ]
    # Processes that died start again at the last checkpoint; a step made anew would be made anew each time. With a
    # store that torchrun shares with them they would meet at the addresses of the dead (pytorch 2.5 to 2.13 at least).
    command = [
        "env",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1",
        "torchrun",
        "--max-restarts",
        "0" if options.redo else "3",
        "--nproc-per-node",
        str(wanted or count_gpus(os.environ) or "gpu"),
    ]
    if options.nodes == 1:
        command += ["--standalone"]
    else:
        endpoint, name = (
            options.endpoint or f"{socket.gethostname()}:29400",
            f"{options.name}-{options.run or options.preset}",
        )
        command += [
            "--nnodes",
            str(options.nodes),
            "--rdzv-backend",
            "c10d",
            "--rdzv-endpoint",
            endpoint,
            "--rdzv-id",
            name,
        ]
        print(f"# Run this on each of the {options.nodes} machines; {state} must be the same folder on all of them.")
    print(shlex.join([*command, "-m", "colabkit", *here]))
    return EXIT_DONE


def _status(options: argparse.Namespace) -> None:
    folder = _run_folder(options)
    if not (folder / "report.json").exists():
        raise StateError("This run has no report", where=folder, fix=f"colabkit run {options.name} --run {folder.name}")
    report = files.read_json(folder / "report.json")
    if options.json:
        print(json.dumps(report, indent=1))
        return
    print(f"{report['pipeline']} run {report['run']} ({report['preset']}): {report['state']}, in {folder}")
    print(Table(["step", "outcome", "why"], [[s["id"], s["outcome"], s["reason"]] for s in report["steps"]]))
    if report["metrics"]:
        print(Table(["metric", "value"], [[k, v] for k, v in report["metrics"].items()]))


def _apply(options: argparse.Namespace) -> None:
    from colabkit.pipelines import find

    pipeline = find(options.name)
    paths = [Path(name) for name in options.files]
    missing = [str(p) for p in paths if not p.is_file()]
    if missing:
        raise UsageError(
            "Cannot apply to these files", got=missing, expected="files that exist", fix="correct the paths"
        )
    stems = [p.stem for p in paths]
    doubled = sorted({s for s in stems if stems.count(s) > 1})
    if doubled:
        raise UsageError(
            "Two input files would write the same output",
            got=doubled,
            expected="different file names",
            fix="apply them in separate calls with different --output folders",
        )
    output = Path(options.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.disk_fault(error, output, "make the output folder") from error
    folder = _run_folder(options)
    try:
        written = pipeline.apply(folder, paths, output)
    except ModuleNotFoundError as error:
        raise missing_extra(error, pipeline.name) from error.__cause__
    print(*written, sep="\n")


def _run_folder(options: argparse.Namespace) -> Path:
    """Return the folder of a run that is there; nothing is made or locked."""
    from colabkit.pipelines import find
    from colabkit.runs.state import open_run, state_root

    root = state_root(options.state or None, read_only=True)
    return open_run(root, find(options.name).name, options.run or "demo", read_only=True).path


def _raise_stopped(number: int, frame: object) -> None:
    raise Stopped(
        "Stopped by SIGTERM; what is done is kept", fix="run the same command again, without --redo: it continues"
    )
