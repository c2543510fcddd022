"""Set colabkit up in a virtual environment: python3 install.py .venv

Takes the versions of constraints.txt. Where there is no NVIDIA GPU, PyTorch is the build for the CPU: the default one
for Linux brings several gigabytes of CUDA that nothing here could use.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = "test"


def main(folder: str) -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  this file runs before anything checks requires-python
        raise SystemExit(
            f"colabkit needs Python 3.11 or newer, this is {sys.version.split()[0]}:\n"
            "make PYTHON=/path/to/newer/python3 install"
        )
    place = Path(folder)
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, "--upgrade", "pip>=26", "setuptools>=77", "wheel"])
    torch = next(line for line in (HERE / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    run([*pip, torch, *torch_source(pip, torch)])
    run(
        [*pip, "--constraint", str(HERE / "constraints.txt"), "--no-build-isolation", "--editable", f"{HERE}[{EXTRAS}]"]
    )
    run(
        [
            str(python),
            "-c",
            "import colabkit, torch; print('colabkit', colabkit.__version__, 'with torch', torch.__version__)",
        ]
    )


def torch_source(pip: list[str], torch: str) -> list[str]:
    """Return pip's options for a PyTorch that fits: the default where there is a GPU or the default is a CPU build."""
    if shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0:
        print("PyTorch: the default build, because nvidia-smi lists a GPU")
        return []
    planned = subprocess.run(
        [*pip, "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", torch], capture_output=True, text=True
    )
    if planned.returncode == 0:
        entry = json.loads(planned.stdout)["install"][0]
        needs_cuda = any(
            need.startswith(("nvidia", "cuda", "triton")) for need in entry["metadata"].get("requires_dist", [])
        )
        if entry["metadata"]["version"].endswith("+cpu") or not needs_cuda or sys.platform != "linux":
            print("PyTorch: the build pip finds, because it is one for the CPU")
            return []
    print("PyTorch: the CPU build of its own index, because there is no GPU")
    return ["--index-url", CPU_INDEX]


def run(command: list[str]) -> None:
    if subprocess.run(command).returncode:
        raise SystemExit(
            f"Failed: {' '.join(command)}\nCheck the network and free disk (4 GB), then run make install again."
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".venv")
