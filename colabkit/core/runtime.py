"""This machine: capabilities rather than product names, found fast, without hanging and without importing torch."""

from __future__ import annotations

import importlib.util
import math
import os
import platform as platform_module
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from colabkit.core import mounts
from colabkit.core.accelerators import Accelerator, find_accelerators
from colabkit.core.disk import in_units
from colabkit.core.drive import DriveStatus, drive_mountpoint, drive_status
from colabkit.core.front_end import current_shell, find_front_end, what_it_does
from colabkit.core.versions import tried
from colabkit.core.versions.differences import installed_version

_GIB = 2**30
NO_LIMIT_BYTES = 2**60  # cgroup v1 writes "no limit" as a number near 2**63
# addresses only a Colab VM's host serves
_COLAB_SERVICES = ("TBE_RUNTIME_ADDR", "TBE_EPHEM_CREDS_ADDR", "TBE_CREDS_ADDR")
_UNSET = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What was found on this machine; `root` is where its file system starts: not '/' only in tests."""

    on_colab_vm: bool
    on_colab_enterprise: bool
    drive_possible: bool = False  # google.colab.drive.mount can work here, if somebody answers it
    in_container: bool = False
    front_end: str  # "colab-web", "colab-cli", "vscode", "jupyterlab", "jupyter", "terminal" or "none"
    front_end_reason: str
    drive_mounted: bool
    drive_fault: str  # why what is there cannot be used as Drive; "" when mounted or simply absent
    widgets_usable: bool
    widgets_drawn: bool = False  # the front end would draw them; usable only with ipywidgets installed
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
        """Whether somebody sits at the front end to answer input()."""
        return self.front_end in {"colab-web", "vscode", "jupyterlab", "jupyter"}

    @property
    def answers_drive_auth(self) -> bool:
        """Whether drive.mount's question reaches somebody; where not, it blocks for two minutes, mounted or not."""
        return self.drive_possible and self.front_end in {"colab-web", "vscode"}

    @property
    def answers_secrets(self) -> bool:
        """Whether google.colab.userdata.get is answered; where not, each call blocks for ten seconds."""
        return self.on_colab_vm and not self.on_colab_enterprise and self.front_end == "colab-web"

    @property
    def answers_javascript(self) -> bool:
        """Whether google.colab's eval_js and files.upload are answered; where not, they block for ever."""
        return self.on_colab_vm and self.front_end == "colab-web"


def detect(env: Mapping[str, str] | None = None, root: str | os.PathLike = "/", shell: object = _UNSET) -> Runtime:
    """Look at this machine; takes milliseconds, plus nvidia-smi's time where there is a GPU, plus 2 s for a dead Drive.

    `env`, `root` and `shell` (IPython's shell or None) replace the real ones in tests.
    """
    env = os.environ if env is None else env
    root = os.fspath(root)
    on_colab_vm = _is_colab_vm(env, root)
    enterprise = on_colab_vm and env.get("VERTEX_PRODUCT") == "COLAB_ENTERPRISE"
    drive_possible = on_colab_vm and not enterprise and not os.path.exists(os.path.join(root, "var/colab/mp"))
    front_end = find_front_end(current_shell() if shell is _UNSET else shell, env, on_colab_vm)
    drive = drive_status(root) if drive_possible else DriveStatus("absent")
    system = (platform_module.system(), platform_module.release(), platform_module.machine())
    return Runtime(
        on_colab_vm=on_colab_vm,
        on_colab_enterprise=enterprise,
        drive_possible=drive_possible,
        in_container=_is_container(env, root),
        front_end=front_end.kind,
        front_end_reason=front_end.reason,
        drive_mounted=drive.mounted,
        drive_fault=drive.fault,
        widgets_drawn=front_end.draws_widgets,
        widgets_usable=front_end.draws_widgets and is_installed("ipywidgets"),
        accelerators=find_accelerators(env),
        num_cpus=_num_cpus(root),
        memory_gib=_memory_gib(root),
        python=platform_module.python_version(),
        platform=" ".join(system),
        torch_version=installed_version("torch"),
        root=root,
    )


def _is_colab_vm(env: Mapping[str, str], root: str) -> bool:
    # The release tag alone proves nothing: Kaggle and local runtimes use images made from Colab's, and google.colab can
    # be imported there, too. The file is what google.colab itself asks for; a shell over SSH has the file and no
    # variable.
    return os.path.exists(os.path.join(root, "var/colab/hostname")) or (
        "COLAB_RELEASE_TAG" in env and any(name in env for name in _COLAB_SERVICES)
    )


def _is_container(env: Mapping[str, str], root: str) -> bool:
    return "KUBERNETES_SERVICE_HOST" in env or any(
        os.path.exists(os.path.join(root, name)) for name in (".dockerenv", "run/.containerenv")
    )


def _num_cpus(root: str) -> int:
    """Count the CPUs this process may use: its affinity and its container's quota, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    v2 = (text.partition(" ")[::2] for text in cgroup_values(root, "cpu", "cpu.max"))  # "<quota or max> <period>"
    v1 = zip(*(cgroup_values(root, "cpu", f"cpu.cfs_{name}_us") for name in ("quota", "period")), strict=False)
    for quota, period in (*v2, *v1):
        if quota.isdigit() and period.isdigit() and int(period):
            count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, count)


def _memory_gib(root: str) -> float:
    """Find how much memory this process may use: the machine's, or less where its container says so."""
    texts = [text for name in ("memory.max", "memory.limit_in_bytes") for text in cgroup_values(root, "memory", name)]
    limits = [int(text) for text in texts if text.isdigit() and int(text) < NO_LIMIT_BYTES]
    try:
        lines = Path(root, "proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
    except (OSError, ValueError, IndexError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return round(min(limits) / _GIB, 1) if limits else 0.0


def cgroup_values(root: str, controller: str, name: str) -> list[str]:
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
            with suppress(OSError):  # this level sets no limit
                values.append((place / name).read_text().strip())
            if place == top:
                break
    return values


def is_installed(module: str) -> bool:
    """Tell whether a module could be imported; nothing is, but the packages above it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # not even what it lies in, or a stand-in
        return False


def describe(
    runtime: Runtime, state_root: object | None = None, env: Mapping[str, str] | None = None
) -> list[tuple[str, str, str]]:
    """List (name, value, what it means for the user) for `colabkit check`; touches nothing that can hang for long.

    `state_root` is the state folder to look at; without one it is where a run would keep its state.
    """
    env = os.environ if env is None else env
    rows = [
        ("machine", *_machine(runtime)),
        ("front end", runtime.front_end, f"{what_it_does(runtime.front_end)} ({runtime.front_end_reason})"),
    ]
    if runtime.on_colab_vm:
        rows += [("Google Drive", *_drive_row(runtime)), ("Colab secrets", *_secrets_row(runtime))]
    rows += [("accelerator", _accelerator_text(device), _accelerator_means(device)) for device in runtime.accelerators]
    if not runtime.accelerators:
        change = " (Runtime > Change runtime type > T4 GPU)" if runtime.on_colab_vm else ""
        rows.append(("accelerator", "none", f"demo presets run here; quick and full want a GPU{change}"))
    rows += [
        ("CPUs", str(runtime.num_cpus), f"up to {max(0, runtime.num_cpus - 1)} loader workers"),
        (
            "memory",
            f"{runtime.memory_gib:g} GiB" if runtime.memory_gib else "unknown",
            _memory_means(runtime.memory_gib),
        ),
        ("Python", runtime.python, runtime.platform),
        (
            "torch",
            runtime.torch_version or "not installed",
            "used as installed" if runtime.torch_version else "run: pip install torch",
        ),
        tried.row(runtime.python),
        ("widgets", *_widgets_row(runtime)),
    ]
    scratch = env.get("TMPDIR") or env.get("TEMP") or "/tmp"
    state, reason = _state_place(runtime, state_root, env)
    dead = runtime.drive_fault and state and Path(state).is_relative_to(runtime.drive_mountpoint)
    looks = mounts.look_at_all([scratch] + [state] * bool(state and not dead), root=runtime.root)
    rows += [("scratch disk", *_room(looks[0])), ("state folder", state or "none yet", reason)]
    if state:
        rows.append(("state disk", *_room(mounts.Look(fault=runtime.drive_fault) if dead else looks[1], state=True)))
    return rows


def _machine(runtime: Runtime) -> tuple[str, str]:
    if runtime.on_colab_enterprise:
        return (
            "Colab Enterprise VM",
            "no Google Drive here: set COLABKIT_STATE to a disk or bucket that outlives the VM",
        )
    if runtime.on_colab_vm:
        return "Colab VM", "its disk is lost when it ends"
    if runtime.in_container:
        return "a container", "only folders mounted into it outlive it: keep the state in one of them"
    return "this computer", "its disk stays"


def _drive_row(runtime: Runtime) -> tuple[str, str]:
    if not runtime.drive_possible:
        return "not on this VM", "set COLABKIT_STATE to a folder that outlives the VM"
    if runtime.drive_mounted:
        return "mounted", "runs are kept when the VM ends"
    again = ", force_remount=True" if runtime.drive_fault else ""
    call = f"from google.colab import drive; drive.mount('{runtime.drive_mountpoint}'{again})"
    value = runtime.drive_fault or "not mounted"
    if runtime.answers_drive_auth:
        return value, f"run: {call}" if runtime.drive_fault else "a run asks to mount it when it starts"
    if runtime.front_end == "colab-cli":
        return value, "mount it from your own terminal before the run: colab drivemount"
    return value, f"nobody can be asked from here: run in a cell of this VM's notebook: {call}"


def _secrets_row(runtime: Runtime) -> tuple[str, str]:
    if runtime.answers_secrets:
        return "answered", "google.colab.userdata.get works"
    return "not answered", "set tokens as environment variables (HF_TOKEN ...): userdata.get would wait and fail"


def _memory_means(memory_gib: float) -> str:
    if not memory_gib:
        return "begin with a demo preset"
    return "enough" if memory_gib >= 8 else "little: prefer demo presets and few workers"


def _widgets_row(runtime: Runtime) -> tuple[str, str]:
    if runtime.widgets_usable:
        return "yes", "upload buttons and forms in the page"
    if runtime.widgets_drawn:
        return (
            "not installed",
            "for upload buttons: %pip install ipywidgets, then restart the kernel; all else works without",
        )
    return "no", "all works without; files and secrets are read from paths and the environment"


def _accelerator_text(device: Accelerator) -> str:
    capability = f", compute {device.compute_capability}" if device.compute_capability else ""
    return f"{device.name}, {device.memory_gib:g} GiB{capability}"


def _accelerator_means(device: Accelerator) -> str:
    return "bf16 training" if device.supports_bf16 else "fp16 training with loss scaling: no bf16 here"


def _state_place(runtime: Runtime, given: object | None, env: Mapping[str, str]) -> tuple[str, str]:
    """Say where a run would keep its state and why, as colabkit.runs.state does, but without asking for anything."""
    if given is not None:
        path, reason = (
            os.fspath(getattr(given, "path", given)),
            str(getattr(given, "reason", "it was given with --state")),
        )
    elif env.get("COLABKIT_STATE"):
        path, reason = env["COLABKIT_STATE"], "COLABKIT_STATE is set to it"
    elif runtime.drive_possible:
        if not runtime.drive_mounted and not runtime.drive_fault:
            return "", "Google Drive, once it is mounted; or set COLABKIT_STATE=/content/state, lost with the VM"
        path, reason = os.fspath(runtime.drive_mountpoint / "MyDrive/colabkit"), "My Drive keeps runs when the VM ends"
    else:
        path = "~/colabkit"
        reason = "the default; lost with the VM" if runtime.on_colab_vm else "the default on a computer of your own"
    return os.path.abspath(os.path.expanduser(path)), reason


def _room(found: mounts.Look, state: bool = False) -> tuple[str, str]:
    if found.fault:
        again = (
            "check its disk or mount, or choose another folder: --state /another/folder"
            if state
            else "choose another place: set TMPDIR to a folder on this machine's disk"
        )
        return "cannot be used", f"{found.fault}: {again}"
    if found.exists and not found.is_folder:
        return "cannot be used", "it is a file, not a folder: choose another folder"
    if not found.can_write:
        return (
            "cannot be written",
            "give yourself the right (chmod u+rwX), or choose another folder: --state /another/folder",
        )
    free = f"{in_units(found.free_bytes)} free"
    if found.free_bytes < 10 * _GIB:
        return free, "little: free at least 10 GiB for training"
    return free, "enough to start" + ("" if found.exists or not state else "; the folder is made by the first run")
