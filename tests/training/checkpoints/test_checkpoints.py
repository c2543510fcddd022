"""Tests of training.checkpoints.checkpoints: every state comes back; no cut, flip or full disk is loaded or hidden."""

from __future__ import annotations

import errno
import json
import math
import random
import shutil
import threading
import time

import numpy
import pytest
import torch

from colabkit.core.errors import StateError
from colabkit.runs.medium import Medium
from colabkit.training.checkpoints import generation, tensor_file
from colabkit.training.checkpoints.checkpoints import Checkpoints, random_state, restore, set_random_state
from colabkit.training.checkpoints.generation import COMMIT, STATE


def names(folder):
    return sorted(generation.step_of(path.name) for path in folder.glob("generation-*"))


def place(folder, step):
    (found,) = folder.glob(f"generation-{step:09d}-*")
    return found


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and torch.equal(a.contiguous().flatten().view(torch.uint8), b.contiguous().flatten().view(torch.uint8))
        )
    if isinstance(a, dict):
        return (
            type(b) is dict
            and [*a] == [*b]
            and all(type(k) is type(m) for k, m in zip(a, b, strict=True))
            and all(same(a[k], b[k]) for k in a)
        )
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def round_trip(folder, state):
    Checkpoints(folder, say=pytest.fail).save(7, state, wait=True)
    step, found = Checkpoints(folder, say=pytest.fail).load_latest()
    assert step == 7
    return found


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


def test_an_optimizer_with_schedule_goes_on_the_same(tmp_path):
    def parts():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9), amsgrad=True)
        return {"model": model, "optimizer": optimizer, "schedule": torch.optim.lr_scheduler.StepLR(optimizer, 2)}

    def steps(parts, num):
        for _ in range(num):
            parts["optimizer"].zero_grad()
            parts["model"](torch.randn(8, 3)).square().mean().backward()
            parts["optimizer"].step()
            parts["schedule"].step()

    ours = parts()
    steps(ours, 3)
    saved = {name: part.state_dict() for name, part in ours.items()} | {"random": random_state()}
    found = round_trip(tmp_path, saved)
    steps(ours, 3)
    theirs = parts()
    restore(theirs, found)
    set_random_state(found["random"])
    steps(theirs, 3)
    assert same(dict(ours["model"].state_dict()), dict(theirs["model"].state_dict()))
    assert ours["schedule"].get_last_lr() == theirs["schedule"].get_last_lr()


def test_random_generators_go_on_with_the_same_numbers(tmp_path):
    for seed in (random.seed, numpy.random.seed, torch.manual_seed):
        seed(3)
    random.gauss(0, 1), numpy.random.standard_normal(3), torch.randn(3)  # half a Gaussian pair is state too
    found = round_trip(tmp_path, random_state())

    def numbers():
        return [
            random.gauss(0, 1),
            random.random(),
            numpy.random.standard_normal(4).tolist(),
            numpy.random.rand(700).tolist(),
            torch.randn(5).tolist(),
            torch.randperm(9).tolist(),
        ]

    expected = numbers()
    random.seed(9), numpy.random.seed(9), torch.manual_seed(9)
    assert numbers() != expected
    set_random_state(found)
    assert numbers() == expected


def test_restore_refuses_a_missing_part():
    with pytest.raises(StateError, match="scaler") as caught:
        restore({"scaler": None, "model": None}, {"model": {}})
    assert "--redo" in caught.value.fix


@pytest.mark.parametrize("thing", [object(), {1, 2}, b"bytes", numpy.float32(1), numpy.zeros(2), 1j])
def test_what_cannot_be_saved_is_refused_at_once(tmp_path, thing):
    points = Checkpoints(tmp_path)
    with pytest.raises(StateError, match=type(thing).__name__):
        points.save(1, {"thing": [thing]})
    assert names(tmp_path) == []


def test_the_state_is_taken_when_save_is_called(tmp_path, monkeypatch):
    go = threading.Event()
    write = generation.write
    monkeypatch.setattr(generation, "write", lambda *args, **how: (go.wait(10), write(*args, **how))[1])
    points, weights, history = Checkpoints(tmp_path), torch.zeros(3), [1]
    points.save(1, {"w": weights, "history": history})
    weights += 1
    history.append(2)
    go.set()
    points.wait()
    assert same(points.load_latest()[1], {"w": torch.zeros(3), "history": [1]})


# Cut off, flipped, gone


@pytest.fixture
def two(tmp_path):
    """Two whole generations, 1 and 2, the second best."""
    points = Checkpoints(tmp_path / "two", say=lambda line: None)
    points.save(1, {"w": torch.tensor([1.0]), "n": 1}, best=True, wait=True)
    points.save(2, {"w": torch.tensor([2.0]), "n": 2}, best=True, wait=True)
    return tmp_path / "two"


def loaded(folder):
    said = []
    points = Checkpoints(folder, say=said.append)
    found = points.load_latest()
    best = points.load_best()
    return found and found[0], best and best[0], said


@pytest.mark.parametrize("name", [STATE, COMMIT])
def test_a_generation_cut_off_at_any_byte_is_passed_over(two, name):
    path = place(two, 2) / name
    whole = path.read_bytes()
    assert loaded(two) == (2, 2, [])
    for length in range(len(whole) - (name == COMMIT)):  # its last byte is a newline that nobody misses
        path.write_bytes(whole[:length])
        latest, best, said = loaded(two)
        assert (latest, best) == (1, 1), length
        assert "generation-000000002" in said[0] and "passed over" in said[0]
    path.unlink()
    assert loaded(two)[:2] == (1, 1)


@pytest.mark.parametrize("name", [STATE, COMMIT])
def test_a_flipped_bit_anywhere_is_found(two, name):
    path = place(two, 2) / name
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (0, 5, 7):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
            latest = Checkpoints(two, say=lambda line: None).load_latest()
            if name == COMMIT and latest[0] == 2:  # white space between two words of JSON
                assert json.loads(path.read_bytes()) == json.loads(whole)
            else:
                assert latest[0] == 1, (position, bit)


@pytest.mark.parametrize("manifest", ["null", "[]", "{}", "3", '"x"', '{"step": 2, "files": {}}', "{" * 5000, "\xff"])
def test_a_manifest_of_another_kind_is_passed_over(two, manifest):
    (place(two, 2) / COMMIT).write_text(manifest)
    assert loaded(two)[:2] == (1, 1)


def test_strangers_among_the_generations_do_no_harm(two):
    (two / "generation-zzz").mkdir()
    (two / "generation-999999999").write_text("a file")
    shutil.copytree(place(two, 1), two / "generation-000000001-abc (1)")
    assert loaded(two)[0] == 2


def test_a_disk_that_does_not_answer_is_passed_over(two, monkeypatch):
    read, broken = Medium.read, place(two, 2) / STATE

    def failing(medium, path):
        if path == broken:
            raise OSError(errno.EIO, "Input/output error")
        return read(medium, path)

    monkeypatch.setattr(Medium, "read", failing)
    assert loaded(two)[0] == 1


def test_nothing_there_is_none(tmp_path):
    assert loaded(tmp_path / "never") == (None, None, [])


def test_a_broken_generation_is_written_anew_and_counts_for_nothing(two):
    (place(two, 2) / STATE).write_text("{}")
    points = Checkpoints(two, say=lambda line: None)
    assert points.load_latest()[0] == 1
    points.save(2, {"w": torch.tensor([5.0])}, wait=True)
    assert loaded(two)[0] == 2 and names(two) == [1, 2]


def test_a_broken_generation_is_written_anew_without_having_been_loaded(two):
    (place(two, 2) / STATE).write_text("{}")
    Checkpoints(two).save(2, {"w": torch.tensor([5.0])}, wait=True)
    assert loaded(two)[0] == 2 and Checkpoints(two).load_latest()[1]["w"].item() == 5.0 and names(two) == [1, 2]


def test_rotation_does_not_count_the_broken_and_removes_them_when_past(two):
    (place(two, 2) / STATE).write_text("{}")
    (two / "generation-000000003").mkdir()  # cut off before its manifest
    points = Checkpoints(two, say=lambda line: None)
    points.load_latest()
    points.save(4, {}, wait=True)
    assert names(two) == [1, 4], "the last two whole ones"


# Saving


def test_rotation_keeps_the_last_two_and_the_best(tmp_path):
    points = Checkpoints(tmp_path)
    for step in range(1, 8):
        points.save(step, {"step": step}, best=step in (1, 3), wait=True)
        assert names(tmp_path) == sorted({max(step - 1, 1), step, 1 if step < 3 else 3})
    assert points.load_latest() == (7, {"step": 7}) and points.load_best() == (3, {"step": 3})


def test_rotation_never_removes_what_was_just_written(tmp_path):
    for step in (50, 60, 70):
        Checkpoints(tmp_path).save(step, {}, wait=True)
    Checkpoints(tmp_path).save(5, {}, wait=True)
    assert 5 in names(tmp_path) and 70 in names(tmp_path)


def test_the_same_step_twice_is_one_generation_and_may_become_the_best(tmp_path):
    points = Checkpoints(tmp_path)
    points.save(3, {"n": 1}, wait=True)
    assert points.load_best() is None
    points.save(3, {"n": 1}, best=True, wait=True)
    points.save(3, {"n": 1}, wait=True)
    assert points.load_best() == (3, {"n": 1}) and names(tmp_path) == [3]


def test_save_waits_for_the_write_in_flight(tmp_path, monkeypatch):
    writing, most = [], []
    write = generation.write

    def slow(*args, **how):
        writing.append(1)
        most.append(len(writing))
        time.sleep(0.05)
        about = write(*args, **how)
        writing.pop()
        return about

    monkeypatch.setattr(generation, "write", slow)
    points = Checkpoints(tmp_path)
    for step in range(4):
        points.save(step, {"step": step})
    points.wait()
    assert most == [1] * 4 and names(tmp_path) == [2, 3]


def test_another_loop_waits_for_the_write_of_an_interrupted_one(tmp_path, monkeypatch):
    write = generation.write
    monkeypatch.setattr(generation, "write", lambda *args, **how: (time.sleep(0.2), write(*args, **how))[1])
    Checkpoints(tmp_path).save(4, {"n": 4})
    assert Checkpoints(tmp_path, say=pytest.fail).load_latest() == (4, {"n": 4})


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("name", [STATE, COMMIT])
@pytest.mark.parametrize("later", ["save", "wait"])
def test_a_disk_fault_in_the_background_is_told_and_older_generations_still_load(two, monkeypatch, code, name, later):
    write = Medium.write

    def full(medium, path, chunks):
        if name in path.name:
            raise OSError(code, "no")
        return write(medium, path, chunks)

    monkeypatch.setattr(Medium, "write", full)
    points = Checkpoints(two, say=lambda line: None)
    points.save(3, {"n": 3})
    with pytest.raises(StateError) as caught:
        points.save(4, {"n": 4}) if later == "save" else points.wait()
    assert caught.value.errno == code and caught.value.fix
    assert loaded(two)[:2] == (2, 2)
    monkeypatch.undo()
    points.save(4, {"n": 4}, wait=True)
    assert loaded(two)[0] == 4 and 3 not in names(two)


def test_any_other_fault_in_the_background_is_told_too(tmp_path, monkeypatch):
    def broken(*args, **how):
        raise MemoryError("too big")

    monkeypatch.setattr(generation, "write", broken)
    points = Checkpoints(tmp_path)
    points.save(1, {})
    with pytest.raises(MemoryError):
        points.wait()
    points.wait()  # told once


def test_a_kill_before_any_file_operation_leaves_a_whole_generation(tmp_path, killer, no_fsync):
    num_kills = 0
    while True:
        folder = tmp_path / str(num_kills)
        for step in (1, 2):
            Checkpoints(folder).save(step, {"n": step}, best=step == 1, wait=True)
        points = Checkpoints(folder, say=lambda line: None)
        with killer(folder, num_kills) as record:
            for step in (3, 4):
                pieces = tensor_file.chunks(*tensor_file.take({"n": step, "t": torch.ones(2)}))
                points._write_new(points.medium, folder, pieces, step=step, best=step == 4, identity="")
        latest, best, _ = loaded(folder)
        assert latest in (2, 3, 4) and best in (1, 4), num_kills
        if not record["dead"]:
            break
        points = Checkpoints(folder, say=lambda line: None)
        points.load_latest()
        for step in (3, 4, 5):
            points.save(step, {"n": step}, best=step == 4, wait=True)
        assert names(folder) == [4, 5] and loaded(folder)[:2] == (5, 4)
        num_kills += 1
    assert num_kills > 15 and (latest, best) == (4, 4)
