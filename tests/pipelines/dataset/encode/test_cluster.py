"""Several nodes of a real Ray cluster on this machine; one of them is killed while it works."""

from __future__ import annotations

import functools
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from colabkit.io.places import open_place
from colabkit.pipelines.dataset.encode.cluster import Worker, encode_on_ray
from colabkit.pipelines.dataset.encode.job import Sharing
from colabkit.pipelines.dataset.store.codes import codes_of
from colabkit.pipelines.dataset.store.commit import read_codes
from tests.pipelines.dataset.encode.small_codec import SmallCodec, fill, read_small

ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parents[4]), os.environ.get("PYTHONPATH", "")]
    )
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [started.add_node(num_cpus=1, wait=False) for _ in range(2)]
    started.wait_for_nodes()
    ray.init(address=started.address, log_to_driver=False)
    yield started, nodes
    ray.shutdown()
    started.shutdown()


@pytest.mark.slow
def test_nodes_share_the_work_and_one_that_dies_loses_nothing(cluster, tmp_path):
    started, nodes = cluster
    segments = open_place(tmp_path / "store/segments")
    expected = fill(segments, 120, longest=20_000)
    worker = Worker(
        open_source=functools.partial(open_place, str(tmp_path / "store/segments")),
        open_output=functools.partial(open_place, str(tmp_path / "store")),
        open_codec=functools.partial(SmallCodec, seconds_per_second=0.1),
        scratch=tmp_path / "scratch",
        sharing=Sharing(lease_seconds=4.0, poll_seconds=0.5),
        settings={"read_segment": read_small, "piece_bytes": 256 << 10, "quota_bytes": 4 << 20, "num_downloads": 2},
    )
    manifests = tmp_path / "store/codes/manifest"

    def kill_one():
        while len(list(manifests.glob("*.json"))) < 4:
            time.sleep(0.1)
        started.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    done = encode_on_ray(worker, 3)
    killer.join(10)
    assert not killer.is_alive(), "no node was killed"
    assert done.is_finished and done.num_items == 120 and done.num_pieces > 12
    codes = {
        row["key"]: codes_of(table, i)
        for _, table in read_codes(open_place(tmp_path / "store"))
        for i, row in enumerate(table.to_pylist())
    }
    assert codes.keys() == expected.keys() and all(np.array_equal(codes[key], expected[key]) for key in codes)
    assert len({path.read_text().split('"worker": "')[1].split('"')[0] for path in manifests.glob("*.json")}) >= 2
