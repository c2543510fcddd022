"""Tell that memory ran out from other errors, and give back what the failed work held."""

from __future__ import annotations

import pytest
import torch

from colabkit.training.sizing.out_of_memory import is_out_of_memory, release


def test_the_cpu_allocators_own_error_is_known():
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        assert is_out_of_memory(error) and "allocate" in release(error) and error.__traceback__ is None
    else:
        pytest.fail("it was given an exbibyte")
