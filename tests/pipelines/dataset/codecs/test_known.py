"""Figures of codecs: bit rate and weight by arithmetic, and those of opened codecs by what they say of themselves."""

from __future__ import annotations

import pytest

from colabkit.core.errors import UsageError
from colabkit.pipelines.dataset.codecs.by_name import HUB_IDS
from colabkit.pipelines.dataset.codecs.known import facts, facts_of, table


def test_neucodec_and_mimi_as_published():
    neucodec, mimi = facts("neucodec"), facts("kyutai/mimi@v1")
    assert (neucodec.kbps, neucodec.bytes_per_hour) == (0.8, 360_000)
    assert mimi.kbps == pytest.approx(4.4) and mimi.codes_per_second == 400


def test_every_short_name_is_known_and_in_the_table():
    assert {facts(name).hub_id for name in HUB_IDS} == set(HUB_IDS.values())
    assert all(hub_id in str(table()) for hub_id in HUB_IDS.values())
    with pytest.raises(UsageError, match="Nothing is known"):
        facts("snac")


def test_an_opened_codec_tells_its_own(opened):
    told = facts_of(opened("dac"))
    assert (told.rate_hz_in, told.num_codebooks, told.codebook_size) == (24_000, 5, 128)
    assert told.kbps == pytest.approx(75 * 5 * 7 / 1000)
