"""Tell that memory ran out from other errors, and give back what the failed work held."""

from __future__ import annotations

import gc
import sys
import traceback

# Out of memory in disguise: raised as a plain RuntimeError by torch or by a library it calls.
_DISGUISES = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "HIP out of memory",
    "XPU out of memory",
    "MPS backend out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_INSUFFICIENT_RESOURCES",
    "CUDNN_STATUS_NOT_SUPPORTED",  # no algorithm for a tensor so large: fewer samples cure it
    "calling `cublasCreate(handle)`",  # its workspace found no room
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether fewer samples at once may cure an error.

    Python's own MemoryError is not meant: it is the process's memory that is short then, not a tensor's.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _DISGUISES)


def release(error: BaseException) -> str:
    """Let go of everything that an error's tracebacks hold, the failed graph above all; returns its first line."""
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = one.__cause__ = one.__context__ = None
    return text


def clean_up(*, collect: bool = True) -> None:
    """Give back to the device what no tensor uses; `collect`: also what circles of references still hold."""
    if collect:
        gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
