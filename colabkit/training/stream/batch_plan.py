"""Batches of samples: batch k of an epoch is a pure function of (seed, epoch, k), with or without durations.

SampleOrder: so many samples. GroupedOrder: so many samples, of similar length. BatchPlan: as many as a budget of padded
length allows. `length_order` is what trains on samples of unequal length, by one or the other.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass

import numpy as np

from colabkit.core.config import digest
from colabkit.core.errors import UsageError
from colabkit.core.permutation import permute

_NUM_STEPS = 512  # places between which bucket edges are chosen
# To train by: the wider a window, the fewer of its batches hold a tail of very unequal lengths. Of buckets of fewer
# batches many would be half empty.
TRAINED_WINDOW_BATCHES = 128
MOST_BUCKETS, BUCKET_BATCHES = 30, 4


class SampleOrder:
    """Every sample once an epoch in a shuffled order, `batch_samples` at a time, the last batch what is left."""

    def __init__(self, num_samples: int, *, seed: int, batch_samples: int = 1, shuffle: bool = True):
        if num_samples < 1 or batch_samples < 1:
            raise UsageError(
                "Cannot order samples",
                got=f"{num_samples} samples, batches of {batch_samples}",
                expected="at least one of each",
                fix="choose a source that holds samples",
            )
        self.num_samples, self.seed, self.batch_samples, self.shuffle = num_samples, seed, batch_samples, shuffle

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-self.num_samples // self.batch_samples)

    def batch(self, epoch: int, k: int) -> np.ndarray:
        """Return the sample numbers of batch k. Shape: (sample,) int64."""
        _require_batch(k, len(self))
        positions = np.arange(k * self.batch_samples, min((k + 1) * self.batch_samples, self.num_samples))
        return permute(positions, self.num_samples, self.seed, epoch) if self.shuffle else positions

    def identity(self) -> str:
        return digest(["samples", self.num_samples, self.seed, self.batch_samples, self.shuffle])


class GroupedOrder:
    """Exactly `batch_samples` samples a batch, of like length; every sample once an epoch, only its last batch smaller.

    An epoch shuffles all samples, cuts them into windows of `window_batches` batches, sorts each window by length, cuts
    that into batches and shuffles these. Batch k needs one window to be computed. A window holds a quarter of all
    samples at most: sorting all of them would make the same batches in every epoch.
    """

    def __init__(self, seconds: np.ndarray, batch_samples: int, *, seed: int, window_batches: int = 16):
        self.seconds = np.asarray(seconds, np.float64)
        if self.seconds.ndim != 1 or not len(self.seconds) or batch_samples < 1 or not np.isfinite(self.seconds).all():
            raise UsageError(
                "Cannot order samples",
                got=f"{self.seconds.size} durations, batches of {batch_samples}",
                expected="at least one of each, finite",
                fix="choose a source that holds samples",
            )
        self.batch_samples, self.seed = batch_samples, seed
        self.window_batches = int(np.clip(len(self) // 4, 1, window_batches))

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.seconds) // self.batch_samples)

    def batch(self, epoch: int, k: int) -> np.ndarray:
        """Return the sample numbers of batch k, shortest first. Shape: (sample,) int64."""
        _require_batch(k, len(self))
        size, first = self.batch_samples, k // self.window_batches * self.window_batches
        num_batches, num_samples = min(self.window_batches, len(self) - first), len(self.seconds)
        window = permute(
            np.arange(first * size, min((first + num_batches) * size, num_samples)), num_samples, self.seed, epoch
        )
        window = window[np.argsort(self.seconds[window], kind="stable")]
        place, left_over = k - first, len(window) % size
        if not left_over:
            start = size * int(permute(place, num_batches, self.seed, epoch, first, -1))
            return window[start : start + size]
        # The small batch comes last, and is of any length.
        small = int(permute(0, num_batches, self.seed, epoch, first, -2))
        if place == num_batches - 1:
            return window[small * size : small * size + left_over]
        start = size * int(permute(place, num_batches - 1, self.seed, epoch, first, -1))
        start += left_over if start >= small * size else 0
        return window[start : start + size]

    def identity(self) -> str:
        lengths = hashlib.sha256(self.seconds.tobytes()).hexdigest()
        return digest(["grouped", self.batch_samples, self.seed, self.window_batches, lengths])


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one batch may hold: B samples padded to T seconds fit when B * T <= padded_seconds, B <= max_samples and

        base_bytes + B * T * bytes_per_second + B * T**2 * bytes_per_second_squared <= memory_bytes

    The last term is self-attention's; a limit that is None does not count.
    """

    padded_seconds: float
    max_samples: int | None = None
    memory_bytes: float | None = None
    base_bytes: float = 0.0
    bytes_per_second: float = 0.0
    bytes_per_second_squared: float = 0.0

    def capacity(self, seconds: float) -> int:
        """Return how many samples of this length fit into a batch; zero when not even one does."""
        limits = [self.padded_seconds / seconds]
        if self.max_samples is not None:
            limits.append(self.max_samples)
        if self.memory_bytes is not None:
            each = seconds * self.bytes_per_second + seconds**2 * self.bytes_per_second_squared
            limits.append((self.memory_bytes - self.base_bytes) / each if each else np.inf)
        return int(max(0, min(limits) + 1e-9))


class BatchPlan:
    """Batches of samples of similar length, each as full as the budget allows; every sample once an epoch.

    Samples are sorted into `num_buckets` buckets, with edges that make the padding smallest. An epoch shuffles each
    bucket, cuts it into windows of `window_batches` batches, sorts each window by length and cuts that into batches: so
    a batch is a random choice of its bucket with little padding. Then all batches are shuffled. Batch k needs one
    window to be computed. A window holds a quarter of its bucket at most: sorting all of it would make the same batches
    in every epoch.
    """

    def __init__(
        self, seconds: np.ndarray, budget: Budget, *, seed: int, num_buckets: int = 30, window_batches: int = 8
    ):
        seconds = np.asarray(seconds, np.float64)
        _require_fitting(seconds, budget)
        self.budget, self.seed, self.num_buckets, self.window_batches = budget, seed, num_buckets, window_batches
        self.by_length = np.argsort(seconds, kind="stable")
        self.sorted_seconds = seconds[self.by_length]
        self.starts = bucket_starts(self.sorted_seconds, num_buckets)  # of each bucket among the sorted, and the end
        self.capacities = np.array([budget.capacity(self.sorted_seconds[stop - 1]) for stop in self.starts[1:]])
        self.num_batches = -(-np.diff(self.starts) // self.capacities)
        self.windows = np.clip(self.num_batches // 4, 1, window_batches)  # batches in each bucket's windows
        self.first_batches = np.concatenate([[0], np.cumsum(self.num_batches)])

    def __len__(self) -> int:
        """Return the number of batches of an epoch; all epochs have as many."""
        return int(self.first_batches[-1])

    def batch(self, epoch: int, k: int) -> np.ndarray:
        """Return the sample numbers of batch k, shortest first. Shape: (sample,) int64."""
        _require_batch(k, len(self))
        place = int(permute(k, len(self), self.seed, epoch, -1))
        bucket = int(np.searchsorted(self.first_batches, place, side="right")) - 1
        within, num_batches = place - self.first_batches[bucket], self.num_batches[bucket]
        start, size = self.starts[bucket], self.starts[bucket + 1] - self.starts[bucket]
        first = within // self.windows[bucket] * self.windows[bucket]
        # Sizes of a bucket's batches differ by one at most: no small batch is left over at its end.
        cuts = np.arange(first, min(first + self.windows[bucket], num_batches) + 1) * size // num_batches
        window = start + permute(np.arange(cuts[0], cuts[-1]), size, self.seed, epoch, bucket)
        # By length, and not by place: samples of equal length would stand in the order of the files.
        window = window[np.argsort(self.sorted_seconds[window], kind="stable")]
        low, high = cuts[within - first] - cuts[0], cuts[within - first + 1] - cuts[0]
        return self.by_length[window[low:high]]

    def identity(self) -> str:
        # 600 and 600.0 are one budget.
        settings = [None if limit is None else float(limit) for limit in astuple(self.budget)]
        lengths = hashlib.sha256(self.sorted_seconds.tobytes() + self.by_length.tobytes()).hexdigest()
        return digest(["batches", settings, self.seed, self.num_buckets, self.window_batches, lengths])


def length_order(
    seconds: np.ndarray, *, effective_batch: int | None = None, effective_seconds: float | None = None, seed: int
) -> GroupedOrder | BatchPlan:
    """Return the batches of optimizer steps: of exactly `effective_batch` samples, or of `effective_seconds` of audio.

    Audio counts as padded to the longest of its step, as lhotse's and NeMo's users count it, and is never more. What
    goes through a device at once is cut from a step by length (sizing.partition.cut), which pads less than the whole.
    Raises: UsageError where not exactly one of the two is given, or one sample is longer than `effective_seconds`.
    """
    require_one_way(effective_batch, effective_seconds)
    if effective_seconds is None:
        return GroupedOrder(seconds, effective_batch, seed=seed, window_batches=TRAINED_WINDOW_BATCHES)
    num_buckets = int(np.clip(np.sum(seconds) / effective_seconds / BUCKET_BATCHES, 1, MOST_BUCKETS))
    return BatchPlan(
        seconds,
        Budget(padded_seconds=effective_seconds),
        seed=seed,
        num_buckets=num_buckets,
        window_batches=TRAINED_WINDOW_BATCHES,
    )


def require_one_way(effective_batch: int | None, effective_seconds: float | None) -> None:
    """Raise UsageError where an optimizer step is said in samples and in seconds, or in neither."""
    if (effective_batch is None) == (effective_seconds is None):
        raise UsageError(
            "An optimizer step is said in one way",
            where="train",
            expected="a number of samples or of seconds",
            got=f"effective_batch={effective_batch} and effective_seconds={effective_seconds}",
            fix="set train.effective_batch or train.effective_seconds, and the other to none",
        )


def bucket_starts(sorted_seconds: np.ndarray, num_buckets: int) -> np.ndarray:
    """Return where each bucket starts, and the end, so that padding every sample to its bucket's longest costs least.

    Dynamic programming over at most 512 candidate edges; buckets without a sample are left out.
    """
    num_samples = len(sorted_seconds)
    edges = np.unique(np.linspace(0, num_samples, min(_NUM_STEPS, num_samples) + 1).astype(np.int64))
    lower, upper = edges[:-1, None], edges[None, 1:]
    cost = np.where(upper > lower, (upper - lower) * sorted_seconds[edges[1:] - 1][None, :], np.inf)
    best, choices = cost[0].copy(), []  # best[j]: the first j + 1 pieces in the buckets so far
    for _ in range(min(num_buckets, len(edges) - 1) - 1):
        options = np.concatenate([[np.inf], best[:-1]])[:, None] + cost
        choice = np.argmin(options, axis=0)
        better = np.take_along_axis(options, choice[None], axis=0)[0]
        choices.append(np.where(better < best, choice, -1))
        best = np.minimum(best, better)
    stops, j = [len(edges) - 1], len(edges) - 2
    for choice in reversed(choices):
        if choice[j] >= 0:
            stops.append(int(choice[j]))
            j = int(choice[j]) - 1
    return edges[[0, *sorted(stops)]]


def _require_fitting(seconds: np.ndarray, budget: Budget) -> None:
    if seconds.ndim != 1 or not len(seconds) or not np.isfinite(seconds).all() or seconds.min() <= 0:
        raise UsageError(
            "Cannot plan batches",
            got=f"{seconds.size} durations",
            expected="at least one, all above 0 seconds",
            fix="leave samples of unknown length out of the index",
        )
    longest = float(seconds.max())
    if budget.capacity(longest) < 1:
        too_long = sum(budget.capacity(s) < 1 for s in np.unique(seconds))
        raise UsageError(
            "A sample is too long for a batch",
            got=f"{longest:.1f} s ({too_long} lengths are too long)",
            expected=f"within {budget}",
            where="budget",
            fix=f"raise padded_seconds to {longest:.0f} or the memory limit, or leave long samples out",
        )


def _require_batch(k: int, num_batches: int) -> None:
    if not 0 <= k < num_batches:
        raise IndexError(f"batch {k} of an epoch of {num_batches}")
