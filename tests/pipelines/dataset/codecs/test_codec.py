"""What a codec takes: waves and codes that it cannot take are named, with their place in the batch."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import DataError
from tests.pipelines.dataset.codecs.small_models import speech


@pytest.mark.parametrize(
    ("wave", "told"),
    [
        (np.zeros(0, np.float32), "too short"),
        (np.zeros(3_200), "one channel"),
        (np.zeros((1, 3_200), np.float32), "one channel"),
        (np.full(3_200, np.nan, np.float32), "no sound"),
        ([0.0] * 3_200, "one channel"),
    ],
)
def test_waves_that_cannot_be_encoded_are_named(wave, told, opened):
    with pytest.raises(DataError, match=told) as caught:
        opened("dac").encode_batch([wave])
    assert "segment 0" in str(caught.value) and caught.value.fix


def test_unlike_numbers_of_frames_in_a_batch_are_refused(opened):
    with pytest.raises(DataError, match="unlike"):
        opened("dac").encode_batch([speech(3_200), speech(6_400)])


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((4, 5), np.uint16),
        np.full((5, 3), 128, np.uint16),
        np.zeros((5, 0), np.uint16),
        np.zeros((5, 3), np.float32),
    ],
)
def test_codes_of_another_codec_are_refused(codes, opened):
    with pytest.raises(DataError, match="not codes of the codec"):
        opened("dac").decode_batch([codes])
