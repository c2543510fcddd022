"""A state as one safetensors file: every kind comes back, others read its tensors, what it cannot hold is refused."""

from __future__ import annotations

import math
import random

import numpy
import pytest
import torch
from safetensors.torch import load

from colabkit.core.errors import StateError
from colabkit.training.checkpoints import tensor_file
from colabkit.training.checkpoints.checkpoints import Checkpoints
from tests.training.checkpoints.generations import names, round_trip, same

BASE = torch.arange(12, dtype=torch.float32).reshape(3, 4)

STATES = {
    "plain": {"a": 1, "b": 2.5, "c": "ü\n\ud7ff", "d": None, "e": True, "f": [], "g": {}, "h": (), "i": 2**80},
    "numbers that JSON lacks": {"inf": math.inf, "minus": -math.inf, "nan": math.nan, "tiny": 5e-324, "zero": -0.0},
    "keys": {1: "one", "1": "text", None: 0, False: 2.0, (1, "a"): [3], 2.5: {}, "": 4},
    "keys like ours": {"$tensor": "t00000", "$tuple": [1], "$dict": [[1, 2]], "$": BASE, "in": {"$tensor": BASE}},
    "one key like ours": [{"$tensor": "t00000"}, {"$tuple": (1, 2)}, {"$dict": {"$dict": 1}}, {"$other": 1}],
    "nesting": {"a": [({"b": (1, [2, (3,)])},), [[[]]]]},
    "dtypes": {
        str(dtype): torch.tensor([0, 1, 1], dtype=dtype)
        for dtype in (
            torch.float64,
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.int32,
            torch.int16,
            torch.int8,
            torch.uint8,
            torch.bool,
            torch.float8_e4m3fn,
        )
    },
    "odd floats": torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45]),
    "shapes": [
        torch.tensor(3.5),
        torch.tensor(True),
        torch.empty(0),
        torch.empty(0, 3),
        torch.empty(2, 0, 2),
        torch.ones(1, 1),
    ],
    "views": {
        "whole": BASE,
        "same": BASE,
        "turned": BASE.T,
        "part": BASE[:, 1:3],
        "step": BASE[::2],
        "spread": BASE[:1].expand(3, 4),
    },
    "parameter": {"w": torch.nn.Parameter(torch.ones(2))},
    "just a tensor": BASE,
    "just a number": 3,
}


@pytest.mark.parametrize("name", STATES)
def test_every_kind_of_state_comes_back(tmp_path, name):
    state = STATES[name]
    found = round_trip(tmp_path, state)
    if name == "parameter":
        state = {"w": torch.ones(2)}
    assert same(state, found), found


def test_random_nested_states_come_back(tmp_path):
    dice = random.Random(1)

    def anything(depth: int):
        kind = dice.choice("nfstbT" if depth == 0 else "nfstbTdDlLup")
        keys = ["a", "$tensor", "$dict", "$tuple", "", "b.c"]
        if kind in "dD":
            return {dice.choice(keys if kind == "d" else [0, 1, None, ("x", 2)]): anything(depth - 1) for _ in range(3)}
        if kind in "lLup":
            values = [anything(depth - 1) for _ in range(dice.randrange(4))]
            return values if kind in "lL" else tuple(values)
        return {
            "n": dice.randrange(-9, 9),
            "f": dice.random(),
            "s": dice.choice(keys),
            "b": None,
            "t": True,
            "T": torch.randn(dice.randrange(3), 2),
        }[kind]

    state = {str(i): anything(4) for i in range(300)}
    assert same(state, round_trip(tmp_path, state))


@pytest.mark.parametrize("thing", [object(), {1, 2}, b"bytes", numpy.float32(1), numpy.zeros(2), 1j])
def test_what_cannot_be_saved_is_refused_at_once(tmp_path, thing):
    points = Checkpoints(tmp_path)
    with pytest.raises(StateError, match=type(thing).__name__):
        points.save(1, {"thing": [thing]})
    assert names(tmp_path) == []


def test_what_is_taken_does_not_change_with_the_state():
    state = {"w": torch.zeros(3), "history": [1]}
    nesting, tensors = tensor_file.take(state)
    state["w"] += 1
    state["history"].append(2)
    written = b"".join(tensor_file.chunks(nesting, tensors))
    assert same(tensor_file.parse(written), {"w": torch.zeros(3), "history": [1]})


def test_safetensors_reads_the_file_and_every_tensor_lies_at_a_multiple_of_its_size():
    state = {"flag": torch.tensor([True]), "half": torch.ones(3, dtype=torch.float16), "whole": BASE.double().T}
    nesting, tensors = tensor_file.take(state)
    written = b"".join(tensor_file.chunks(nesting, tensors))
    assert int.from_bytes(written[:8], "little") % 8 == 0
    found = load(written)
    assert all(same(found[nesting[name]["$tensor"]], tensor) for name, tensor in state.items()) and len(found) == 3
