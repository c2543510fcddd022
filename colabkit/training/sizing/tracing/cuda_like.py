"""Let fake CPU tensors take the memory that the same step takes on CUDA.

    with FakeTensorMode(), like_cuda(), torch.autocast("cpu", torch.bfloat16):
        loss(model(batch)).backward()

Operators differ between the two where it matters for memory: which ones autocast moves to float32, dropout's mask,
attention without a matrix of scores, recurrent layers. Their kernels for CPU are replaced by ones that allocate what
CUDA's do, for fake tensors only; real tensors in other threads go on as before. Shapes that depend on data
(masked_select) take the worst case.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from colabkit.training.sizing.tracing.accounting import tensors_of

# ATen/autocast_mode.h: AT_FORALL_FP32, AT_FORALL_FP32_SET_OPT_DTYPE. What CPU's autocast moves to float32 as well is
# left to it.
FLOAT32_UNDER_AUTOCAST = """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar pow.Tensor_Tensor
    pow.Scalar softplus layer_norm native_layer_norm rms_norm group_norm frobenius_norm.dim cosine_similarity
    poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss
    huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss
    multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp upsample_nearest1d
    upsample_nearest2d upsample_linear1d upsample_bilinear2d upsample_bicubic2d prod prod.dim_int softmax.int
    log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm norm.Scalar norm.ScalarOpt_dim sum
    sum.dim_IntList
""".split()

_registering = threading.Lock()  # the dispatcher is one for the process


@contextmanager
def like_cuda() -> Iterator[None]:
    """Let operators on fake CPU tensors allocate as they would on an NVIDIA GPU of compute capability 7.0 and above."""
    with (
        _replaced(
            "AutogradCPU",
            {
                "dropout": _dropout,
                "feature_dropout": _dropout,
                "scaled_dot_product_attention": _attention,
                "gru.input": _gru,
                "lstm.input": _lstm,
            },
        ),
        _replaced(
            "AutocastCPU",
            {
                name: _in_float32(name)
                for name in FLOAT32_UNDER_AUTOCAST
                if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "AutocastCPU")
            },
        ),
    ):
        yield


@contextmanager
def worst_case_shapes() -> Iterator[None]:
    """Let fake tensors through operators whose result's shape, or memory, only data tells: as if all was selected."""
    with _replaced(
        "AutogradCPU", {"ctc_loss.IntList": _ctc_loss, "ctc_loss.Tensor": _ctc_loss, "masked_select": _masked_select}
    ):
        yield


@contextmanager
def _replaced(key: str, kernels: dict[str, Callable]) -> Iterator[None]:
    """Register `kernels` (called with the original and the arguments) at a dispatch key, and take them back."""
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is overridden: it is meant to be
        library = torch.library.Library("aten", "IMPL")
        stack.callback(library._destroy)
        with _registering:
            for name, kernel in kernels.items():
                library.impl(name, _for_fake(_overload(name), key, kernel), key)
        yield


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _for_fake(operator: Any, key: str, kernel: Callable) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(tensor, FakeTensor) for tensor in tensors_of(args)):
            return kernel(*args, **kwargs)
        return original(*args, **kwargs)

    def original(*args: Any, **kwargs: Any) -> Any:
        if key == "AutogradCPU" and operator._can_decompose():
            return operator.decompose(*args, **kwargs)
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))):
            return operator(*args, **kwargs)

    return call


def _in_float32(name: str) -> Callable:
    operator = _overload(name)

    def run(*args: Any, **kwargs: Any) -> Any:
        without = torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU))
        with without:
            return operator(*_cast(args, torch.float32), **_cast(kwargs, torch.float32))

    return run


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() and value.dtype != torch.float64 else value
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(item, dtype) for item in value)
    return {key: _cast(item, dtype) for key, item in value.items()} if isinstance(value, dict) else value


def _dropout(x: torch.Tensor, p: float, train: bool) -> torch.Tensor:
    """CUDA keeps a mask of one byte an element (native/Dropout.cpp: is_fused_kernel_acceptable)."""
    return torch.native_dropout(x, p, True)[0] if train and 0 < p < 1 else x.clone() if train and p else x


class _Attention(torch.autograd.Function):
    """What flash and memory-efficient attention keep and use: output, its log-sum-exp, float32 sums of query gradients.

    native/transformers/cuda/attention.cu, attention_backward.cu, flash_attn; layout (B, T, H, D) seen as (B, H, T, D).
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        num_samples, num_heads, num_queries, _ = query.shape
        out = query.new_empty(num_samples, num_queries, num_heads, value.shape[-1]).transpose(1, 2)
        log_sums = query.new_empty(num_samples, num_heads, -(-num_queries // 32) * 32, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, bias, out, log_sums)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple:
        query, key, value, _, _, log_sums = ctx.saved_tensors
        grad_out = grad_out.transpose(1, 2).contiguous()
        grads = [
            torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
            for x in (query, key, value)
        ]
        sums = [torch.empty_like(log_sums)]
        if query.dtype != torch.float32:
            sums.append(torch.empty_like(grads[0], dtype=torch.float32))
        return (*grads, None)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> torch.Tensor:
    if query.dim() != 4 or (attn_mask is not None and attn_mask.requires_grad):  # not for the fused kernels
        math = torch.ops.aten._scaled_dot_product_attention_math.default
        return math(query, key, value, attn_mask, dropout_p, is_causal, **options)[0]
    if attn_mask is not None:
        # native/transformers/attention.cpp: convert_boolean_attn_mask, in each call anew
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.empty_like(attn_mask, dtype=query.dtype)
        if attn_mask.shape[-1] % 8:  # pad_bias
            attn_mask = attn_mask.new_empty(*attn_mask.shape[:-1], -(-attn_mask.shape[-1] // 8) * 8)
    return _Attention.apply(query, key, value, attn_mask)


class _Ctc(torch.autograd.Function):
    """native/cuda/LossCTC.cu and LossCTC.cpp: log_alpha is kept, log_beta made in backward, both (B, T, 2 S + 1)."""

    @staticmethod
    def forward(ctx: Any, log_probs: torch.Tensor, longest_target: int) -> torch.Tensor:
        num_frames, num_samples, _ = log_probs.shape
        log_alpha = log_probs.new_empty(num_samples, num_frames, 2 * longest_target + 1)
        ctx.save_for_backward(log_probs, log_alpha)
        return log_probs.new_empty(num_samples)

    @staticmethod
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple:
        log_probs, log_alpha = ctx.saved_tensors
        log_beta = torch.empty_like(log_alpha)
        grad = torch.empty_like(log_probs, memory_format=torch.contiguous_format)
        del log_beta
        return grad, None


def _ctc_loss(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int = 1,
    zero_infinity: bool = False,
) -> torch.Tensor:
    num_samples = log_probs.shape[1] if log_probs.dim() == 3 else 1
    longest = targets.shape[-1] if targets.dim() > 1 or num_samples == 1 else -(-targets.shape[0] // num_samples)
    if log_probs.dim() == 2:
        log_probs = log_probs.unsqueeze(1)
    if log_probs.dtype in (torch.float16, torch.bfloat16):  # of autocast's float32 list
        log_probs = log_probs.float()
    losses = _Ctc.apply(log_probs, longest)
    if zero_infinity:
        losses = torch.where(losses == float("inf"), 0.0, losses)
    return losses.mean() if reduction == 1 else losses.sum() if reduction == 2 else losses


def _masked_select(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    x, mask = torch.broadcast_tensors(x, mask)
    return x.reshape(-1).clone()


class _Recurrent(torch.autograd.Function):
    """cuDNN's recurrent layer: every frame's gates are in a reserve space, and again in a work space in backward."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, state_size: int, num_layers: int, directions: int, gates: int, *weights: torch.Tensor
    ) -> torch.Tensor:
        frames, samples = x.shape[0], x.shape[1]
        out = x.new_empty(frames, samples, state_size * directions)
        reserve = x.new_empty(frames, samples, num_layers * directions * state_size * (gates + 2))
        ctx.save_for_backward(x, out, reserve, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple:
        x, _, reserve, *weights = ctx.saved_tensors
        grad_out = grad_out.contiguous()
        grad_x, work = torch.empty_like(x), torch.empty_like(reserve)
        del work
        return grad_x, None, None, None, None, *(torch.empty_like(weight) for weight in weights)


def _recurrent(
    x: torch.Tensor,
    hidden: torch.Tensor,
    weights: list[torch.Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    gates: int,
) -> torch.Tensor:
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weights = x.to(dtype), [weight.to(dtype) for weight in weights]
    x = (x.transpose(0, 1) if batch_first else x).contiguous()
    out = _Recurrent.apply(x, hidden.shape[-1], num_layers, 2 if bidirectional else 1, gates, *weights)
    return out.transpose(0, 1) if batch_first else out


def _gru(
    x: torch.Tensor,
    hidden: torch.Tensor,
    weights: list[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple:
    out = _recurrent(x, hidden, weights, num_layers, bidirectional, batch_first, 3)
    return out, torch.empty_like(hidden, dtype=out.dtype)


def _lstm(
    x: torch.Tensor,
    hidden: list[torch.Tensor],
    weights: list[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple:
    out = _recurrent(x, hidden[0], weights, num_layers, bidirectional, batch_first, 4)
    return out, torch.empty_like(hidden[0], dtype=out.dtype), torch.empty_like(hidden[1], dtype=out.dtype)
