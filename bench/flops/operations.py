"""The price list of operations, by the name of the aten operation."""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

from torch import Tensor
from torch._ops import OpOverload

COMPLEX = 4.0
"""Real products in a complex one."""


def _real(flops: float, tensor: Tensor) -> float:
    return flops * COMPLEX if tensor.is_complex() else flops


def _mm(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    return _real(2.0 * a.shape[0] * a.shape[1] * b.shape[1], a)


def _bmm(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    return _real(2.0 * prod(a.shape) * b.shape[2], a)


def _mv(a: Tensor, *_: Any, **__: Any) -> float:
    return _real(2.0 * prod(a.shape), a)


def _qr(a: Tensor, *_: Any, **__: Any) -> float:
    return _real(4.0 * prod(a.shape) * min(a.shape[-2:]), a)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> float:
    batch, heads, queries, dim = query.shape
    return 2.0 * batch * heads * queries * key.shape[2] * (dim + value.shape[3])


def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> float:
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
    "mv": _mv,
    "addmv": lambda _bias, a, b, *rest, **named: _mv(a),
    "dot": _mv,
    "vdot": _mv,
    "addr": lambda _bias, a, b, *rest, **named: _real(2.0 * prod(a.shape) * prod(b.shape), a),
    "linalg_qr": _qr,
    "_grouped_mm": _grouped,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "_scaled_dot_product_flash_attention_backward": _attention_backward,
    "_scaled_dot_product_efficient_attention_backward": lambda grad, query, key, value, *rest, **named: (
        2.0 * _attention(query, key, value)
    ),
    "_scaled_dot_product_cudnn_attention_backward": _attention_backward,
}
"""Priced products, by the name of the aten operation; one in place costs the same.

`linalg_qr` is priced by its Householder bound: routers draw orthogonal matrices in `build`.
"""

FUSED: Mapping[str, float] = {"addcmul": 2.0, "addcdiv": 2.0, "lerp": 3.0}
"""Elementwise operations that do the work of several: FLOPs an element."""

PER_ELEMENT = frozenset(
    """
    _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data _safe_softmax nll_loss_forward nll_loss_backward sum mean
    amax amin max min argmax argmin prod std var norm linalg_vector_norm logsumexp cumsum cumprod cummax cummin logcumsumexp any all
    topk sort argsort kthvalue median quantile searchsorted bucketize histc bincount unique_dim _unique2 count_nonzero _fused_rms_norm
    _fused_rms_norm_backward native_layer_norm native_layer_norm_backward index_add index_put scatter_add scatter_reduce
    _index_put_impl_ index_add_ index_put_ scatter_add_ native_dropout threshold_backward embedding_dense_backward smooth_l1_loss
    softplus_backward unfold_backward equal huber_loss huber_loss_backward mse_loss mse_loss_backward
    smooth_l1_loss_backward binary_cross_entropy binary_cross_entropy_backward _foreach_add_ _foreach_mul_
    """.split()  # noqa: SIM905 (two hundred quoted names would be harder to read)
)
"""Reductions and the like.

One FLOP an element of the largest tensor that goes in or comes out, whatever its type.
"""

FREE = frozenset(
    """
    empty empty_like empty_strided new_empty new_empty_strided new_zeros new_ones new_full zeros zeros_like ones ones_like full
    full_like arange linspace scalar_tensor eye tril triu rand randn rand_like randn_like randint randperm uniform_ normal_ bernoulli
    bernoulli_ exponential_ random_ multinomial clone copy_ _to_copy contiguous fill_ zero_ cat stack gather index index_select
    scatter scatter_ nonzero nonzero_static masked_select masked_fill masked_fill_ where embedding one_hot flip roll repeat
    repeat_interleave constant_pad_nd pad select_backward slice_backward select_scatter slice_scatter _local_scalar_dense is_nonzero
    resize_ set_ lift_fresh lift detach_ _assert_async _assert_scalar tril_indices triu_indices index_fill index_fill_
    split_with_sizes_copy _unsafe_view view unsafe_split is_same_size _pin_memory masked_scatter diagonal_copy
    """.split()  # noqa: SIM905
)
"""Making, moving and choosing data: no arithmetic on it.

Overloads that reduce, as `scatter` may, are priced by the element.
"""


def operation_name(func: OpOverload) -> str:
    """The name that the price list has for an operation, whichever of its overloads it is."""
    return func.name().partition(".")[0].removeprefix("aten::")


def elements(name: str, given: Iterable[Tensor], made: Iterable[Tensor]) -> float:
    """FLOPs of an operation that is priced by the element.

    Integers cost as much as floats, or an integer product would hide a real one; a complex element
    costs six, the work of a complex multiplication. An operation on lists costs what it does to all
    of a list.

    Args:
        name: of the operation, without a trailing underscore.
        given: tensors that go in.
        made: tensors that come out.
    """
    sizes = [
        [t.numel() * (6.0 if t.is_complex() else 1.0) for t in tensors] for tensors in (given, made)
    ]
    largest = (
        max(map(sum, sizes))
        if name.startswith("_foreach")
        else max(sizes[0] + sizes[1], default=0.0)
    )
    return largest * FUSED.get(name, 1.0)
