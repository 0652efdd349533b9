"""A FLOP counter without blind spots: every operation has a price, is known to be free, or is an error.

`torch.utils.flop_counter` prices some operations and silently takes all others for nothing: matrix-vector
products, grouped products, `(x * w).sum()`, LSTMs, custom operations. Here matrix products cost 2mnk,
floating-point elementwise work and reductions cost one FLOP an element, moving data is free, and an operation
that is on none of these lists is refused.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class UncountedOp(Exception):
    """An operation whose cost is unknown was run where costs are counted."""


def _mm(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    return 2.0 * a.shape[0] * a.shape[1] * b.shape[1]


def _bmm(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    return 2.0 * prod(a.shape) * b.shape[2]


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> float:
    batch, heads, queries, dim = query.shape
    return 2.0 * batch * heads * queries * key.shape[2] * (dim + value.shape[3])


def _attention_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> float:
    return 2.0 * _attention(query, key, value)


def _grouped(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    if a.dim() == 2 and b.dim() == 3:
        return 2.0 * a.shape[0] * a.shape[1] * b.shape[2]
    return 2.0 * prod(a.shape) * b.shape[-1]


MATRIX: Mapping[str, Callable[..., float]] = {
    "mm": _mm,
    "addmm": lambda _bias, a, b, *rest, **named: _mm(a, b),
    "bmm": _bmm,
    "baddbmm": lambda _bias, a, b, *rest, **named: _bmm(a, b),
    "mv": lambda a, b, *rest, **named: 2.0 * prod(a.shape),
    "addmv": lambda _bias, a, b, *rest, **named: 2.0 * prod(a.shape),
    "dot": lambda a, b, *rest, **named: 2.0 * prod(a.shape),
    "vdot": lambda a, b, *rest, **named: 2.0 * prod(a.shape),
    "addr": lambda _bias, a, b, *rest, **named: 2.0 * prod(a.shape) * prod(b.shape),
    "_grouped_mm": _grouped,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "_scaled_dot_product_flash_attention_backward": _attention_backward,
    "_scaled_dot_product_efficient_attention_backward": lambda grad, query, key, value, *rest, **named: 2.0 * _attention(query, key, value),
    "_scaled_dot_product_cudnn_attention_backward": _attention_backward,
}
"""Priced products, by the name of the aten operation."""

PER_ELEMENT = frozenset(
    [
        "_softmax",
        "_softmax_backward_data",
        "_log_softmax",
        "_log_softmax_backward_data",
        "_safe_softmax",
        "nll_loss_forward",
        "nll_loss_backward",
        "sum",
        "mean",
        "amax",
        "amin",
        "max",
        "min",
        "argmax",
        "argmin",
        "prod",
        "std",
        "var",
        "norm",
        "linalg_vector_norm",
        "logsumexp",
        "cumsum",
        "cumprod",
        "cummax",
        "cummin",
        "logcumsumexp",
        "any",
        "all",
        "topk",
        "sort",
        "argsort",
        "kthvalue",
        "median",
        "quantile",
        "searchsorted",
        "bucketize",
        "histc",
        "bincount",
        "unique_dim",
        "_unique2",
        "count_nonzero",
        "_fused_rms_norm",
        "_fused_rms_norm_backward",
        "native_layer_norm",
        "native_layer_norm_backward",
        "index_add",
        "index_put",
        "scatter_add",
        "scatter_reduce",
        "_index_put_impl_",
        "index_add_",
        "index_put_",
        "scatter_add_",
        "native_dropout",
        "threshold_backward",
        "embedding_dense_backward",
        "smooth_l1_loss",
        "huber_loss",
        "mse_loss",
        "binary_cross_entropy",
    ]
)
"""Reductions and the like: one FLOP an element of the largest floating-point tensor that goes in or comes out."""

FREE = frozenset(
    [
        "empty",
        "empty_like",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
        "new_zeros",
        "new_ones",
        "new_full",
        "zeros",
        "zeros_like",
        "ones",
        "ones_like",
        "full",
        "full_like",
        "arange",
        "linspace",
        "scalar_tensor",
        "eye",
        "tril",
        "triu",
        "rand",
        "randn",
        "rand_like",
        "randn_like",
        "randint",
        "randperm",
        "uniform_",
        "normal_",
        "bernoulli",
        "bernoulli_",
        "exponential_",
        "random_",
        "multinomial",
        "clone",
        "copy_",
        "_to_copy",
        "contiguous",
        "fill_",
        "zero_",
        "cat",
        "stack",
        "gather",
        "index",
        "index_select",
        "scatter",
        "scatter_",
        "nonzero",
        "nonzero_static",
        "masked_select",
        "masked_fill",
        "masked_fill_",
        "where",
        "embedding",
        "one_hot",
        "flip",
        "roll",
        "repeat",
        "repeat_interleave",
        "constant_pad_nd",
        "pad",
        "select_backward",
        "slice_backward",
        "select_scatter",
        "slice_scatter",
        "_local_scalar_dense",
        "is_nonzero",
        "resize_",
        "set_",
        "lift_fresh",
        "lift",
        "detach_",
        "_assert_async",
        "_assert_scalar",
        "tril_indices",
        "triu_indices",
        "unfold_backward",
        "index_fill",
        "index_fill_",
        "_foreach_add_",
        "split_with_sizes_copy",
        "_unsafe_view",
        "view",
        "unsafe_split",
        "is_same_size",
        "equal",
        "_pin_memory",
        "masked_scatter",
    ]
)
"""Making, moving and choosing data: no arithmetic on it."""


class OpCounter(TorchDispatchMode):
    """Counts what runs inside the `with` block on this thread.

    Attributes:
        matrix: FLOPs of products, 2mnk each.
        elementwise: floating-point elements computed by everything else that has a price.
        calls: operation name -> number of calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.matrix = 0.0
        self.elementwise = 0.0
        self.calls: Counter[str] = Counter()

    @property
    def total(self) -> float:
        """Matrix and elementwise FLOPs together: what a router is charged."""
        return self.matrix + self.elementwise

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run the operation and charge it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not isinstance(func, torch._ops.OpOverload):
            raise UncountedOp(f"Operation {func} has no known cost.")
        name = func._schema.name.removeprefix("aten::")
        self.calls[name] += 1
        if name in MATRIX:
            self.matrix += MATRIX[name](*args, **kwargs)
        elif name in PER_ELEMENT or torch.Tag.pointwise in func.tags:
            self.elementwise += _largest_float(args, out)
        elif not (name in FREE or func.is_view or name.startswith("sym_") or func.namespace == "prim"):
            shapes = [tuple(a.shape) for a in args if isinstance(a, Tensor)]
            raise UncountedOp(f"Operation {func.name()} on shapes {shapes} has no known cost: use operations that the counter can price.")
        return out


def _largest_float(args: tuple[Any, ...], out: Any) -> float:
    tensors = [t for t in (*args, *(out if isinstance(out, (tuple, list)) else (out,))) if isinstance(t, Tensor)]
    return float(max((t.numel() for t in tensors if t.is_floating_point()), default=0))


def count(run: Callable[[], Any]) -> OpCounter:
    """Count the FLOPs of a call. Raises `UncountedOp` if something in it cannot be priced."""
    with OpCounter() as counter:
        run()
    return counter
