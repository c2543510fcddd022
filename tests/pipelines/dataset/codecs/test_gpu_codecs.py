"""The GPU benchmark of codecs holds together without a GPU."""

from __future__ import annotations

import pytest

from benchmarks import gpu_codecs
from colabkit.core.versions.differences import too_old_for_codec


@pytest.mark.skipif(bool(too_old_for_codec("neucodec")), reason="NeuCodec came with transformers 5.17")
def test_a_dry_run_gives_every_figure():
    found = gpu_codecs.measure("cpu", small=True)
    assert found["ratio"] > 0 and found["codes_used"] > 10
    for precision in ("fp32", "tf32"):  # on a CPU the same
        assert found[precision]["parity_with_one_a_call"] == 1.0 and found[precision]["as_own_call"] > 0.97
        assert found[precision]["audio_per_second"] > 0 and "CPU" in found[precision]["chosen"][0]
    assert 0 < found["bf16"]["as_own_call"] <= 1
    assert list(gpu_codecs.parts()) == list(gpu_codecs.dry_parts()) == ["codecs"]
