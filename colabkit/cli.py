"""The command line: colabkit list | check | run | status | apply. Exit codes: 0 done, 1 failed, 2 wrong use, 75 stopped."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

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
from colabkit.core.report import Table


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code and never shows a traceback for an error a user can mend."""
    options = _parser().parse_args(arguments)
    # The default SIGTERM would kill between two steps without a word; steps that save their work replace this.
    before = signal.signal(signal.SIGTERM, _raise_stopped)
    try:
        options.command(options)
        sys.stdout.flush()
        return EXIT_DONE
    except ColabkitError as error:
        print(f"\n{error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nInterrupted; what is done is kept. Run the same command again, without --redo: it continues.",
              file=sys.stderr, flush=True)
        return EXIT_STOPPED
    except BrokenPipeError:  # colabkit list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        print(f"\n{files.disk_fault(error, error.filename or '.', 'go on')}", file=sys.stderr, flush=True)
        return EXIT_FAILED
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="colabkit", description="Speech notebooks that continue where they stood.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the pipelines, their presets and steps")
    command.add_argument("--settings", action="store_true", help="every setting with type, default and meaning")
    command.set_defaults(command=_list)

    command = commands.add_parser("check", help="what this machine is and can do")
    command.add_argument("--state", default="", help="state root to look at")
    command.set_defaults(command=_check)

    command = commands.add_parser("run", help="carry out a pipeline; continues what was begun")
    _add_common(command)
    command.add_argument("--preset", default="demo", help="demo, quick or full (default: demo)")
    command.add_argument("--set", action="append", default=[], metavar="a.b=v", help="change a setting; may be repeated")
    command.add_argument("--from", dest="start", metavar="ID", help="first step")
    command.add_argument("--to", dest="stop", metavar="ID", help="last step")
    command.add_argument("--redo", action="append", default=[], metavar="ID", help="make a step anew; may be repeated")
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
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", help="pipeline, as in colabkit list")
    command.add_argument("--run", default="", help="name of the run (default: the preset's name)")
    command.add_argument("--state", default="", metavar="DIR",
                         help="state root (default: COLABKIT_STATE, or what fits the machine)")


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
    print(machine_table(options.state))


def _run(options: argparse.Namespace) -> None:
    from colabkit.launch import configure, start
    config = configure(options.name, options.preset, options.set)
    with start(options.name, config, preset=options.preset, run=options.run, state=options.state) as run:
        report = run.do_all(start=options.start, stop=options.stop, redo=options.redo)
        if report.data["metrics"]:
            print(run.metrics_table())
        print(f"report: {run.path / 'report.json'}")


def _status(options: argparse.Namespace) -> None:
    folder = _finished_run(options)
    report = files.read_json(folder / "report.json")
    if options.json:
        print(json.dumps(report, indent=1))
        return
    print(f"{report['pipeline']} run {report['run']} ({report['preset']}): {report['state']}, in {folder}")
    print(Table(["step", "outcome", "why"], [[s["id"], s["outcome"], s["reason"]] for s in report["steps"]]))
    if report["metrics"]:
        print(Table(["metric", "value"], [[k, v] for k, v in report["metrics"].items()]))


def _apply(options: argparse.Namespace) -> None:
    from colabkit.core.state import open_run, state_root
    from colabkit.pipelines import find
    pipeline = find(options.name)
    paths = [Path(name) for name in options.files]
    missing = [str(p) for p in paths if not p.is_file()]
    if missing:
        raise UsageError("Cannot apply to these files", got=missing, expected="files that exist", fix="correct the paths")
    stems = [p.stem for p in paths]
    doubled = sorted({s for s in stems if stems.count(s) > 1})
    if doubled:
        raise UsageError("Two input files would write the same output", got=doubled, expected="different file names",
                         fix="apply them in separate calls with different --output folders")
    output = Path(options.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.disk_fault(error, output, "make the output folder") from error
    root = state_root(options.state or None, read_only=True)
    folder = open_run(root, pipeline.name, options.run or "demo", read_only=True)
    try:
        written = pipeline.apply(folder.path, paths, output)
    except ModuleNotFoundError as error:
        raise missing_extra(error, pipeline.name) from error.__cause__
    print(*written, sep="\n")


def _finished_run(options: argparse.Namespace) -> Path:
    from colabkit.core.state import open_run, state_root
    from colabkit.pipelines import find
    folder = open_run(state_root(options.state or None, read_only=True), find(options.name).name, options.run or "demo",
                      read_only=True).path
    if not (folder / "report.json").exists():
        raise StateError("This run has no report", where=folder, fix=f"colabkit run {options.name} --run {folder.name}")
    return folder


def _raise_stopped(number, frame) -> None:
    raise Stopped("Stopped by SIGTERM; what is done is kept",
                  fix="run the same command again, without --redo: it continues")
