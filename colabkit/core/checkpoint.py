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
from colabkit.core.errors import ColabkitError, StateError

MANIFEST = "MANIFEST.json"


class Checkpoints:
    """The generations in one folder. `keep_last` generations are kept, and the one named best."""

    def __init__(self, folder: str | Path, *, keep_last: int = 2, say=print):
        self.folder, self.keep_last, self.say = Path(folder), keep_last, say
        self._writer: threading.Thread | None = None
        self._fault: ColabkitError | None = None

    def save(self, step: int, state: dict[str, Any], *, best: bool = False, wait: bool = False) -> None:
        """Save generation `step`: any nesting of dicts, lists, numbers, text and tensors.

        Returns as soon as the tensors are copied, unless `wait`. A fault of an earlier write is raised here.
        """
        self.wait()
        if (self.folder / _name(step) / MANIFEST).exists():
            return  # the same step again, after a resume: it is the same state
        tensors: dict[str, Any] = {}
        skeleton = _take_tensors(state, tensors)
        self._writer = threading.Thread(target=self._write, args=(step, skeleton, tensors, best), daemon=False)
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
        return self._load_first(sorted(self.folder.glob("generation-*"), reverse=True))

    def load_best(self) -> tuple[int, dict[str, Any]] | None:
        """Return (step, state) of the newest whole generation saved as best, or None."""
        return self._load_first([f for f in sorted(self.folder.glob("generation-*"), reverse=True) if _is_best(f)])

    def _load_first(self, candidates: list[Path]) -> tuple[int, dict[str, Any]] | None:
        for folder in candidates:
            try:
                return read_generation(folder)
            except StateError as error:
                self.say(f"checkpoint {folder.name} passed over: {error.what}")
        return None

    def _write(self, step: int, skeleton: Any, tensors: dict[str, Any], best: bool) -> None:
        folder = self.folder / _name(step)
        try:
            write_generation(folder, skeleton, tensors, {"step": step, "best": best})
            self._rotate()
        except ColabkitError as error:
            self._fault = error
        except OSError as error:
            self._fault = files.disk_fault(error, folder, "write a checkpoint")

    def _rotate(self) -> None:
        """Remove old generations, only ever after a newer one was written whole."""
        whole = sorted(f for f in self.folder.glob("generation-*") if (f / MANIFEST).exists())
        best = [f for f in whole if _is_best(f)][-1:]
        for folder in whole[: -self.keep_last]:
            if folder not in best:
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
    listing = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in contents.items()}
    files.write_json(folder / MANIFEST, manifest | {"files": listing})


def read_generation(folder: Path) -> tuple[int, dict[str, Any]]:
    """Return (step, state). Raises: StateError when anything is missing, cut off or changed."""
    from safetensors.torch import load
    manifest = files.read_json(folder / MANIFEST)
    contents = {}
    for name, (size, sha256) in manifest["files"].items():
        path = folder / name
        data = path.read_bytes() if path.is_file() else b""
        if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
            raise StateError(f"{name} is not what was written", got=f"{len(data)} bytes", expected=f"{size} bytes",
                             where=folder, fix="nothing to do: the newest whole checkpoint is used instead")
        contents[name] = data
    return manifest["step"], _put_tensors(json.loads(contents["state.json"]), load(contents["tensors.safetensors"]))


def _name(step: int) -> str:
    return f"generation-{step:09d}"


def _is_best(folder: Path) -> bool:
    try:
        return bool(files.read_json(folder / MANIFEST).get("best"))
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
        if all(isinstance(key, str) for key in value):
            return {key: _take_tensors(v, tensors) for key, v in value.items()}
        return {"$dict": [[key, _take_tensors(v, tensors)] for key, v in value.items()]}
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
        return {key: _put_tensors(v, tensors) for key, v in value["$dict"]}
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
