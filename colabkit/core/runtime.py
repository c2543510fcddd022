"""What machine this is: capabilities rather than product names, found fast and without importing torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import platform as platform_module
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from colabkit.core.accelerators import Accelerator, find_accelerators
from colabkit.core.disk import free_bytes, in_units
from colabkit.core.drive import DriveStatus, drive_mountpoint, drive_status
from colabkit.core.errors import StateError

_GIB = 2**30
_NO_LIMIT_BYTES = 2**60  # cgroup v1 writes "no limit" as a number near 2**63
_UNSET = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What was found on this machine; `root` is where its file system starts: not '/' only in tests."""

    on_colab_vm: bool
    on_colab_enterprise: bool
    front_end: str  # "colab-web", "vscode", "jupyter", "terminal" or "none"
    front_end_reason: str
    drive_mounted: bool
    drive_fault: str  # why what is there cannot be used as Drive; "" when mounted or simply absent
    widgets_usable: bool
    accelerators: tuple[Accelerator, ...]
    num_cpus: int
    memory_gib: float
    python: str
    platform: str
    torch_version: str  # "" when torch is not installed
    root: str = "/"

    @property
    def drive_mountpoint(self) -> Path:
        return drive_mountpoint(self.root)

    @property
    def answers_requests(self) -> bool:
        """Whether somebody sits at the front end to answer a question such as Drive's permission."""
        return self.front_end in {"colab-web", "vscode", "jupyter"}


def detect(env: Mapping[str, str] | None = None, root: str | os.PathLike = "/",
           shell: object = _UNSET) -> Runtime:
    """Look at this machine; takes milliseconds, plus nvidia-smi's own time where there is a GPU.

    `env`, `root` and `shell` (IPython's shell or None) replace the real ones in tests.
    """
    env = os.environ if env is None else env
    root = os.fspath(root)
    on_colab_vm = "COLAB_RELEASE_TAG" in env or os.path.exists(os.path.join(root, "var/colab/hostname"))
    enterprise = env.get("VERTEX_PRODUCT") == "COLAB_ENTERPRISE"
    front_end, reason, widgets = _front_end(_ipython_shell() if shell is _UNSET else shell, on_colab_vm)
    drive = drive_status(root) if on_colab_vm else DriveStatus("absent")
    system = (platform_module.system(), platform_module.release(), platform_module.machine())
    return Runtime(on_colab_vm=on_colab_vm, on_colab_enterprise=enterprise, front_end=front_end,
                   front_end_reason=reason, drive_mounted=drive.mounted, drive_fault=drive.fault,
                   widgets_usable=widgets and _is_installed("ipywidgets"),
                   accelerators=find_accelerators(env), num_cpus=_num_cpus(root),
                   memory_gib=_memory_gib(root), python=platform_module.python_version(),
                   platform=" ".join(system), torch_version=_version("torch"), root=root)


def _ipython_shell() -> object | None:
    ipython = sys.modules.get("IPython")  # a notebook's kernel has imported it long ago: never import it here
    return ipython.get_ipython() if hasattr(ipython, "get_ipython") else None


def _front_end(shell: object | None, on_colab_vm: bool) -> tuple[str, str, bool]:
    """Tell who shows our output, how that is known, and whether widgets are likely to be drawn."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        if _is_terminal(sys.stdout) and _is_terminal(sys.stdin):
            return "terminal", "no notebook kernel, input and output are a terminal", False
        return "none", "no notebook kernel and no terminal", False
    request = _current_request(kernel)
    metadata = request.get("metadata") or {}
    # A client that forbids input() runs notebooks headless: nothing can be asked there.
    content = request.get("content") or {}
    if content.get("allow_stdin", getattr(kernel, "_allow_stdin", None)) is not True:
        return "none", "the notebook runs headless: its client takes no input", False
    if str(metadata.get("cellId", "")).startswith("vscode-notebook-cell:") or \
            "__vsc_ipynb_file__" in getattr(shell, "user_ns", {}):
        return "vscode", "the running cell carries an editor's cell address", True
    if on_colab_vm:
        return "colab-web", "a notebook kernel on a Colab VM whose client answers questions", True
    # Consoles talk to kernels too but draw no widgets; notebook pages name the cell they run.
    draws = bool({"cellId", "deletedCells"} & set(metadata))
    return "jupyter", "a notebook kernel whose client answers questions", draws


def _current_request(kernel: object) -> Mapping:
    for name in ("get_parent", "_parent_header"):
        found = getattr(kernel, name, None)
        try:
            request = found() if callable(found) else found
        except (LookupError, TypeError, AttributeError):  # ipykernel versions and threads differ here
            continue
        if isinstance(request, Mapping) and request:
            return request
    return {}


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream is not None and stream.isatty())
    except (ValueError, AttributeError):  # closed, or a stand-in without the question
        return False


def _num_cpus(root: str) -> int:
    """Count the CPUs this process may use: its affinity and its container's quota, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for text in _cgroup_values(root, "cpu", "cpu.max"):  # v2: "<quota> <period>" or "max <period>"
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            count = min(count, math.ceil(int(quota) / int(period)))
    quotas = _cgroup_values(root, "cpu", "cpu.cfs_quota_us")
    for quota, period in zip(quotas, _cgroup_values(root, "cpu", "cpu.cfs_period_us"), strict=False):
        if quota.isdigit() and period.isdigit() and int(period):
            count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, count)


def _memory_gib(root: str) -> float:
    """Find how much memory this process may use: the machine's, or less where its container says so."""
    texts = [text for name in ("memory.max", "memory.limit_in_bytes")
             for text in _cgroup_values(root, "memory", name)]
    limits = [int(text) for text in texts if text.isdigit() and int(text) < _NO_LIMIT_BYTES]
    try:
        lines = Path(root, "proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
    except (OSError, ValueError, IndexError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return round(min(limits) / _GIB, 1) if limits else 0.0


def _cgroup_values(root: str, controller: str, name: str) -> list[str]:
    """Read one control file of this process's cgroup and of every cgroup above it (v1 and v2)."""
    try:
        lines = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    values = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, below = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = Path(root, "sys/fs/cgroup", controller if controllers else "")
        group = top / below.strip().strip("/")
        # Inside a container the path is often the host's: then only the top of the tree can be read.
        for place in (group, *group.parents):
            try:
                values.append((place / name).read_text().strip())
            except OSError:
                pass  # this level sets no limit
            if place == top:
                break
    return values


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def describe(runtime: Runtime, state_root: object | None = None) -> list[tuple[str, str, str]]:
    """List (name, value, what it means for the user) for `colabkit check`; `state_root` adds its disk."""
    rows = [("machine", _place(runtime), _place_means(runtime)),
            ("front end", runtime.front_end, runtime.front_end_reason)]
    if runtime.on_colab_vm and not runtime.on_colab_enterprise:
        drive = "mounted" if runtime.drive_mounted else runtime.drive_fault or "not mounted"
        rows.append(("Google Drive", drive, "runs are kept when the VM ends" if runtime.drive_mounted else
                     "run: from google.colab import drive; drive.mount('/content/drive')"))
    rows += [("accelerator", _accelerator_text(device), _accelerator_means(device))
             for device in runtime.accelerators]
    if not runtime.accelerators:
        change = " (Runtime > Change runtime type > T4 GPU)" if runtime.on_colab_vm else ""
        rows.append(("accelerator", "none", f"demo presets run here; quick and full want a GPU{change}"))
    rows += [("CPUs", str(runtime.num_cpus), f"up to {max(0, runtime.num_cpus - 1)} loader workers"),
             ("memory", f"{runtime.memory_gib:g} GiB" if runtime.memory_gib else "unknown",
              "enough" if runtime.memory_gib >= 8 else "little: prefer demo presets and few workers"),
             ("Python", runtime.python, runtime.platform),
             ("torch", runtime.torch_version or "not installed",
              "used as installed" if runtime.torch_version else "run: pip install torch"),
             ("widgets", "yes" if runtime.widgets_usable else "no",
              "progress bars" if runtime.widgets_usable else "progress as plain lines"),
             ("scratch disk", *_room(tempfile.gettempdir()))]
    if state_root is not None:
        path = os.fspath(getattr(state_root, "path", state_root))
        rows += [("state folder", path, str(getattr(state_root, "reason", ""))), ("state disk", *_room(path))]
    return rows


def _place(runtime: Runtime) -> str:
    if runtime.on_colab_enterprise:
        return "Colab Enterprise VM"
    return "Colab VM" if runtime.on_colab_vm else "this computer"


def _place_means(runtime: Runtime) -> str:
    if runtime.on_colab_enterprise:
        return "no Google Drive here: set COLABKIT_STATE to a disk or bucket that outlives the VM"
    return "its disk is lost when it ends" if runtime.on_colab_vm else "its disk stays"


def _accelerator_text(device: Accelerator) -> str:
    capability = f", compute {device.compute_capability}" if device.compute_capability else ""
    return f"{device.name}, {device.memory_gib:g} GiB{capability}"


def _accelerator_means(device: Accelerator) -> str:
    return "bf16 training" if device.supports_bf16 else "fp16 training with loss scaling: no bf16 here"


def _room(path: str) -> tuple[str, str]:
    try:
        free = free_bytes(path)
    except StateError as error:
        return "unknown", error.what
    means = "enough to start" if free >= 10 * _GIB else "little: free at least 10 GiB for training"
    return f"{in_units(free)} free", means
