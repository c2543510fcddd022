"""A nesting of dicts, lists, numbers and tensors as one safetensors file, written as it goes and without pickle.

The tensors lie in the file under names of their own; the nesting around them is JSON in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from colabkit.core.errors import StateError

NESTING = "colabkit"  # the metadata entry that holds the nesting
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "complex64": "C64",
}


def take(state: Any) -> tuple[Any, dict[str, Any]]:
    """Return (nesting, tensors): the tensors are copies in main memory, so that `state` may go on changing."""
    tensors: dict[str, Any] = {}
    return _take(state, tensors), tensors


def chunks(nesting: Any, tensors: dict[str, Any]) -> Iterator[bytes | memoryview]:
    """Yield a safetensors file piece by piece (format: 8 bytes of header length, JSON header, the tensors' bytes)."""
    import torch

    header: dict[str, Any] = {"__metadata__": {NESTING: json.dumps(nesting)}}
    # each lies at a multiple of its size
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[str(tensor.dtype).removeprefix("torch.")],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        if tensor.numel():
            yield memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy())


def parse(data: bytes) -> Any:
    """Return the state that a whole file holds."""
    from safetensors.torch import load

    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return _put(json.loads(header["__metadata__"][NESTING]), load(data))


def _take(value: Any, tensors: dict[str, Any]) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors):05d}"
        if str(value.dtype).removeprefix("torch.") not in _DTYPES:
            raise _refused(str(value.dtype))
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"$tensor": name}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _take(v, tensors) for key, v in value.items()}
        return {"$dict": [[_take(key, tensors), _take(v, tensors)] for key, v in value.items()]}
    if isinstance(value, tuple):
        return {"$tuple": [_take(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_take(v, tensors) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise _refused(type(value).__name__)


def _refused(what: str) -> StateError:
    return StateError(
        "Cannot put this into a checkpoint",
        got=what,
        expected="dicts, lists, numbers, text and tensors",
        fix="convert it before saving",
    )


def _put(value: Any, tensors: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_put(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(_put(v, tensors) for v in value["$tuple"])
    if "$dict" in value:
        return {_put(key, tensors): _put(v, tensors) for key, v in value["$dict"]}
    return {key: _put(v, tensors) for key, v in value.items()}
