"""Fresh places to install into: this checkout's wheel and git repository, environments, a kernel to run the cell in."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import venv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.house.anatomy import tagged

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "01_streaming_diarization.ipynb"
SECONDS = 240


def pip(*arguments: str, python: Path | str = sys.executable, **more) -> subprocess.CompletedProcess:
    """Run this environment's pip, for the environment of `python`."""
    return subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        **more,
    )


def index_answers() -> bool:
    """Tell whether packages can be had: an index of the network or of this machine."""
    return pip("index", "versions", "--retries", "0", "--timeout", "10", "obstore").returncode == 0


def copy_of_checkout(folder: Path) -> Path:
    """Copy what a wheel is built from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("colabkit", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def wheel_of(checkout: Path, folder: Path) -> Path:
    """Build the wheel, without network."""
    done = pip(
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--ignore-requires-python",
        "--wheel-dir",
        str(folder),
        str(checkout),
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("colabkit-*.whl"))


@contextmanager
def repository_of(checkout: Path) -> Iterator[str]:
    """Serve a git repository of it over HTTP on loopback, with a branch main; yields what an install line says."""
    git = ["git", "-C", str(checkout), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (
        ["init", "--quiet", "--initial-branch", "main"],
        ["add", "."],
        ["commit", "--quiet", "-m", "x"],
        ["update-server-info"],
    ):
        subprocess.run([*git, *command], check=True, capture_output=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(checkout))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"git+http://127.0.0.1:{server.server_port}/.git@main"
        server.shutdown()


def environment(folder: Path, without: Iterable[str] = ()) -> Path:
    """Make a virtual environment that has this one's packages preinstalled, as Colab has its own; returns its python.

    They are reached through a .pth file, so pip sees them and cannot remove them. colabkit and `without` are left out.
    """
    venv.create(folder, with_pip=False)
    preinstalled = folder / "preinstalled"
    preinstalled.mkdir()
    left_out = {"colabkit", *without}
    here = [Path(place) for place in sys.path if Path(place, "").is_dir() and any(Path(place).glob("*.dist-info"))]
    for entry in (entry for place in here for entry in place.iterdir()):
        name, target = re.split(r"-\d", entry.name)[0], preinstalled / entry.name
        known = (
            any(preinstalled.glob(f"{name}-[0-9]*.dist-info")) if entry.suffix == ".dist-info" else target.is_symlink()
        )
        if name not in left_out and not known and entry.suffix != ".pth" and not entry.name.startswith("__editable__"):
            target.symlink_to(entry)
    (site_packages(folder) / "preinstalled.pth").write_text(f"{preinstalled}\n")
    return folder / "bin" / "python"


def site_packages(folder: Path) -> Path:
    """Return an environment's own folder of packages."""
    return next(folder.glob("lib/python3*/site-packages"))


def own_packages(folder: Path) -> set[str]:
    """Return the names of what was installed into an environment itself."""
    return {re.split(r"-\d", path.name)[0] for path in site_packages(folder).glob("*.dist-info")}


def pretend_installed(folder: Path, versions: Iterable[tuple[str, str]]) -> None:
    """Let pip see the named versions in an environment: they have no content, and ask for nothing."""
    for name, version in versions:
        about = site_packages(folder) / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (about / "INSTALLER").write_text("pip\n")
        (about / "RECORD").write_text("")


def install_cell(source: str, notebook: Path = NOTEBOOK) -> str:
    """Return a notebook's install cell as it is, but for where it installs from."""
    text = tagged(json.loads(notebook.read_text(encoding="utf-8")), "install")
    replaced = re.sub(r"(?<=\] @ )[^\"]+", source, text)
    assert replaced.count(source) == 1
    return replaced


class Kernel:
    """A real kernel of an environment, used as headless runners use it: no input."""

    def __init__(self, python: Path, cwd: Path, **env: str):
        from jupyter_client import KernelManager

        self.manager = KernelManager()
        self.manager._kernel_spec = None
        self.manager.kernel_spec.argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        clean = {name: text for name, text in os.environ.items() if not name.startswith(("COLABKIT_", "PYTEST_"))}
        self.manager.start_kernel(cwd=str(cwd), env=clean | env)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code: str) -> tuple[str, str]:
        """Run a cell; returns what it printed and its error, "" if there was none."""
        printed: list[str] = []
        reply = self.client.execute_interactive(
            code,
            allow_stdin=False,
            timeout=SECONDS,
            output_hook=lambda message: printed.append(message["content"].get("text", "")),
        )["content"]
        error = f"{reply['ename']}: {reply['evalue']}" if reply["status"] == "error" else ""
        return "".join(printed), error
