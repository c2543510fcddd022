"""Claim: with 5% of answers reset, 5% cut short and 2% refused (429, 503), no crash, no sample lost or repeated.

The throughput is at least 80% of the undisturbed one.

    python benchmarks/stream_faults.py [--samples 3000] [--workers 8]

A Hub-compatible server and a fault proxy run in a process of their own; colabkit streams an epoch through the proxy, by
turns with and without faults, and the numbers of the samples that arrived are audited. Sizes are those of LibriSpeech
utterances.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.table import Table  # noqa: E402
from colabkit.core.teller import Teller  # noqa: E402
from colabkit.io.samples.shards import ShardWriter, flac_bytes  # noqa: E402
from colabkit.training.stream.batch_plan import SampleOrder  # noqa: E402
from colabkit.training.stream.stream import Source, Stream  # noqa: E402

FAULTS = {"resets": 0.05, "truncations": 0.05, "refusals": 0.02}


def serve(folder: str, connection) -> None:
    """Serve the shards behind a proxy until told to end; each message switches the faults on or off."""
    from colabkit.loopback.hub import HubServer
    from tests.servers.faults import FaultProxy

    with HubServer() as hub, FaultProxy(hub.url, **FAULTS) as proxy:
        hub.add_dataset("org/speech", {f"train/{p.name}": p for p in sorted(Path(folder).glob("*.tar"))})
        connection.send(hub.environment(proxy.url))
        while (wanted := connection.recv()) is not None:
            proxy.enabled = wanted
            hub.requests.clear()
            connection.send(dict(proxy.counts))


def write_shards(folder: Path, num_samples: int) -> None:
    """Write FLAC of noise, 80 to 480 kB each, cut from one long noise: what counts is the bytes on the way."""
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal(16_000 * 60) * 0.1).astype(np.float32)
    with ShardWriter(folder, shard_bytes=128 << 20) as writer:
        for number in range(num_samples):
            start, length = rng.integers(0, 16_000 * 40), rng.integers(16_000 * 3, 16_000 * 17)
            writer.add(f"{number:06d}", flac_bytes(noise[start : start + length], 16_000), ".flac", {"speaker": "x"})


def epoch(samples, index, seed: int, workers: int) -> tuple[float, Counter]:
    """Stream one epoch; returns samples a second and how often each number came."""
    order = SampleOrder(len(index), seed=seed, batch_samples=16)
    stream = Stream([Source("speech", index.fingerprint, order)], seed=seed, epochs=1)
    seen: Counter[int] = Counter()
    began = time.perf_counter()
    with closing(
        stream.load(lambda source, number: len(samples.read_bytes(number)), workers=workers, ahead=4 * workers)
    ) as batches:
        for loaded in batches:
            seen.update(number for number, _ in loaded.samples)
            stream.acknowledge(loaded)
    return sum(seen.values()) / (time.perf_counter() - began), seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates: dict[bool, list[float]] = {False: [], True: []}
    duplicates = skips = 0
    with tempfile.TemporaryDirectory() as place:
        write_shards(Path(place) / "shards", options.samples)
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(f"{place}/shards", theirs), daemon=True
        )
        server.start()
        os.environ.update(ours.recv())
        from colabkit.io.samples import Samples
        from colabkit.io.samples.build import build_index
        from colabkit.io.samples.source import find_source

        index = build_index(find_source("hub:org/speech/train"), Path(place) / "parts", teller=Teller())
        samples = Samples(index)
        counts = []
        for number in range(options.rounds):
            for faulty in (False, True):
                ours.send(faulty)
                counts.append(ours.recv())
                rate, seen = epoch(samples, index, number, options.workers)
                rates[faulty].append(rate)
                duplicates += sum(count - 1 for count in seen.values())
                skips += len(index) - len(seen)
        ours.send(True)
        counts.append(ours.recv())
        ours.send(None)
    injected = {name: counts[-1][name] for name in ("requests", "resets", "truncations", "429", "503")}
    print(
        Table(
            ["proxy", "samples/s of each round"],
            [
                ["faults" if faulty else "none", " ".join(f"{rate:.0f}" for rate in rates[faulty])]
                for faulty in (False, True)
            ],
        )
    )
    print(f"injected: {injected}; client: {getattr(samples.store, 'counts', '')}")
    share = statistics.median(rates[True]) / statistics.median(rates[False])
    print(
        f"{duplicates} duplicates, {skips} skips in {2 * options.rounds} epochs of {len(index)}; "
        f"throughput with faults / without: {share:.2f} (target 0.80)"
    )
    return 1 if duplicates or skips else 0


if __name__ == "__main__":
    raise SystemExit(main())
