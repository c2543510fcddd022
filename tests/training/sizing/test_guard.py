"""Memory that runs out: the same samples again, on all ranks, none lost or repeated, and nothing left behind."""

from __future__ import annotations

import gc
import json
import random
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from colabkit.core.errors import DataError
from colabkit.training.processes.ranks import Ranks
from colabkit.training.sizing.guard import Guard
from colabkit.training.sizing.partition import bucket_of
from tests.told import Told
from tests.training.processes.gloo_processes import Processes
from tests.training.sizing import guard_trials
from tests.training.sizing.guard_trials import Network, Samples, Trial, carry_out, num_units, pad, summed_loss, targets

OOM = "CUDA out of memory. Tried to allocate 20.00 GiB"


@pytest.fixture
def talk():
    return Told()


@pytest.fixture
def make_guard(talk):
    """Return a maker of guards of one process; capacity as a number or a function."""

    def make(capacity, **how):
        return Guard(capacity if callable(capacity) else lambda seconds: capacity, ranks=Ranks(), teller=talk, **how)

    return make


class Device:
    """A device that holds so many seconds of padded sound; `parts` are those that went through since the last reset."""

    def __init__(self, seconds, room_seconds):
        self.seconds, self.room_seconds, self.parts, self.tried, self.resets = seconds, room_seconds, [], [], 0

    def work(self, part):
        self.tried.append(len(part))
        if len(part) * max(self.seconds[i] for i in part) > self.room_seconds:
            raise torch.OutOfMemoryError(OOM)
        self.parts.append(part)

    def reset(self):
        self.parts, self.resets = [], self.resets + 1


# --- one process ---


def test_a_step_that_fits_is_done_once_and_draws_nothing(make_guard, talk):
    device, before = Device([3.0, 1.0, 2.0], 100), torch.get_rng_state()
    make_guard(2).step(device.seconds, device.work, device.reset)
    assert device.parts == [[0], [2, 1]] and device.resets == 0 and talk.choices == []
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_samples_are_done_again_in_smaller_parts(make_guard, talk):
    device = Device([5.0] * 12, 20)
    guard = make_guard(12)
    guard.step(device.seconds, device.work, device.reset)
    assert sorted(i for part in device.parts for i in part) == list(range(12))
    assert max(map(len, device.parts)) <= 4 and device.tried[:3] == [12, 6, 4] and guard.limit(5.0) == 4
    assert [value for _, value, _ in talk.choices] == [9, 4] and "12 of 5 s" in talk.choices[0][2]
    assert guard.events == {"out_of_memory": 2}
    device.tried.clear()
    guard.step(device.seconds, device.work, device.reset)
    assert device.tried == [4, 4, 4], "it is learnt"


def test_longer_samples_are_fewer_from_then_on_and_shorter_ones_stay(make_guard):
    device, guard = Device([10.0] * 8, 30), make_guard(8)
    guard.step(device.seconds, device.work, device.reset)
    assert (
        guard.limit(10.0) == guard.limit(11.0) == guard.limit(25.0) == 3 and guard.limit(8.0) == guard.limit(1.0) == 8
    )


def test_what_was_learnt_is_a_small_json_of_one_device(make_guard, talk):
    guard = make_guard(8, device="T4")
    device = Device([10.0] * 8, 30)
    guard.step(device.seconds, device.work, device.reset)
    state = json.loads(json.dumps(guard.state()))
    again, other = make_guard(8, device="T4"), make_guard(8, device="A100")
    again.load_state(state)
    other.load_state(state)
    other.load_state({})
    assert again.limits == guard.limits and again.limit(12.0) == 3
    assert other.limits == {} and any("T4" in line for line in talk.said)


def test_random_generators_and_buffers_are_put_back(make_guard):
    model, drawn = nn.BatchNorm1d(2), []
    guard, wave = make_guard(2, buffers_of=[model]), torch.randn(4, 2, 5)
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)

    def work(part):
        model(wave[part])
        drawn.append((random.random(), float(np.random.random()), float(torch.rand(()))))
        if len(drawn) == 2:
            raise torch.OutOfMemoryError(OOM)

    guard.step([1.0] * 4, work, lambda: None)
    assert drawn[0] == drawn[2] and drawn[1] == drawn[3] and len(drawn) == 6
    assert int(model.num_batches_tracked) == 4, "four parts of one; not those of the first try"


def test_a_failed_graph_is_let_go_before_it_is_tried_again(make_guard):
    """The error's traceback holds frames, the frames activations: they must be gone, or the next try fails, too."""
    graphs, alive = [], []

    def deep(activation, num_samples):
        if num_samples == 4:
            raise torch.OutOfMemoryError(OOM)

    def work(part):
        gc.disable()
        alive.append([ref() is not None for ref in graphs])
        weight = torch.ones(3, requires_grad=True)
        activation = weight * 2
        graphs.append(weakref.ref(activation))
        try:
            deep(activation, len(part))
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(OOM) from error  # as libraries do

    make_guard(4).step([1.0] * 4, work, lambda: None)
    gc.enable()
    assert alive == [[], [False], [False, False]]


def test_a_sample_that_does_not_fit_alone_is_an_error_with_advice(make_guard, talk):
    device = Device([5.0, 90.0], 20)
    with pytest.raises(DataError) as caught:
        make_guard(4).step(device.seconds, device.work, device.reset)
    told = ("90 s", "20.00 GiB", "checkpointing", "8-bit", "freezing", "GPU")
    assert all(words in str(caught.value) for words in told), str(caught.value)
    assert device.tried.count(1) == 2, "it was tried once more after a clean-up"
    guard = make_guard(4, advice=lambda seconds: [f"pieces of {seconds / 6:.0f} s: 3.1 GiB"])
    with pytest.raises(DataError) as caught:
        guard.step(device.seconds, device.work, device.reset)
    assert "pieces of 15 s: 3.1 GiB" in caught.value.fix


def test_memory_that_was_short_for_a_moment_costs_a_single_sample_nothing(make_guard):
    calls = []

    def work(part):
        calls.append(part)
        if len(calls) == 1:
            raise torch.OutOfMemoryError(OOM)

    make_guard(1).step([5.0, 4.0], work, lambda: None)
    assert calls == [[0], [0], [1]]


def test_other_errors_are_not_taken_for_it(make_guard):
    for error in (
        RuntimeError("shapes do not match"),
        MemoryError("CUDA out of memory"),
        ValueError("CUDA out of memory"),
        KeyboardInterrupt(),
    ):

        def work(part, error=error):
            raise error

        with pytest.raises(type(error)):
            make_guard(4).step([1.0] * 4, work, lambda: pytest.fail("reset"))


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        (
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 8 bytes"
        ),
        (
            "[enforce fail at alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: "
            "you tried to allocate 8 bytes."
        ),
    ],
)
def test_it_is_known_in_disguise(make_guard, text):
    calls = []

    def work(part):
        calls.append(len(part))
        if len(part) > 1:
            raise RuntimeError(text)

    make_guard(2).step([1.0, 1.0], work, lambda: None)
    assert calls == [2, 1, 1]


class Retrying:
    """A watch whose allocator had to start over in some parts."""

    def __init__(self):
        self.num_retries = self.looks = 0

    def retries(self):
        return self.num_retries

    def look(self):
        self.looks += 1

    def describe(self):
        return "7.0 of 8.0 GiB in use"


def test_retries_of_the_allocator_make_later_steps_smaller_and_redo_nothing(make_guard, talk):
    watch, calls = Retrying(), []
    guard = make_guard(8, watch=watch)

    def work(part):
        calls.append(len(part))
        watch.num_retries += len(part) > 4

    for _ in range(3):
        guard.step([2.0] * 8, work, lambda: pytest.fail("reset"))
    assert calls == [8, 4, 4, 4, 4] and guard.events == {"tight": 1} and "start over" in talk.choices[0][2]
    assert watch.looks == 3


# --- gradients ---


@pytest.mark.parametrize("kind", ["ctc", "frame"])
def test_gradients_of_uneven_parts_of_ragged_samples_are_those_of_the_whole(make_guard, kind):
    samples = Samples(5, ragged=True)
    torch.manual_seed(0)
    network, numbers = Network(0.0, has_norm=False), list(range(24))
    units, sizes = num_units(kind, samples, numbers), []

    def gradients(capacity):
        network.zero_grad(set_to_none=True)
        sizes.clear()

        def work(part):
            sizes.append(len(part))
            chosen = [numbers[i] for i in part]
            log_probs, marks = network(pad(samples, chosen), chosen)
            (summed_loss(kind, log_probs, targets(kind, samples, chosen)) / units + marks).backward()

        make_guard(capacity).step([samples.seconds[i] for i in numbers], work, lambda: None)
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    whole = gradients(24)
    assert sizes == [24]
    for capacity in (lambda seconds: int(45 / seconds), 7, 1):
        parts = gradients(capacity)
        assert len(sizes) > 3 and (capacity == 1 or len(set(sizes)) > 1)
        assert float((parts - whole).norm() / whole.norm()) < 1e-6
    naive = gradients_of_mean_losses(network, samples, numbers, kind)
    assert float((naive - whole).norm() / whole.norm()) > 1e-2, "which the mean of the parts' means is not"


def gradients_of_mean_losses(network, samples, numbers, kind):
    network.zero_grad(set_to_none=True)
    for part in (numbers[:3], numbers[3:11], numbers[11:]):
        log_probs, _ = network(pad(samples, part), part)
        (summed_loss(kind, log_probs, targets(kind, samples, part)) / num_units(kind, samples, part) / 3).backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    gradients[[n for n, _ in network.named_parameters()].index("marks_N")] = torch.ones(guard_trials.NUM_SAMPLES)
    return torch.cat([g.flatten() for g in gradients])


# --- several processes ---


@pytest.fixture(scope="module")
def two():
    """Return two processes that carry out functions together."""
    with Processes() as processes:
        yield processes


@pytest.mark.parametrize("kind", ["ctc", "norm"])
def test_one_rank_after_another_runs_out_of_memory(two, kind):
    """Anywhere in forward or backward: no hang, no sample lost or repeated, and the weights are those without it."""
    trial = Trial(kind=kind, num_steps=13)
    first, second = two.call(carry_out, trial)
    assert first.counts["injected"] == 12 and sum((first.places + second.places).values()) == 12
    assert all((first.places + second.places)[phase] for phase in ("forward", "backward"))
    assert first.counts["out_of_memory"] == second.counts["out_of_memory"] == 12
    for told in (first, second):
        assert (told.counts["lost"], told.counts["repeated"], told.counts["samples"]) == (0, 0, 13 * 16)
    assert first.limits == second.limits and first.digest() == second.digest()
    again, _ = two.call(carry_out, replace(trial, has_faults=False, limits=tuple(first.limits)))
    assert again.counts["out_of_memory"] == 0
    assert again.digest() == first.digest(), "dropout and running means included, bit for bit"
    assert again.counts["random"] == first.counts["random"] and again.losses == first.losses


def hopeless(ranks):
    guard = Guard(lambda seconds: 2, ranks=ranks, teller=Told())
    device = Device([5.0, 90.0] if ranks.rank else [5.0, 6.0], 20)
    guard.step(device.seconds, device.work, device.reset)


def test_a_sample_that_does_not_fit_is_an_error_on_all_ranks(two):
    errors = two.call(hopeless)
    assert all(
        isinstance(error, DataError) and "90 s" in str(error) and "in process 1" in str(error) for error in errors
    )


def uneven(ranks):
    """Return the sizes of the parts of a rank with more samples, or with none; one part of rank 1 does not fit."""
    device = Device([5.0] * (9 * ranks.rank), 20)
    guard = Guard(lambda seconds: 5, ranks=ranks, teller=Told())
    guard.step(device.seconds, device.work, device.reset)
    return device.parts, guard.limits, device.resets


def test_ranks_may_have_different_numbers_of_parts(two):
    (none, limits, resets), (parts, same, _) = two.call(uneven)
    assert none == [] and resets == 1 and limits == same == {bucket_of(5.0): 3}
    assert [i for part in parts for i in part] == list(range(9)) and max(map(len, parts)) == 3


def test_two_processes_add_up_to_one(two):
    """The same steps, undisturbed, in one process."""
    trial = Trial(kind="frame", num_steps=4, dropout=0.0, has_faults=False)
    first, _ = two.call(carry_out, trial)
    torch.manual_seed(0)
    network, samples = Network(0.0, has_norm=False), Samples(0, ragged=True)
    optimizer = torch.optim.AdamW(network.body.parameters(), lr=1e-2)
    for step in range(4):
        batch = samples.batch(step)
        loss = summed_loss("frame", network(pad(samples, batch), batch)[0], targets("frame", samples, batch))
        (loss / num_units("frame", samples, batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, tensor in network.body.state_dict().items():
        torch.testing.assert_close(torch.from_numpy(first.weights[name]), tensor, rtol=1e-4, atol=1e-5)


def test_a_rank_with_less_memory_than_expected_is_found_out(two):
    """An emulated device that counts what tensors hold: nothing is injected, and what failed must really be let go."""
    first, second = two.call(carry_out, Trial(kind="frame", num_steps=10, has_faults=False, budget_bytes=70 << 10))
    assert first.counts["out_of_memory"] == second.counts["out_of_memory"] > 2
    assert [(told.counts["lost"], told.counts["repeated"]) for told in (first, second)] == [(0, 0), (0, 0)]
    assert first.digest() == second.digest()
