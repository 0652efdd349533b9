"""Define the price list of operations, by the name of the aten operation.

`python -m bench.flops.prices` prints docs/priced-operations.md.
"""

from collections.abc import Callable, Iterable, Mapping
from inspect import getdoc
from math import prod
from textwrap import fill
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

COMPLEX = 4.0
"""Real products in one complex product."""

Formula = Callable[..., float]
"""Function from the arguments of a call and its result, `out_val`, to its FLOPs."""


def _real(flops: float, tensor: Tensor) -> float:
    return flops * COMPLEX if tensor.is_complex() else flops


def _registered(name: str) -> Formula:
    """Return torch's own formula for an operation, extended to complex numbers."""
    formula = flop_registry[getattr(torch.ops.aten, name)]
    return lambda *args, **named: _real(float(formula(*args, **named)), args[0])


def _mv(a: Tensor, *_: Any, **__: Any) -> float:
    """`2mn`, a multiplication and an addition per element of the matrix."""
    return _real(2.0 * prod(a.shape), a)


def _addmv(_added: Tensor, a: Tensor, *_: Any, **__: Any) -> float:
    """`2mn`."""
    return _mv(a)


def _addr(_added: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    """`2mn`."""
    return _real(2.0 * prod(a.shape) * prod(b.shape), a)


def _addbmm(_added: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    """`2bmnk`."""
    return _real(2.0 * prod(a.shape) * b.shape[2], a)


def _qr(a: Tensor, *_: Any, **__: Any) -> float:
    """`4mn min(m, n)`, the Householder bound: routers draw orthogonal matrices in `build`."""
    return _real(4.0 * prod(a.shape) * min(a.shape[-2:]), a)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> float:
    """`2 q k (d + v)` per head, both products in full, on every kernel, causal or not."""
    # Causal or not, the kernel is charged both full products: scores, then weighted values.
    batch, heads, queries, dim = query.shape
    return 2.0 * batch * heads * queries * key.shape[2] * (dim + value.shape[3])


def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> float:
    """Twice the forward pass, even if the kernel computes parts of it again."""
    return 2.0 * _attention(query, key, value)


def _grouped(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    """`2mnk` of the given rows."""
    if a.dim() == 2 and b.dim() == 3:
        return 2.0 * a.shape[0] * a.shape[1] * b.shape[2]
    return 2.0 * prod(a.shape) * b.shape[-1]


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any, **__: Any) -> float:
    """Once the forward pass for each of input and weight that has a gradient."""
    # Torch's own formula charges the weight of a grouped convolution once too often per group.
    transposed, wanted = rest[4], rest[7]
    places = prod((x if transposed else grad).shape[2:]) * x.shape[0]
    return _real(2.0 * places * prod(weight.shape) * sum(wanted[:2]), x)


def _distances(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    """`3mnd`: a difference, its power and a sum for each pair of coordinates."""
    return 3.0 * prod(a.shape) * b.shape[-2]


def _distances_backward(_grad: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    """`3mnd`."""
    return _distances(a, b)


def _euclidean(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    """`2mn(d + 2)`: a product of points that carry their squares."""
    return 2.0 * prod(a.shape[:-1]) * b.shape[-2] * (a.shape[-1] + 2)


def _lstm(x: Tensor, inwards: Tensor, recurrent: Tensor, *_: Any, **__: Any) -> float:
    """`2n(w_ih + w_hh) + 17nh` on n inputs: four gates with two biases, and the cell."""
    # `recurrent` is [4 h, h]: four gates of width h.
    inputs = prod(x.shape[:-1])
    return inputs * (2.0 * (inwards.numel() + recurrent.numel()) + 17.0 * recurrent.shape[1])


def _lstm_backward(*args: Any, **__: Any) -> float:
    """Twice the forward pass."""
    return 2.0 * _lstm(*args)


def _pool(x: Tensor, kernel: list[int], *_: Any, out_val: Any, **__: Any) -> float:
    """One operation for each element of each window."""
    # Max-pooling returns its values and their indices.
    made = out_val if isinstance(out_val, Tensor) else out_val[0]
    height, width = kernel if len(kernel) == 2 else kernel * 2
    return float(made.numel() * height * width)


def _pool_backward(grad: Tensor, _x: Tensor, kernel: list[int], *_: Any, **__: Any) -> float:
    """As the forward pass."""
    return _pool(grad, kernel, out_val=grad)


PLAIN = ("mm", "addmm", "bmm", "baddbmm", "convolution")
"""Products with torch's own formula, from `torch.utils.flop_counter`."""

MATRIX: Mapping[str, Formula] = {
    **{name: _registered(name) for name in PLAIN},
    "mv": _mv,
    "addmv": _addmv,
    "dot": _mv,
    "vdot": _mv,
    "addr": _addr,
    "addbmm": _addbmm,
    "linalg_qr": _qr,
    "_grouped_mm": _grouped,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "_scaled_dot_product_flash_attention_backward": _attention_backward,
    "_scaled_dot_product_efficient_attention_backward": _attention_backward,
    "_scaled_dot_product_cudnn_attention_backward": _attention_backward,
    "convolution_backward": _convolution_backward,
    "_cdist_forward": _distances,
    "_cdist_backward": _distances_backward,
    "_euclidean_dist": _euclidean,
    "mkldnn_rnn_layer": _lstm,
    "mkldnn_rnn_layer_backward": _lstm_backward,
    "avg_pool2d": _pool,
    "avg_pool2d_backward": _pool_backward,
    "max_pool2d_with_indices": _pool,
    "max_pool2d_with_indices_backward": _pool_backward,
}
"""Products and windows, by the name of the aten operation. In place they cost the same.

Torch has formulas for some of the others too, but not our price: it counts attention on CPU as
nothing, and its backward pass by kernel.
"""

FUSED: Mapping[str, float] = {"addcmul": 2.0, "addcdiv": 2.0, "lerp": 3.0}
"""Elementwise operations that do the work of several: FLOPs per element."""

PER_ELEMENT = frozenset(
    """
    sum nansum mean amax amin aminmax max min argmax argmin prod std std_mean var var_mean norm
    linalg_vector_norm dist renorm logsumexp trace any all _is_all_true _is_any_true count_nonzero
    equal cumsum cumprod cummax cummin logcumsumexp topk sort argsort kthvalue median nanmedian mode
    quantile searchsorted bucketize histc bincount unique_dim _unique2 unique_consecutive
    _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data _safe_softmax
    _fused_rms_norm _fused_rms_norm_backward native_layer_norm native_layer_norm_backward
    native_group_norm native_group_norm_backward native_batch_norm native_batch_norm_backward
    nll_loss_forward nll_loss_backward nll_loss2d_forward nll_loss2d_backward mse_loss
    mse_loss_backward smooth_l1_loss smooth_l1_loss_backward huber_loss huber_loss_backward
    binary_cross_entropy binary_cross_entropy_backward binary_cross_entropy_with_logits
    soft_margin_loss soft_margin_loss_backward multi_margin_loss multi_margin_loss_backward
    multilabel_margin_loss_forward multilabel_margin_loss_backward
    log_sigmoid_forward log_sigmoid_backward softplus_backward threshold_backward glu glu_backward
    mish_backward elu_backward leaky_relu_backward hardtanh_backward hardsigmoid_backward hardswish
    hardswish_backward softshrink_backward hardshrink_backward _prelu_kernel _prelu_kernel_backward
    rrelu_with_noise rrelu_with_noise_backward floor_divide
    native_dropout index_add index_put _index_put_impl index_reduce scatter_add scatter_reduce put
    embedding_dense_backward unfold_backward _foreach_add _foreach_mul
    """.split()  # noqa: SIM905 (two hundred quoted names would be harder to read)
)
"""Reductions and the like: one FLOP per element of the largest tensor, input or output."""

FREE = frozenset(
    """
    empty empty_like empty_strided new_empty new_empty_strided new_zeros new_ones new_full zeros
    zeros_like ones ones_like full full_like arange linspace scalar_tensor eye tril triu
    tril_indices triu_indices fill zero set resize
    rand randn rand_like randn_like randint randperm uniform normal bernoulli exponential random
    multinomial poisson cauchy log_normal geometric _standard_gamma
    clone copy _to_copy contiguous cat stack gather index index_select index_copy take scatter
    nonzero nonzero_static masked_select masked_fill masked_scatter where embedding one_hot flip
    rot90 roll repeat repeat_interleave constant_pad_nd pad select_backward slice_backward
    select_scatter slice_scatter diagonal_backward diagonal_copy diag_embed block_diag index_fill
    split_with_sizes_copy unsafe_split _unsafe_view view
    squeeze unsqueeze transpose t swapaxes swapdims as_strided
    _local_scalar_dense is_nonzero lift_fresh lift detach _assert_async _assert_scalar is_same_size
    _pin_memory
    """.split()  # noqa: SIM905
)
"""Operations that make, move, view or choose data, without arithmetic.

Overloads that reduce, such as some of `scatter`, are priced by the element.
"""


def operation_name(func: OpOverload) -> str:
    """Return the name of an operation in the price list, for any of its overloads."""
    return func.name().partition(".")[0].removeprefix("aten::")


def elements(name: str, given: Iterable[Tensor], made: Iterable[Tensor]) -> float:
    """Return the FLOPs of an operation that is priced by the element.

    Integers cost as much as floats; otherwise an integer product could replace a product of floats.
    A complex element costs six, the work of a complex multiplication. An operation on lists costs
    its work on the whole list.

    Args:
        name: name of the operation, without a trailing underscore.
        given: input tensors.
        made: output tensors.
    """
    # A reduction is charged for its input, a broadcast for its output: the larger of the two.
    sizes = [
        [t.numel() * (6.0 if t.is_complex() else 1.0) for t in tensors] for tensors in (given, made)
    ]
    largest = (
        max(map(sum, sizes))
        if name.startswith("_foreach")
        else max(sizes[0] + sizes[1], default=0.0)
    )
    return largest * FUSED.get(name, 1.0)


def price_list() -> str:
    """Render docs/priced-operations.md."""
    prices = {
        name: "by torch.utils.flop_counter" if name in PLAIN else str(getdoc(formula)).rstrip(".")
        for name, formula in MATRIX.items()
    }
    products = [f"| `{name}` | {price} |" for name, price in prices.items()]
    several = ", ".join(f"`{name}` {flops:g}" for name, flops in FUSED.items())
    parts = [
        "# Priced operations",
        "The FLOP counter (`bench.flops.counter`) prices these operations of torch, by the name of "
        "their aten operation, in place or not. It refuses every other operation, and names its "
        "line: a router that needs one cannot be charged, so it cannot be ranked. To add a price, "
        "add it to `bench/flops/prices.py` with a test against a closed form, and run "
        "`make docs`, which writes this page.",
        "## Products and windows",
        "m, n, k are the sizes of matrices, b of a batch, d of a vector, h of a state.",
        "\n".join(["| operation | FLOPs |", "|---|---|", *products]),
        "## One FLOP per element",
        "Every operation that torch tags as pointwise, with its backward pass, and those below "
        "cost one FLOP per element of the largest tensor, input or output. A complex element costs "
        f"six. More per element: {several}.",
        ", ".join(f"`{name}`" for name in sorted(PER_ELEMENT)),
        "## Free",
        "Every view of a tensor, and:",
        ", ".join(f"`{name}`" for name in sorted(FREE)),
    ]
    pages = (part if part.startswith(("#", "|")) else fill(part, 100) for part in parts)
    return "\n\n".join(pages) + "\n"


if __name__ == "__main__":
    print(price_list(), end="")
