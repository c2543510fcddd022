"""Machines as recorded: environment, files below the root, the shell a cell would see; names of a person left out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from colabkit.core.runtime import Runtime, detect

COLAB = {"COLAB_RELEASE_TAG": "release-colab-20260819", "TBE_RUNTIME_ADDR": "172.28.0.1:8011"}
T4 = "0, GPU-aaaa, Tesla T4, 15360, 7.5"
L4 = "1, GPU-bbbb, NVIDIA L4, 23034, 8.9"  # as nvidia-smi lists them
SERVED_BY_COLAB = {
    "COLAB_RELEASE_TAG": "release-colab_20260819-060114_RC00",
    "COLAB_GPU": "",
    "COLAB_BACKEND_VERSION": "next",
    "COLAB_JUPYTER_IP": "172.28.0.12",
    "COLAB_JUPYTER_TRANSPORT": "ipc",
    "CLOUDSDK_CONFIG": "/content/.config",
    "TBE_RUNTIME_ADDR": "172.28.0.1:8011",
    "TBE_CREDS_ADDR": "172.28.0.1:8008",
    "TBE_EPHEM_CREDS_ADDR": "172.28.0.1:8009",
    "USE_AUTH_EPHEM": "1",
    "JPY_PARENT_PID": "81",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
COLAB_WEB = SERVED_BY_COLAB | {
    "JPY_SESSION_NAME": "/v2/external/notebooks/intro.ipynb",
    "COLAB_NOTEBOOK_ID": "/v2/external/notebooks/intro.ipynb",
}
HOSTNAME = {"var/colab/hostname": "colab-gpu-t4-s-1"}


def request(allow_stdin: bool = True, metadata: dict | None = None, sender: int | str = 1) -> dict:
    """Return an execute_request as a kernel holds it; `sender` is the client's process by Jupyter's message ids."""
    return {
        "header": {"msg_id": f"0f2a-41_{sender}_7", "msg_type": "execute_request"},
        "content": {"allow_stdin": allow_stdin},
        "metadata": metadata or {},
    }


def shell(
    allow_stdin: bool = True, metadata: dict | None = None, sender: int | str = 1, **user_ns: Any
) -> SimpleNamespace:
    """Return a notebook kernel's shell as ipykernel makes it."""
    asked = request(allow_stdin, metadata, sender)
    return SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: asked), user_ns=user_ns)


OF_COLAB = {"colab": {"cell_id": "hJ1xQ2"}}
OF_VSCODE = {"cellId": "vscode-notebook-cell:/home/x/01.ipynb#W1sZmlsZQ%3D%3D"}
OF_JUPYTERLAB = {"deletedCells": [], "recordTiming": False, "cellId": "cell-08"}


@dataclass(frozen=True)
class Place:
    """A machine; `found` are the fields of Runtime that must come out, `said` words of `colabkit check`."""

    env: dict[str, str]
    shell: Any
    files: dict[str, str] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    def detect(self, root: Path) -> Runtime:
        """Make the files below `root` and look at the machine."""
        for name, text in self.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return detect(self.env, root, shell=self.shell)


def _found(front_end: str, **fields: Any) -> dict[str, Any]:
    nothing = {
        "on_colab_vm": False,
        "on_colab_enterprise": False,
        "drive_possible": False,
        "drive_mounted": False,
        "answers_requests": False,
        "answers_drive_auth": False,
        "answers_secrets": False,
        "answers_javascript": False,
        "widgets_drawn": False,
    }
    return nothing | fields | {"front_end": front_end}


_ON_COLAB = {"on_colab_vm": True, "drive_possible": True}
_IN_PAGE = {"answers_requests": True, "widgets_drawn": True}
_ALL_ANSWERED = _ON_COLAB | _IN_PAGE | {"answers_drive_auth": True, "answers_secrets": True, "answers_javascript": True}

PLACES = {
    "Colab's page": Place(
        COLAB_WEB,
        shell(metadata=OF_COLAB),
        HOSTNAME,
        _found("colab-web", **_ALL_ANSWERED),
        ("Colab VM", "its disk is lost", "a run asks to mount it", "userdata.get works", "Change runtime type"),
    ),
    "Colab's page, a cell without an address": Place(
        COLAB_WEB, shell(), HOSTNAME, _found("colab-web", **_ALL_ANSWERED)
    ),
    "Colab's page, Drive mounted": Place(
        COLAB_WEB,
        shell(metadata=OF_COLAB),
        HOSTNAME | {"content/drive/MyDrive/a.txt": ""},
        _found("colab-web", **_ALL_ANSWERED | {"drive_mounted": True}),
        ("mounted", "MyDrive/colabkit", "runs are kept"),
    ),
    "Colab through VS Code": Place(
        SERVED_BY_COLAB | {"JPY_SESSION_NAME": "01.ipynb"},
        shell(metadata=OF_VSCODE),
        HOSTNAME,
        _found("vscode", **_ON_COLAB, **_IN_PAGE, answers_drive_auth=True),
        ("an editor", "a run asks to mount it", "not answered", "set tokens as environment variables"),
    ),
    "Colab's command line": Place(
        SERVED_BY_COLAB,
        shell(allow_stdin=False, sender=4242),
        HOSTNAME,
        _found("colab-cli", **_ON_COLAB),
        ("colab drivemount", "not answered", "all works without", "COLABKIT_STATE=/content/state"),
    ),
    "papermill in a terminal of a Colab VM": Place(
        SERVED_BY_COLAB,
        shell(allow_stdin=False, sender=os.getppid()),
        HOSTNAME,
        _found("none", **_ON_COLAB),
        ("headless", "run in a cell of this VM's notebook: from google.colab"),
    ),
    "papermill in a terminal of a Colab VM, behind a launcher": Place(
        SERVED_BY_COLAB | {"JPY_PARENT_PID": "777"},
        shell(allow_stdin=False, sender=777),
        HOSTNAME,
        _found("none", **_ON_COLAB),
    ),
    "a shell on a Colab VM over SSH": Place(
        {"TERM": "xterm"}, None, HOSTNAME, _found("none", **_ON_COLAB), ("Colab VM",)
    ),
    "JupyterLab through a tunnel on a Colab VM": Place(
        SERVED_BY_COLAB,
        shell(metadata=OF_JUPYTERLAB),
        HOSTNAME,
        _found("jupyterlab", **_ON_COLAB, **_IN_PAGE),
        ("nobody can be asked from here",),
    ),
    "Colab Enterprise": Place(
        SERVED_BY_COLAB | {"VERTEX_PRODUCT": "COLAB_ENTERPRISE"},
        shell(metadata=OF_COLAB),
        HOSTNAME,
        _found("colab-web", on_colab_vm=True, on_colab_enterprise=True, **_IN_PAGE, answers_javascript=True),
        ("Colab Enterprise VM", "not on this VM", "outlives the VM", "not answered"),
    ),
    "a Colab image sold in the marketplace": Place(
        SERVED_BY_COLAB,
        shell(metadata=OF_COLAB),
        HOSTNAME | {"var/colab/mp": ""},
        _found("colab-web", **_ALL_ANSWERED | {"drive_possible": False, "answers_drive_auth": False}),
        ("not on this VM",),
    ),
    "Colab's page on a runtime of one's own": Place(
        {"JPY_PARENT_PID": "12"}, shell(metadata=OF_COLAB), {}, _found("colab-web", **_IN_PAGE), ("this computer",)
    ),
    "JupyterLab": Place(
        {"JPY_SESSION_NAME": "/home/x/01.ipynb", "JPY_PARENT_PID": "12"},
        shell(metadata=OF_JUPYTERLAB),
        {},
        _found("jupyterlab", **_IN_PAGE),
        ("this computer", "its disk stays", "colabkit"),
    ),
    "the old Jupyter Notebook": Place(
        {"JPY_SESSION_NAME": "/home/x/01.ipynb"}, shell(), {}, _found("jupyter", **_IN_PAGE)
    ),
    "a Jupyter console": Place(
        {"JPY_SESSION_NAME": "console-1-ab"}, shell(), {}, _found("jupyter", answers_requests=True)
    ),
    "VS Code on one's own machine": Place(
        {"VSCODE_PID": "1", "TERM_PROGRAM": "vscode", "JPY_PARENT_PID": "9"},
        shell(metadata=OF_VSCODE),
        {},
        _found("vscode", **_IN_PAGE),
        ("this computer",),
    ),
    "JupyterLab in a kernel that VS Code used before": Place(
        {}, shell(metadata=OF_JUPYTERLAB, __vsc_ipynb_file__="/x.ipynb"), {}, _found("jupyterlab", **_IN_PAGE)
    ),
    "papermill on a GPU server": Place(
        {"JPY_PARENT_PID": str(os.getppid()), "NVIDIA_VISIBLE_DEVICES": "all"},
        shell(allow_stdin=False, sender=os.getppid()),
        {".dockerenv": ""},
        _found("none", in_container=True),
        ("a container", "only folders mounted into it outlive it"),
    ),
    "nbmake in continuous integration": Place(
        {"CI": "true", "GITHUB_ACTIONS": "true", "PYTEST_CURRENT_TEST": "01.ipynb::"},
        shell(allow_stdin=False),
        {},
        _found("none"),
        ("headless", "all works without"),
    ),
    # Kaggle's image is made from Colab's: its variables and an importable google.colab are there, its services are not.
    "Kaggle": Place(
        {
            "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
            "KAGGLE_URL_BASE": "https://www.kaggle.com",
            "JPY_SESSION_NAME": "a.ipynb",
            **{name: text for name, text in SERVED_BY_COLAB.items() if name.startswith("COLAB_")},
        },
        shell(metadata=OF_JUPYTERLAB),
        {".dockerenv": "", "content/drive/MyDrive/x": ""},
        _found("jupyterlab", **_IN_PAGE, in_container=True),
        ("a container",),
    ),
    "Kaggle's saved version": Place(
        {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "COLAB_RELEASE_TAG": "release-colab_20260819-060114_RC00"},
        shell(allow_stdin=False),
        {".dockerenv": ""},
        _found("none", in_container=True),
    ),
    "SageMaker": Place(
        {
            "SM_CURRENT_HOST": "algo-1",
            "SM_NUM_GPUS": "1",
            "AWS_REGION": "us-east-1",
            "VERTEX_PRODUCT": "",
            "JPY_SESSION_NAME": "01.ipynb",
        },
        shell(metadata=OF_JUPYTERLAB),
        {},
        _found("jupyterlab", **_IN_PAGE),
    ),
    "Vertex Workbench": Place(
        {"VERTEX_PRODUCT": "WORKBENCH_INSTANCE"}, shell(metadata=OF_JUPYTERLAB), {}, _found("jupyterlab", **_IN_PAGE)
    ),
    "an Enterprise variable somewhere else": Place(
        {"VERTEX_PRODUCT": "COLAB_ENTERPRISE"}, shell(), {}, _found("jupyter", answers_requests=True)
    ),
    "IPython in a pipe": Place({}, SimpleNamespace(), {}, _found("none")),
    "a kernel between two requests": Place(
        SERVED_BY_COLAB,
        SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda channel: {})),
        HOSTNAME,
        _found("none", **_ON_COLAB),
    ),
    "an old kernel": Place(
        COLAB_WEB,
        SimpleNamespace(kernel=SimpleNamespace(_parent_header=request())),
        HOSTNAME,
        _found("colab-web", **_ALL_ANSWERED),
    ),
}


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def program(folder: Path, text: str) -> dict:
    """An nvidia-smi that is a shell script; returns an environment that finds it first."""
    put(folder / "nvidia-smi", "#!/bin/sh\n" + text)
    (folder / "nvidia-smi").chmod(0o755)
    return {"PATH": str(folder)}
