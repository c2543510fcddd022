"""Each difference between versions of other people's libraries, with both of its sides: the older and today's."""

from __future__ import annotations

import importlib.metadata
import ssl
import subprocess
import sys
import threading
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from colabkit.core.versions import differences
from colabkit.core.versions.differences import DIFFERENCES, is_older

ROOT = Path(__file__).resolve().parents[3]


def test_every_difference_has_a_test_here_and_says_what_and_why():
    assert len(DIFFERENCES) >= 13
    for name, difference in DIFFERENCES.items():
        assert f"test_{name}" in globals(), f"write test_{name}, with both sides"
        assert difference.library and difference.what and difference.why
        assert not difference.since or difference.since[0].isdigit()


def test_no_other_file_asks_for_the_version_of_a_library():
    """Only this room looks at what is installed; what sizing remembers is of one version of torch, whichever."""
    asking = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "colabkit").rglob("*.py")
        if any(
            words in path.read_text(encoding="utf-8")
            for words in ("metadata.version(", "transformers.__version__", "torch.__version__", "packaging.version")
        )
    }
    assert asking <= {"colabkit/core/versions/differences.py", "colabkit/training/sizing/remembered.py"}, asking


@pytest.mark.parametrize(
    "version, than, older",
    [
        ("5.15.0", "5.17", True),
        ("5.17.0", "5.17", False),
        ("5.17.0.dev0", "5.17", False),
        ("5.9", "5.17", True),
        ("2.11.0+cu128", "2.11", False),
        ("18.1.0", "21.0", True),
        ("2025.3.0", "2026.2", True),
        ("6", "5.23.1", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version, than, older):
    assert is_older(version, than) is older


def draws_a_lot(x, layerdrop: float):
    """Do what a layer of transformers before 5.23 does."""
    import torch

    dropout_probability = torch.rand([])
    return x if dropout_probability < layerdrop else 2 * x


def draws_none(x, layerdrop: float):
    return 2 * x


@pytest.mark.parametrize("layer", [draws_a_lot, draws_none])
def test_no_layer_dropped(layer):
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), differences.no_layer_dropped():
        assert layer(torch.ones(3), 0.0).shape == (3,)
        assert torch.rand(2).shape == torch.rand([2]).shape == (2,), "only the lot of a layer is answered"
    with differences.no_layer_dropped():
        assert layer(torch.ones(()), 1.0) == 2, "no layer is dropped in a plan, however likely"
        others: list = []
        thread = threading.Thread(target=lambda: others.append(torch.rand([])))
        thread.start()
        thread.join()
        assert isinstance(others[0], torch.Tensor), "another thread, which may be training, draws its lots"
    assert isinstance(torch.rand([]), torch.Tensor)


def causal_codec(*, is_beside: bool):
    """Return a codec of two convolutions that stride, the second of them in the encoder or beside it."""
    import torch

    class Convolution(torch.nn.Module):
        def __init__(self, stride: int, pad_mode: str):
            super().__init__()
            self.conv, self.pad_mode = (
                torch.nn.Conv1d(2, 2, 2 * stride, stride, bias=False, dtype=torch.float64),
                pad_mode,
            )

        def forward(self, x):
            stride = self.conv.stride[0]
            return self.conv(torch.nn.functional.pad(x, (stride, -x.shape[-1] % stride), self.pad_mode))

    class Codec(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            first, second = Convolution(4, "constant"), Convolution(2, "replicate")
            self.encoder = torch.nn.Sequential(first) if is_beside else torch.nn.Sequential(first, second)
            if is_beside:
                self.downsample = second

        def forward(self, x):
            return self.downsample(self.encoder(x)) if is_beside else self.encoder(x)

    return Codec()


@pytest.mark.parametrize("is_beside", [True, False], ids=["mimi before 5.21", "mimi since 5.21"])
def test_modules_of_encoder(is_beside):
    """A wave's last frame in a batch is the one it has alone, wherever the convolution that halves the rate stands."""
    import torch

    from colabkit.pipelines.dataset.codecs.ragged import ended_alike

    codec = causal_codec(is_beside=is_beside)
    lengths = [80, 73, 75]
    waves = [torch.randn(2, length, dtype=torch.float64) for length in lengths]
    batch = torch.stack([torch.nn.functional.pad(wave, (0, 80 - wave.shape[1])) for wave in waves])
    with torch.inference_mode():
        with ended_alike(differences.modules_of_encoder(codec), lengths):
            together = codec(batch)
        for wave, found in zip(waves, together, strict=True):
            torch.testing.assert_close(found, codec(wave[None])[0], rtol=0, atol=1e-12)
        assert (codec(batch)[1] - codec(waves[1][None])[0]).abs().max() > 1e-3, "a batch without it proves nothing"


@pytest.mark.parametrize(
    "installed, kind, needed",
    [
        ("5.15.0", "neucodec", "5.17"),
        ("5.17.0", "neucodec", ""),
        ("5.23.0", "neucodec", ""),
        ("5.12.1", "xcodec2", "5.13"),
        ("4.46.0", "mimi", ""),
        ("", "neucodec", ""),
    ],
)
def test_too_old_for_codec(installed, kind, needed, monkeypatch):
    monkeypatch.setattr(differences, "installed_version", lambda package: installed)
    assert differences.too_old_for_codec(kind) == needed


def test_what_is_said_of_codecs_is_true_of_the_transformers_here():
    import transformers

    from colabkit.pipelines.dataset.codecs.families import CLASS_NAMES

    for kind, name in CLASS_NAMES.items():
        assert hasattr(transformers, name) is (differences.too_old_for_codec(kind) == ""), (
            f"{kind} in {transformers.__version__}"
        )


@pytest.mark.parametrize(
    "known, wanted",
    [
        ({"warmup_ratio", "gradient_checkpointing"}, {"warmup_ratio": 0.1, "gradient_checkpointing": True}),
        ({"warmup_steps", "gradient_checkpointing"}, {"warmup_steps": 0.1, "gradient_checkpointing": True}),
        ({"warmup_steps", "activation_checkpointing"}, {"warmup_steps": 0.1, "activation_checkpointing": True}),
    ],
    ids=["before 5.15", "before 5.23", "since 5.23"],
)
def test_training_arguments(known, wanted):
    found = differences.training_arguments(known, warmup_fraction=0.1, checkpointing=True)
    assert {name: value for name, value in found.items() if not name.endswith("_kwargs")} == wanted
    assert [value for name, value in found.items() if name.endswith("_kwargs")] == [{"use_reentrant": False}]


@pytest.mark.parametrize("keys", [["a.weight"], {("a.weight", (2, 3), (2, 4))}, [("a.weight", (2, 3), (2, 4))]])
def test_mismatched_names(keys):
    assert differences.mismatched_names({"mismatched_keys": keys}) == ["a.weight"]
    assert differences.mismatched_names({"mismatched_keys": []}) == differences.mismatched_names({}) == []


class WriterOf18:
    def __init__(self, where, schema, *, write_page_index=False, **options):
        pass


class WriterOf21:
    def __init__(self, where, schema, *, write_page_index=False, use_content_defined_chunking=False, **options):
        pass


@pytest.mark.parametrize(
    "writer, knows", [(WriterOf18, False), (WriterOf21, True), (None, None)], ids=["18", "21", "this one"]
)
def test_cut_by_content(writer, knows, monkeypatch, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    options = {"min_chunk_size": 1024, "max_chunk_size": 4096, "norm_level": 0}
    if writer is None:
        table = pa.table({"x": np.arange(100_000)})
        with pq.ParquetWriter(tmp_path / "x.parquet", table.schema, **differences.cut_by_content(options)) as real:
            real.write_table(table)
        assert pq.read_table(tmp_path / "x.parquet").equals(table)
        knows = not is_older(importlib.metadata.version("pyarrow"), "21.0")
    else:
        monkeypatch.setattr(pq, "ParquetWriter", writer)
    assert differences.cut_by_content(options) == ({"use_content_defined_chunking": options} if knows else {})


@pytest.mark.parametrize(
    "names", [("HttpError",), ("HttpError", "NonRetryableError")], ids=["before 2026.2", "since 2026.2"]
)
def test_gcsfs_refusals(names, monkeypatch):
    kinds = {name: type(name, (Exception,), {}) for name in names}
    monkeypatch.setitem(sys.modules, "gcsfs.retry", SimpleNamespace(**kinds, ChecksumError=ValueError))
    assert differences.gcsfs_refusals() == tuple(kinds.values())


def test_the_gcsfs_here_has_its_refusals():
    assert len(differences.gcsfs_refusals()) == 2 - is_older(importlib.metadata.version("gcsfs"), "2026.2")


TENSORFLOW = """
import sys, types, importlib.abc, importlib.machinery
class Loud(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            raise SystemExit("TensorFlow is imported")
sys.meta_path.insert(0, Loud())
"""


@pytest.mark.parametrize("is_there", [True, False], ids=["beside TensorFlow", "without TensorFlow"])
def test_summary_writer(is_there, tmp_path):
    pytest.importorskip("tensorboard")
    code = TENSORFLOW * is_there + (
        "import sys\nfrom colabkit.core.versions.differences import summary_writer\n"
        f"writer = summary_writer()({str(tmp_path)!r}, purge_step=3)\n"
        "writer.add_scalar('loss', 1.5, 3)\nwriter.close()\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "tensorflow" not in done.stderr.lower() and list(tmp_path.glob("events*"))


@pytest.mark.parametrize(
    "kernel",
    [
        SimpleNamespace(get_parent=lambda: {"content": 1}),
        SimpleNamespace(_parent_header={"content": 1}),
        SimpleNamespace(get_parent=lambda: {}["shell"], _parent_header={"content": 1}),
    ],
    ids=["asked", "an attribute", "not for this thread"],
)
def test_request_of(kernel):
    assert differences.request_of(kernel) == {"content": 1}
    assert differences.request_of(SimpleNamespace()) == {}


def test_sender_of_request():
    import contextvars

    variable = contextvars.ContextVar("parent")
    older = SimpleNamespace(_parent_ident={"shell": b"me"})
    other_thread = SimpleNamespace(_shell_parent_ident=variable, _shell_context=contextvars.copy_context())
    other_thread._shell_context.run(variable.set, b"me")
    assert differences.sender_of_request(older) == differences.sender_of_request(other_thread) == b"me"
    variable.set(b"you")
    assert differences.sender_of_request(other_thread) == b"you"


def test_hears_while_it_awaits():
    assert differences.hears_while_it_awaits(SimpleNamespace(shell_channel_thread=None))
    assert not differences.hears_while_it_awaits(SimpleNamespace(shell_stream=None))


@pytest.mark.parametrize(
    "value",
    [
        {"a.txt": {"metadata": {"size": 1}, "content": b"1"}},
        ({"name": "a.txt", "content": memoryview(b"1"), "size": 1},),
    ],
    ids=["ipywidgets 7", "ipywidgets 8"],
)
def test_uploaded_files(value):
    assert differences.uploaded_files(value) == [("a.txt", b"1")]
    assert differences.uploaded_files(type(value)()) == []


@pytest.mark.parametrize("knows", [True, False])
def test_encrypt_transport(knows):
    manager = SimpleNamespace(has_trait=lambda name: knows and name == "transport_encryption")
    differences.encrypt_transport(manager)
    assert getattr(manager, "transport_encryption", None) == ("auto" if knows else None)


@pytest.mark.parametrize(
    "socket",
    [
        SimpleNamespace(get_unverified_chain=lambda: [b"leaf", b"issuer"]),
        SimpleNamespace(
            _sslobj=SimpleNamespace(
                get_unverified_chain=lambda: [
                    None,
                    SimpleNamespace(public_bytes=lambda form: b"issuer" if form == ssl._ssl.ENCODING_DER else None),
                ]
            )
        ),
    ],
    ids=["Python 3.13", "before it"],
)
def test_issuers_shown(socket):
    assert differences.issuers_shown(socket) == [b"issuer"]
    assert differences.issuers_shown(types.SimpleNamespace(_sslobj=None)) == []
