"""Tests of training.checkpoints.checkpoints: every state comes back; no cut, flip or full disk is loaded or hidden."""

from __future__ import annotations

import errno
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
from tests.training.checkpoints.generations import loaded, names, place, round_trip, same


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
