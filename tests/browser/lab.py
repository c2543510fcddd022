"""A real JupyterLab server on loopback, and a notebook page of it in headless Chromium that tests use like a person."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SETTINGS = {
    # Every cell stays in the page: cells scrolled out of sight would lose their outputs' elements.
    "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "docmanager-extension/plugin": {"autosave": False},
}
_TALLEST = 16_000  # pixels that Chromium draws in one picture
SECONDS = 60.0  # to wait for what a page does by itself, on a loaded machine


def chromium() -> str | None:
    """Return the path of Chromium or Chrome, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((path for path in map(shutil.which, names) if path), None)


class Lab:
    """A JupyterLab server with folders of its own; a context manager."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.root, self._places = folder / "notebooks", folder / "places"
        self.token, self.port = secrets.token_hex(16), _free_port()
        self._log = folder / "lab.log"
        self._environment = environment | {
            name: str(self._places / name.lower())
            for name in (
                "HOME",
                "JUPYTER_CONFIG_DIR",
                "JUPYTER_DATA_DIR",
                "JUPYTER_RUNTIME_DIR",
                "IPYTHONDIR",
                "JUPYTERLAB_SETTINGS_DIR",
                "JUPYTERLAB_WORKSPACES_DIR",
                "MPLCONFIGDIR",
            )
        }
        self._environment |= {"JUPYTER_PREFER_ENV_PATH": "0", "JUPYTER_PATH": str(self._places / "path")}

    def __enter__(self) -> Lab:
        self.root.mkdir(parents=True)
        Path(self._environment["HOME"]).mkdir(parents=True)
        for name, values in SETTINGS.items():
            extension, _, plugin = name.partition("/")
            path = Path(
                self._environment["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", extension, f"{plugin}.jupyterlab-settings"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        kernel = self._places / "path" / "kernels" / "python3" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        kernel.write_text(
            json.dumps(
                {
                    "display_name": "Python 3",
                    "language": "python",
                    "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                }
            )
        )
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "jupyterlab",
                    "--no-browser",
                    "--allow-root",
                    "--ServerApp.ip=127.0.0.1",
                    f"--ServerApp.port={self.port}",
                    "--ServerApp.port_retries=0",
                    f"--ServerApp.root_dir={self.root}",
                    f"--IdentityProvider.token={self.token}",
                    "--LabApp.news_url=",
                    "--ServerApp.terminals_enabled=False",
                    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                ],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and its kernels: they are of its process group, or ended by it."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            pass  # killed below
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all of them ended in good order
        self._process.wait(20)

    def address(self, notebook: str) -> str:
        """Return the page of one notebook, without the file browser beside it."""
        return f"http://127.0.0.1:{self.port}/doc/tree/{notebook}?token={self.token}"

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def shut_down_kernels(self) -> None:
        for session in json.loads(self._ask("GET", "/api/sessions")):
            self._ask("DELETE", f"/api/sessions/{session['id']}")

    def _ask(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, headers={"Authorization": f"token {self.token}"})
            return connection.getresponse().read()
        finally:
            connection.close()

    def _wait_until_it_answers(self) -> None:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if b"started" in self._ask("GET", "/api/status"):
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start:\n{self.log()[-3000:]}")


class NotebookPage:
    """One notebook in the browser. What lies outside this machine is not fetched."""

    def __init__(self, page, lab: Lab, name: str, pictures: Path):
        self.page, self.lab, self.name, self.pictures = page, lab, name, pictures
        self.faults: list[str] = []  # errors of the page's own code
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        own = (f"http://127.0.0.1:{lab.port}/", "data:", "blob:")
        page.route(lambda address: not address.startswith(own), _answer_for_others)
        page.goto(lab.address(name))
        self.wait_until_shown()

    @property
    def file(self) -> Path:
        return self.lab.root / self.name

    def wait_until_shown(self) -> None:
        """Wait until the notebook is drawn and its kernel answers."""
        self.page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.wait_for(timeout=1000 * SECONDS)
        self.page.locator(".jp-Spinner").first.wait_for(state="hidden", timeout=1000 * SECONDS)
        self.wait_for_kernel("Idle")

    def wait_for_kernel(self, state: str, seconds: float = SECONDS) -> None:
        """Wait until the status bar says that the kernel is "Idle" or "Busy"."""
        self.page.locator("#jp-main-statusbar").get_by_text(f"| {state}").wait_for(timeout=1000 * seconds)

    def choose(self, menu: str, *items: str) -> None:
        """Choose an item of the menu bar, or one of a menu below it."""
        self.page.locator(".lm-MenuBar-item", has_text=re.compile(f"^{menu}$")).click()
        for item in items:
            label = self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{re.escape(item)}$"))
            label.last.click()  # the last one: of the menu that opened last

    def run_all(self) -> None:
        before = self.prompts()
        self.choose("Run", "Run All Cells")
        self.wait(lambda: self.prompts() != before, "start of the first cell", SECONDS)

    def errors(self) -> list[str]:
        """Return the errors that are shown; JupyterLab shows them as it does what was written to stderr."""
        return self.page.locator(
            ", ".join(
                f".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.{kind}']"
                for kind in ("error", "stderr")
            )
        ).all_inner_texts()

    def wait(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for a condition; a cell that fails meanwhile ends the wait, too."""
        until, known = time.monotonic() + seconds, self.errors()
        while not condition():
            failed = [error for error in self.errors() if error not in known]
            assert not failed, f"no {what}, for a cell failed:\n{failed[0][-3000:]}"
            assert time.monotonic() < until, f"no {what} in {seconds:.0f} s; the page shows\n{self.text()[-3000:]}"
            self.page.wait_for_timeout(200)

    def wait_for_error(self, seconds: float) -> None:
        """Wait until a cell fails, as one that is interrupted does."""
        until = time.monotonic() + seconds
        while not self.errors():
            assert time.monotonic() < until, f"no cell failed in {seconds:.0f} s"
            self.page.wait_for_timeout(100)

    def wait_until_done(self, seconds: float) -> None:
        """Wait until no cell runs or waits to run."""
        self.wait(lambda: "[*]:" not in self.prompts(), "end of all cells", seconds)
        self.wait_for_kernel("Idle")

    def cell(self, text: str):
        """Return the first code cell whose source holds this text."""
        return self.page.locator(".jp-CodeCell").filter(has=self.page.locator(".jp-InputArea", has_text=text)).first

    def prompts(self) -> list[str]:
        return self.page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()

    def source(self, text: str) -> str:
        return self.cell(text).locator(".jp-InputArea .cm-content").inner_text()

    def outputs(self, text: str) -> str:
        """Return what the cell with this source shows below it."""
        return "\n".join(self.cell(text).locator(".jp-OutputArea-output").all_inner_texts())

    def text(self) -> str:
        """Return what all cells show below them."""
        return "\n".join(self.page.locator(".jp-OutputArea-output").all_inner_texts())

    def save(self) -> dict:
        """Save and return the notebook as it is in its file."""
        before = self.file.stat().st_mtime_ns
        self.choose("File", "Save Notebook")
        self.wait(lambda: self.file.stat().st_mtime_ns != before and self._is_whole(), "saving", SECONDS)
        return json.loads(self.file.read_text())

    def _is_whole(self) -> bool:
        """Tell whether the server has written the file to its end: it empties it first."""
        try:
            return bool(json.loads(self.file.read_text()))
        except ValueError:
            return False

    def picture(self, name: str) -> Path:
        """Keep a picture of the whole notebook, not only of what fits a screen."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        panel, size = self.page.locator(".jp-WindowedPanel-outer"), self.page.viewport_size
        height = panel.evaluate("panel => panel.scrollHeight - panel.clientHeight") + size["height"]
        self.page.set_viewport_size({"width": size["width"], "height": min(height, _TALLEST)})
        panel.evaluate("panel => panel.scrollTo({top: 0, behavior: 'instant'})")
        path = self.pictures / f"{name}.png"
        self.page.screenshot(path=path)
        self.page.set_viewport_size(size)
        return path


def _answer_for_others(route) -> None:
    """Stand in for the picture of Colab's button; everything else outside is refused."""
    if route.request.url.endswith("colab-badge.svg"):
        route.fulfill(
            content_type="image/svg+xml",
            body=(
                "<svg xmlns='http://www.w3.org/2000/svg' width='117' height='20'>"
                "<rect width='117' height='20' rx='3' fill='#555'/>"
                "<text x='12' y='14' fill='#fff' font-family='sans-serif' font-size='11'>Open in Colab</text></svg>"
            ),
        )
    else:
        route.abort()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
