"""How much audio goes at once: what a second costs, what is free, and never below what was tried."""

from __future__ import annotations

import torch

from colabkit.pipelines.dataset.codecs import at_once

GIB = 2**30


def test_seconds_follow_from_what_a_second_costs_and_what_is_free():
    seconds, reason = at_once.of_memory(1 * GIB, 4 * GIB, 16 * GIB)  # three more waves of 4 s held 3 GiB
    assert seconds == round(0.6 * 16 / 0.25, 1)
    assert "256 MiB for a second" in reason and "16.0 GiB free" in reason


def test_there_is_a_ceiling_and_a_floor():
    assert at_once.of_memory(GIB, 2 * GIB, 140 * GIB) == (
        640.0,
        "85 MiB for a second of audio as measured, 140.0 GiB free; no more than 640 s at once",
    )
    assert at_once.of_memory(GIB, 8 * GIB, GIB // 8)[0] == at_once.PROBE_SECONDS


def test_on_a_cpu_nothing_is_measured():
    at_once.forget()

    def encode(seconds, num):
        raise AssertionError("encoded")

    seconds, reason = at_once.seconds_at_once("c", torch.device("cpu"), encode, 8.0)
    assert seconds == 8.0 and "CPU more than 8 s" in reason
    at_once.forget()


def test_a_probe_that_shows_nothing_is_no_division_by_zero():
    assert at_once.of_memory(GIB, GIB, 16 * GIB)[0] == 640.0


def test_a_measurement_is_made_once_a_process_and_codec(monkeypatch):
    at_once.forget()
    measured = []
    monkeypatch.setattr(at_once, "_measured", lambda device, encode: (measured.append(device), (100.0, "measured"))[1])
    try:
        for codec in ("a", "a", "b"):
            assert at_once.seconds_at_once(codec, torch.device("cuda"), lambda seconds, num: None, 8.0) == (
                100.0,
                "measured",
            )
        assert len(measured) == 2
    finally:
        at_once.forget()
