"""Checkpoints in generations: everything that matters, declared by name, whole or not there.

A generation is a folder `generation-000001200/` with `tensors.safetensors`, `state.json` and, written last,
`MANIFEST.json` (sizes and SHA-256). The latest checkpoint is the newest generation whose manifest verifies, never
the newest name: a generation cut off at any byte is passed over. No pickle anywhere.

Saving copies the tensors (the only part that blocks), then writes in a thread; one write is in flight at most.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.config import digest
from colabkit.core.errors import StateError

MANIFEST = "MANIFEST.json"
PASSED_OVER = "nothing to do: the newest whole checkpoint is used instead"


class Checkpoints:
    """The generations in one folder. `keep_last` generations are kept, and the one named best."""

    def __init__(self, folder: str | Path, *, keep_last: int = 2, say=print):
        self.folder, self.keep_last, self.say = Path(folder), keep_last, say
        self._writer: threading.Thread | None = None
        self._fault: Exception | None = None
        self._whole: set[Path] = set()  # generations written or verified by this process
        self._broken: set[Path] = set()  # those that were passed over

    def save(self, step: int, state: dict[str, Any], *, best: bool = False, wait: bool = False) -> None:
        """Save generation `step`: any nesting of dicts, lists, numbers, text and tensors.

        Returns as soon as the tensors are copied, unless `wait`. A fault of an earlier write is raised here.
        """
        self.wait()
        if self._has(step, best):
            return  # the same step again, after a resume: it is the same state
        tensors: dict[str, Any] = {}
        skeleton = _take_tensors(state, tensors)
        self._writer = threading.Thread(target=self._write, args=(step, skeleton, tensors, best), daemon=False,
                                        name=self._thread_name())
        self._writer.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait for the write in flight. Raises: the StateError it met (full disk, read-only folder)."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault

    def load_latest(self) -> tuple[int, dict[str, Any]] | None:
        """Return (step, state) of the newest generation that verifies, or None; says which it passed over."""
        return self._load_first(self._generations())

    def load_best(self) -> tuple[int, dict[str, Any]] | None:
        """Return (step, state) of the newest whole generation saved as best, or None."""
        return self._load_first([folder for folder in self._generations() if _is_best(folder)])

    def _load_first(self, candidates: list[Path]) -> tuple[int, dict[str, Any]] | None:
        for folder in candidates:
            try:
                found = read_generation(folder)
            except StateError as error:
                self._broken.add(folder)
                self.say(f"checkpoint {folder.name} passed over: {error.what}")
            else:
                self._whole.add(folder)
                return found
        return None

    def _generations(self) -> list[Path]:
        """Return all generations, newest first, once nothing is written any more."""
        for thread in threading.enumerate():  # a notebook's loop that was interrupted may still be writing
            if thread.name == self._thread_name():
                thread.join()
        return sorted(self.folder.glob("generation-*"), reverse=True)

    def _thread_name(self) -> str:
        return f"checkpoint {self.folder.absolute()}"

    def _has(self, step: int, best: bool) -> bool:
        """Tell whether a step is saved whole; marks it as best where asked."""
        folder = self.folder / _name(step)
        try:
            manifest = _read_manifest(folder) if folder.exists() else None
            if manifest is None:
                return False
            if folder not in self._whole:
                read_generation(folder)
        except StateError:
            return False
        self._whole.add(folder)
        if best and not manifest["best"]:
            _write_manifest(folder, manifest | {"best": True})
        return True

    def _write(self, step: int, skeleton: Any, tensors: dict[str, Any], best: bool) -> None:
        folder = self.folder / _name(step)
        try:
            self._broken.add(folder)
            write_generation(folder, skeleton, tensors, {"step": step, "best": best})
            self._broken.discard(folder)
            self._whole.add(folder)
            self._rotate(folder)
        except OSError as error:
            self._fault = files.disk_fault(error, folder, "write a checkpoint")
        except Exception as error:  # told by the next save: a training that saves nothing must not look well
            self._fault = error

    def _rotate(self, newest: Path) -> None:
        """Remove generations older than the newest, which was just written whole, but not the last and the best."""
        older = sorted(f for f in self.folder.glob("generation-*") if f.name < newest.name)
        whole = [f for f in older if f not in self._broken and (f / MANIFEST).exists()] + [newest]
        kept = whole[-self.keep_last:] + [f for f in whole if _is_best(f)][-1:]
        for folder in older:
            if folder not in kept:
                files.remove_generation(folder)


def write_generation(folder: Path, skeleton: Any, tensors: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Write tensors and skeleton, then the manifest that makes them count."""
    from safetensors.torch import save
    if folder.exists():
        files.remove_generation(folder)  # cut off earlier: no manifest
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise files.disk_fault(error, folder, "write a checkpoint") from error
    contents = {"tensors.safetensors": save(tensors), "state.json": json.dumps(skeleton).encode()}
    for name, data in contents.items():
        files.write_atomic(folder / name, data)
    files.sync_folder(folder.parent)
    listing = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in contents.items()}
    _write_manifest(folder, manifest | {"files": listing})


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    manifest.pop("sha256", None)
    files.write_json(folder / MANIFEST, manifest | {"sha256": digest(manifest)})


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest that vouches for itself. Raises: StateError."""
    manifest = files.read_json(folder / MANIFEST)
    told = manifest.pop("sha256", "") if isinstance(manifest, dict) else ""
    if told != digest(manifest):
        raise StateError(f"{MANIFEST} is not what was written", where=folder, fix=PASSED_OVER)
    return manifest


def read_generation(folder: Path) -> tuple[int, dict[str, Any]]:
    """Return (step, state). Raises: StateError when anything is missing, cut off or changed."""
    from safetensors.torch import load
    manifest = _read_manifest(folder)
    contents = {}
    for name, (size, sha256) in manifest["files"].items():
        path = folder / name
        try:
            data = path.read_bytes() if path.is_file() else b""
        except OSError as error:
            raise files.disk_fault(error, path, "read a checkpoint") from error
        if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
            raise StateError(f"{name} is not what was written", got=f"{len(data)} bytes", expected=f"{size} bytes",
                             where=folder, fix=PASSED_OVER)
        contents[name] = data
    return manifest["step"], _put_tensors(json.loads(contents["state.json"]), load(contents["tensors.safetensors"]))


def _name(step: int) -> str:
    return f"generation-{step:09d}"


def _is_best(folder: Path) -> bool:
    try:
        return bool(_read_manifest(folder)["best"])
    except StateError:
        return False


def _take_tensors(value: Any, tensors: dict[str, Any]) -> Any:
    """Return `value` with tensors replaced by their names; copies of them go into `tensors`."""
    import torch
    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors):05d}"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"$tensor": name}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _take_tensors(v, tensors) for key, v in value.items()}
        return {"$dict": [[_take_tensors(key, tensors), _take_tensors(v, tensors)] for key, v in value.items()]}
    if isinstance(value, tuple):
        return {"$tuple": [_take_tensors(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_take_tensors(v, tensors) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise StateError("Cannot put this into a checkpoint", got=type(value).__name__,
                     expected="dicts, lists, numbers, text and tensors", fix="convert it before saving")


def _put_tensors(value: Any, tensors: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_put_tensors(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(_put_tensors(v, tensors) for v in value["$tuple"])
    if "$dict" in value:
        return {_put_tensors(key, tensors): _put_tensors(v, tensors) for key, v in value["$dict"]}
    return {key: _put_tensors(v, tensors) for key, v in value.items()}


def random_state() -> dict[str, Any]:
    """Return the state of every global random generator: Python, NumPy, torch CPU and CUDA."""
    import numpy
    import torch
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = numpy.random.get_state()
    return {"python": [version, list(internal), gauss],
            "numpy": [kind, keys.tolist(), position, has_gauss, cached],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_state(state: dict[str, Any]) -> None:
    """Set every global random generator to a state from `random_state`."""
    import numpy
    import torch
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def restore(parts: dict[str, Any], state: dict[str, Any]) -> None:
    """Load each part's state into it (load_state_dict). Raises: StateError when the names do not match."""
    if set(parts) - set(state):
        raise StateError("The checkpoint does not hold all parts", got=sorted(state), expected=str(sorted(parts)),
                         fix="redo the step (--redo), or go back to the version of colabkit that made it")
    for name, part in parts.items():
        part.load_state_dict(state[name])
