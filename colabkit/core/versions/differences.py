"""Differences between versions of other people's libraries: what, since when, why, and what is done about each.

No other file asks for a version or guards against one. Colab's packages are months older than continuous integration's,
a server's may be years older. Each difference has a test that runs with both sides of it, and a row in
docs/where-to-run.md.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import ssl
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `since`: the first version that is as it is now; "" where it is no matter of versions."""

    library: str
    since: str
    what: str
    why: str


DIFFERENCES: dict[str, Difference] = {}  # by the name of the function that bridges it


def differs(library: str, since: str, *, what: str, why: str) -> Callable:
    """Enter a function among the differences, as the one that bridges this one."""

    def enter(function: Callable) -> Callable:
        DIFFERENCES[function.__name__] = Difference(library, since, what, why)
        return function

    return enter


def installed_version(package: str) -> str:
    """Return the version of a package, "" where it is not installed; nothing is imported."""
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
    # quicker than parsing all of it
    told = re.search(r"^Version: (\S+)", found.read_text("METADATA") or "", re.MULTILINE)
    return told[1] if told else found.version


def is_older(version: str, than: str) -> bool:
    """Compare versions by their numbers; what follows the first letter or plus does not count."""
    numbers, others = ([int(n) for n in re.findall(r"\d+", re.split(r"[a-z+]", text)[0])] for text in (version, than))
    width = max(len(numbers), len(others))
    return numbers + [0] * (width - len(numbers)) < others + [0] * (width - len(others))


# transformers


@differs(
    "transformers",
    "5.23",
    what="older layers draw a random number in training even where no layer is ever dropped",
    why="a plan runs on tensors without values, and a number without a value cannot be compared",
)
@contextmanager
def no_layer_dropped() -> Iterator[None]:
    """Answer a layer that asks whether it is to be left out with 1.0, which no probability exceeds; for this thread."""
    import torch

    class Answering(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
            if function is torch.rand and args == ([],) and not kwargs:
                return 1.0
            return function(*args, **(kwargs or {}))

    with Answering():
        yield


@differs(
    "transformers",
    "5.21",
    what="Mimi's convolution that halves the rate of frames stood beside its encoder, not in it",
    why="each convolution that strides is told where the waves of a batch end, or their last codes are others than "
    "alone",
)
def modules_of_encoder(model: Any) -> list[Any]:
    """Return the modules that a wave passes in a codec's encoder, in that order."""
    beside = model._modules.get("downsample")
    return [*model.encoder.modules(), *(() if beside is None else beside.modules())]


# of transformers; the other ones are older than what is supported
CODECS_SINCE = {"neucodec": "5.17", "xcodec2": "5.13"}


@differs(
    "transformers",
    "5.17",
    what="NeuCodec came with 5.17, X-codec2 with 5.13",
    why="Colab's transformers is older, and a newer one would replace what Colab brings",
)
def too_old_for_codec(kind: str) -> str:
    """Return the version of transformers that a kind of codec needs where the installed one is older, else ""."""
    since, installed = CODECS_SINCE.get(kind, ""), installed_version("transformers")
    return since if since and installed and is_older(installed, since) else ""


@differs(
    "transformers",
    "5.15",
    what="TrainingArguments took the warm-up's share as warmup_ratio; since 5.23 gradient "
    "checkpointing is called activation_checkpointing",
    why="an argument of another version is refused",
)
def training_arguments(known: Set[str], *, warmup_fraction: float, checkpointing: bool) -> dict[str, Any]:
    """Return the arguments for warm-up and checkpointing, by the names that are among `known`."""
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return {
        "warmup_ratio" if "warmup_ratio" in known else "warmup_steps": warmup_fraction,
        name: checkpointing,
        f"{name}_kwargs": {"use_reentrant": False} if checkpointing else None,
    }


@differs(
    "transformers",
    "5.0",
    what="from_pretrained tells tensors of another shape as (name, shape, shape), some versions by their names alone",
    why="weights that do not fit are named in the error",
)
def mismatched_names(info: Mapping[str, Any]) -> list[str]:
    """Return the names of the tensors that have another shape in the file."""
    return [key if isinstance(key, str) else key[0] for key in info.get("mismatched_keys") or ()]


# Data


@differs(
    "pyarrow",
    "21.0",
    what="Parquet pages can be cut by content, so that a Hub which deduplicates gets what changed alone",
    why="older ones refuse the argument, and a higher floor would replace Colab's pyarrow; their pages are cut by size",
)
def cut_by_content(options: Mapping[str, int]) -> dict[str, Any]:
    """Return ParquetWriter's argument that cuts pages by content; {} where it has none."""
    import pyarrow.parquet as pq

    name = "use_content_defined_chunking"
    return {name: dict(options)} if name in inspect.signature(pq.ParquetWriter.__init__).parameters else {}


@differs(
    "gcsfs",
    "2026.2",
    what="an answer that no further try can mend is a NonRetryableError, before it an HttpError",
    why="a refused login is told with its mend",
)
def gcsfs_refusals() -> tuple[type[Exception], ...]:
    """Return the errors by which gcsfs says no for good."""
    retry = importlib.import_module("gcsfs.retry")
    return tuple(getattr(retry, name) for name in ("HttpError", "NonRetryableError") if hasattr(retry, name))


@differs(
    "tensorboard",
    "",
    what="it imports TensorFlow wherever that is installed, unless it is told that there is none",
    why="Colab has TensorFlow: 7 seconds, 650 MiB and four red lines in every training step, and nothing of it used",
)
def summary_writer() -> type:
    """Return torch's SummaryWriter, without TensorFlow. Raises: ImportError where tensorboard is not installed."""
    if "tensorflow" not in sys.modules:
        told = "tensorboard.compat.notf"  # tensorboard/compat/__init__.py looks for a module of that name
        sys.modules.setdefault(told, types.ModuleType(told))
    return importlib.import_module("torch.utils.tensorboard").SummaryWriter


# Notebooks


@differs(
    "ipykernel",
    "7.0",
    what="the request that is carried out is in a context variable, which not every thread sees",
    why="it tells which front end shows what is printed",
)
def request_of(kernel: Any) -> Mapping[str, Any]:
    """Return the message that a kernel carries out now, {} where none is found."""
    for name in ("get_parent", "_parent_header"):
        found = getattr(kernel, name, None)
        try:
            request = found() if callable(found) else found
        except (LookupError, TypeError, AttributeError):  # versions and threads differ
            continue
        if isinstance(request, Mapping) and request:
            return request
    return {}


@differs(
    "ipykernel",
    "7.0",
    what="who sent the request is kept in a context variable, before it in a dict by channel",
    why="what widgets say while a cell runs is an answer to their own messages",
)
def sender_of_request(kernel: Any) -> Any:
    """Return the identity of who sent what a kernel carries out now."""
    variable = getattr(kernel, "_shell_parent_ident", None)
    if variable is None:
        return kernel._parent_ident["shell"]
    try:
        return variable.get()
    except LookupError:
        return kernel._shell_context[variable]


@differs(
    "ipykernel",
    "7.0",
    what="what widgets say reaches a kernel whose cell awaits a thread",
    why="in older ones the thread would wait for ever: it is told so instead",
)
def hears_while_it_awaits(kernel: Any) -> bool:
    """Tell whether messages are handled while a cell awaits something."""
    return hasattr(kernel, "shell_channel_thread")


@differs(
    "ipywidgets",
    "8.0",
    what="an upload button holds a tuple of dicts, before it a dict by name",
    why="Colab has ipywidgets 7, JupyterLab 8",
)
def uploaded_files(value: Any) -> list[tuple[str, bytes]]:
    """Return (name, content) of what an upload button holds."""
    if isinstance(value, Mapping):
        return [(name, bytes(item["content"])) for name, item in value.items()]
    return [(item["name"], bytes(item["content"])) for item in value]


@differs("jupyter_client", "8.9", what="what a kernel is sent can be encrypted", why="where it can be, it is")
def encrypt_transport(manager: Any) -> None:
    """Let a kernel manager encrypt what it sends, where it knows how."""
    if manager.has_trait("transport_encryption"):
        manager.transport_encryption = "auto"


@differs(
    "Python",
    "3.13",
    what="the chain that a server shows is public, before it a part of the ssl module's inside",
    why="a certificate is shown with its issuers before it is pinned",
)
def issuers_shown(tls: ssl.SSLSocket) -> list[bytes]:
    """Return the certificates behind a server's own, as it shows them, in DER; none where they cannot be asked for."""
    ask = getattr(tls, "get_unverified_chain", None) or getattr(tls._sslobj, "get_unverified_chain", lambda: None)
    return [one if isinstance(one, bytes) else one.public_bytes(ssl._ssl.ENCODING_DER) for one in (ask() or [])[1:]]
