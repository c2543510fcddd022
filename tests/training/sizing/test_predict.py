"""Predictions against whole models on fake tensors, and against real steps on a CPU."""

import dataclasses
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from colabkit.core.errors import UsageError
from colabkit.training.sizing.predict import WORKSPACE_BYTES, predict
from colabkit.training.sizing.tracing.accounting import rounded
from colabkit.training.sizing.tracing.step_trace import FakeStep
from colabkit.training.sizing.workload import Regime, Workload
from tests.training.sizing.real_steps import metered
from tests.training.sizing.workloads import vocoder, wav2vec2, wav2vec2_bert, whisper

FAMILIES = {
    "wav2vec2": (lambda: wav2vec2(7), Regime(precision="bf16")),
    "hubert": (lambda: wav2vec2(7, family="hubert", masked=False), Regime(checkpointing=True, accumulates=False)),
    "w2v-BERT": (lambda: wav2vec2_bert(6), Regime(precision="bf16", checkpointing=True)),
    "whisper": (lambda: whisper(6, num_frames=1000), Regime(precision="bf16", accumulates=False)),
    "vocoder": (vocoder, Regime(precision="bf16")),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_small_depths_and_few_sizes_tell_any_size_at_full_depth(family):
    make, regime = FAMILIES[family]
    workload = make()
    model = predict(workload, regime, shortest_seconds=1, longest_seconds=8)
    whole = FakeStep(workload, regime, None, on_gpu=True)
    for samples, seconds in ((1, 5.3), (3, 1.7), (24, 8.0), (200, 2.9)):
        peak = max(map(max, whole.run(samples, seconds).held.values())) + WORKSPACE_BYTES
        assert model.peak_bytes(samples, seconds) == pytest.approx(peak, rel=0.005)
    assert 0.0 < model.slack_fraction <= 0.15 and model.state_bytes > WORKSPACE_BYTES


@pytest.mark.parametrize(
    ("make", "regime"),
    [
        (lambda: wav2vec2(5), Regime()),
        (lambda: wav2vec2(5), Regime(precision="bf16", checkpointing=True, optimizer="adafactor")),
        (lambda: wav2vec2_bert(5), Regime(accumulates=False)),
        (lambda: whisper(5, num_frames=400), Regime(checkpointing=True)),
        (vocoder, Regime(optimizer="sgd")),
    ],
    ids=[
        "wav2vec2",
        "wav2vec2-bf16-checkpointing-adafactor",
        "w2v-BERT-one-part",
        "whisper-checkpointing",
        "vocoder-sgd",
    ],
)
def test_predicts_real_steps_on_a_cpu(make, regime):
    workload = make()
    model = predict(workload, regime, shortest_seconds=1, longest_seconds=2, on_gpu=False)
    real, between = metered(workload, regime, 3, 1.3)
    assert model.peak_bytes(3, 1.3) == pytest.approx(real, rel=0.01)
    batch = sum(rounded(tensor.nbytes) for tensor in _tensors(workload.batch(3, 1.3)))
    assert model.state_bytes == pytest.approx(between - batch, rel=0.002)


def _tensors(batch):
    return batch.values() if isinstance(batch, dict) else [batch]


def measure(workload, regime, num_samples, seconds):
    """Return the peak of every phase of one step on fake tensors at full depth, in bytes."""
    trace = FakeStep(workload, regime, None, on_gpu=True).run(num_samples, seconds)
    return {", ".join(segment): max(values) for segment, values in trace.held.items()}


def weights_of(workload):
    return [weight for weight in workload.build(None, False).parameters() if weight.requires_grad]


def test_what_the_regime_adds():
    workload = wav2vec2(3)
    trained = sum(rounded(weight.nbytes) for weight in weights_of(workload))
    all_of_it = sum(rounded(tensor.nbytes) for tensor in [*workload.build(None, False).parameters()])

    def state(**changes):
        return predict(workload, Regime(**changes), shortest_seconds=1, longest_seconds=4).state_bytes

    plain = state()
    # a block for each counter of steps
    assert plain - WORKSPACE_BYTES == pytest.approx(all_of_it + 2 * trained, rel=0.06)
    assert state(ema=True) - plain == pytest.approx(all_of_it, rel=0.001)
    assert state(optimizer="sgd") - plain == pytest.approx(-2 * trained, rel=0.15)
    assert state(optimizer="sgd") < state(optimizer="adafactor") < state(optimizer="adamw_8bit")
    assert state(checkpointing=True) == plain


def test_gradients_of_an_earlier_part_are_there():
    workload = wav2vec2(6, hidden_size=128, intermediate_size=1024)
    trained = sum(rounded(weight.nbytes) for weight in weights_of(workload))
    one, several = (measure(workload, Regime(accumulates=accumulates), 2, 2.0) for accumulates in (False, True))
    assert several["forward, start"] - one["forward, start"] == pytest.approx(trained, rel=0.02)
    assert several["optimizer step"] == one["optimizer step"]
    assert max(several.values()) > max(one.values())


def test_sums_over_processes_take_their_buffers():
    workload = wav2vec2(3)
    alone, together = (measure(workload, Regime(world=world), 2, 2.0) for world in (1, 4))
    trained = sum(rounded(weight.nbytes) for weight in weights_of(workload))
    # less than a bucket
    assert together["reduce gradients"] - together["optimizer step"] == pytest.approx(trained, rel=0.05)
    assert "reduce gradients" not in alone


def test_is_the_same_again_and_leaves_the_random_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    models = [predict(wav2vec2(3), Regime(checkpointing=True), shortest_seconds=1, longest_seconds=4) for _ in range(2)]
    assert models[0] == models[1]
    assert torch.equal(before, torch.get_rng_state())


def test_longer_and_more_never_take_less():
    model = predict(wav2vec2_bert(3), Regime(precision="fp16"), shortest_seconds=1, longest_seconds=20)
    for seconds in (1.0, 3.3, 7.0, 19.9):
        assert model.peak_bytes(3, seconds) <= model.peak_bytes(4, seconds) <= model.peak_bytes(4, seconds + 0.1)
        fits = model.capacity(seconds, 2**30)
        assert model.device_bytes(fits, seconds) <= 2**30 < model.device_bytes(fits + 1, seconds)


@pytest.mark.parametrize(
    ("shortest", "longest"), [(0.2, 0.5), (1.0, 1.0), (2, 3), (0.4, 4.9), (29.0, 30.0), (0.5, 600.0)]
)
def test_any_range_of_lengths(shortest, longest):
    workload = vocoder()
    model = predict(workload, Regime(), shortest_seconds=shortest, longest_seconds=longest)
    for seconds in {shortest, (shortest + longest) / 2, longest}:
        whole = max(measure(workload, Regime(), 8, seconds).values()) + WORKSPACE_BYTES
        assert model.peak_bytes(8, seconds) == pytest.approx(whole, rel=0.005)


def test_layers_that_are_not_whole_stacks_are_told():
    workload = dataclasses.replace(wav2vec2(6), layers=lambda model: list(model.wav2vec2.encoder.layers)[1:])
    with pytest.raises(UsageError, match="whole stacks of 3"):
        predict(workload, Regime(), shortest_seconds=1, longest_seconds=4)


class Uneven(nn.Module):
    """A stack whose last layer but one is wider the deeper it is: no depth tells another."""

    def __init__(self, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(*[nn.Linear(32, 32) for _ in range(depth if i == depth - 2 else 1)]) for i in range(depth)
        )

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x.square().mean()


def test_layers_that_differ_are_run_as_they_are():
    workload = Workload(
        name="uneven",
        identity="uneven",
        num_layers=7,
        build=lambda depth, checkpointing: Uneven(depth or 7),
        layers=lambda model: list(model.layers),
        loss=lambda model, batch: model(batch),
        batch=lambda samples, seconds: torch.zeros(samples, int(100 * seconds), 32),
    )
    model = predict(workload, Regime(), shortest_seconds=1, longest_seconds=4)
    whole = max(measure(workload, Regime(), 9, 2.0).values()) + WORKSPACE_BYTES
    assert model.peak_bytes(9, 2.0) == pytest.approx(whole, rel=0.005)


def a_billion_parameters() -> int:
    """Plan a model of 962 million parameters; return the most memory that this process had, in KiB."""
    workload = wav2vec2(
        48,
        hidden_size=1280,
        num_attention_heads=16,
        intermediate_size=5120,
        conv_dim=(512,) * 7,
        num_conv_pos_embeddings=128,
        num_conv_pos_embedding_groups=16,
    )
    model = predict(workload, Regime(precision="bf16", checkpointing=True), shortest_seconds=1, longest_seconds=20)
    assert 15e9 < model.state_bytes + 4e9 < 16.5e9  # 12 bytes each and gradients
    assert 10 <= model.capacity(20.0, 40 * 2**30) <= 200
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def test_a_billion_parameters_need_no_memory():
    # A process of its own: what earlier tests took counts in neither figure (getrusage's is inherited).
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        assert alone.submit(a_billion_parameters).result() < 1.5 * 2**20
