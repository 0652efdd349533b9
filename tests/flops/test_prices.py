"""Prices against closed forms, and the page that lists them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.flops.counter import count
from bench.flops.prices import FREE, MATRIX, PER_ELEMENT, price_list

PAGE = Path(__file__).parents[2] / "docs" / "priced-operations.md"

M, N, K = 3, 5, 7
Run = Callable[[], object]
X = torch.randn(M, K)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolution_costs_its_taps_and_twice_that_backward(
    groups: int, dims: int, transposed: bool
) -> None:
    batch, into, out, size, width = 2, 4, 6, 7, 3
    x = torch.randn(batch, into, *[size] * dims, requires_grad=True)
    shape = (into, out // groups) if transposed else (out, into // groups)
    weight = torch.randn(*shape, *[width] * dims, requires_grad=True)
    name = f"conv_transpose{dims}d" if transposed else f"conv{dims}d"
    run = getattr(F, name)
    made = run(x, weight, groups=groups)
    # Each element of a convolution's result has its taps; a transposed one has them the other way.
    taps = x.numel() * out if transposed else made.numel() * into
    forward = 2 * taps // groups * width**dims
    assert count(lambda: run(x, weight, groups=groups)).matrix == forward
    assert count(made.sum().backward).matrix == 2 * forward
    fixed = run(x.detach(), weight, groups=groups)
    assert count(fixed.sum().backward).matrix == forward


@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("points", [6, 40])  # from 25 points on, torch takes a product for p = 2
def test_distances_cost_each_pair_of_coordinates(points: int, p: float) -> None:
    left = torch.randn(points, K, requires_grad=True)
    right = torch.randn(points, K)
    terms = points * points * K
    assert 2 * terms <= count(lambda: torch.cdist(left, right, p=p)).matrix <= 3 * terms
    distances = torch.cdist(left, right, p=p).sum()
    assert count(distances.backward).total >= terms


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both_ways", [False, True])
def test_an_lstm_costs_its_gates_and_twice_that_backward(layers: int, both_ways: bool) -> None:
    ways = 1 + both_ways
    lstm = nn.LSTM(K, N, num_layers=layers, bidirectional=both_ways)
    x = torch.randn(M, 2, K, requires_grad=True)
    tokens = M * 2
    products = sum(
        2 * tokens * 4 * N * ((ways * N if layer else K) + N) * ways for layer in range(layers)
    )
    # Two biases and a function for each gate, then f c + i g, tanh, o c.
    cells = tokens * N * (4 * 3 + 5) * ways * layers
    assert count(lambda: lstm(x)).matrix == products + cells
    out = lstm(x)[0].sum()
    assert count(out.backward).matrix == 2 * (products + cells)


@pytest.mark.parametrize(("kernel", "size"), [(3, 9), ((2, 3), 6)])
def test_a_pooled_element_costs_its_window(kernel: int, size: int) -> None:
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    for pool in (F.avg_pool2d, F.max_pool2d):
        made = pool(x, kernel, stride=1)
        assert count(lambda pool=pool: pool(x, kernel, stride=1)).matrix == made.numel() * size
        assert count(made.sum().backward).matrix == made.numel() * size


def learnt(run: Callable[[Tensor], Tensor]) -> Run:
    """Forward and backward of an operation on `[M, K]`."""
    return lambda: run(X.clone().requires_grad_()).sum().backward()


CHANCES = torch.rand(M, K)
FIRST = torch.zeros(M, K, dtype=torch.long)

HONEST: dict[str, Run] = {
    "quantile": learnt(lambda x: x.quantile(0.3, dim=1)),
    "quantile of all": learnt(lambda x: x.quantile(0.3)),
    "median": learnt(lambda x: x.median(1).values),
    "kthvalue": learnt(lambda x: x.kthvalue(2).values),
    "sort": learnt(lambda x: x.sort(1).values),
    "cumsum_": lambda: X.clone().cumsum_(0),
    "var_mean": learnt(lambda x: torch.var_mean(x, 1)[0]),
    "std_mean": learnt(lambda x: torch.std_mean(x, 1)[0]),
    "aminmax": learnt(lambda x: x.aminmax(dim=1).max),
    "log_sigmoid": learnt(F.logsigmoid),
    "softplus": learnt(F.softplus),
    "binary cross-entropy": learnt(lambda x: F.binary_cross_entropy(x.sigmoid(), CHANCES)),
    "binary cross-entropy with logits": learnt(
        lambda x: F.binary_cross_entropy_with_logits(x, CHANCES)
    ),
    "Huber": learnt(lambda x: F.huber_loss(x, CHANCES)),
    "smooth L1": learnt(lambda x: F.smooth_l1_loss(x, CHANCES)),
    "KL": learnt(lambda x: F.kl_div(x.log_softmax(-1), CHANCES, reduction="batchmean")),
    "cross-entropy": learnt(lambda x: F.cross_entropy(x, FIRST[:, 0])),
    "logaddexp": learnt(lambda x: torch.logaddexp(x, CHANCES)),
    "erfinv": learnt(lambda x: x.tanh().erfinv()),
    "bucketize": lambda: torch.bucketize(X, torch.arange(3.0)),
    "searchsorted": lambda: torch.searchsorted(torch.arange(3.0), X),
    "scatter_reduce": learnt(lambda x: torch.zeros(M, K).scatter_reduce(0, FIRST, x, "mean")),
    "index_add": learnt(lambda x: torch.zeros(M, K).index_add(0, FIRST[:, 0], x)),
    "vector norm": learnt(lambda x: torch.linalg.vector_norm(x, dim=1)),
    "matrix norm": learnt(torch.linalg.matrix_norm),
    "one_hot": lambda: F.one_hot(FIRST, 4),
    "embedding": learnt(lambda x: F.embedding(FIRST, x)),
    "gather": learnt(lambda x: x.gather(1, FIRST)),
    "batch norm": learnt(lambda x: F.batch_norm(x, None, None, training=True)),
    "group norm": learnt(lambda x: F.group_norm(x, 7)),
    "leaky ReLU": learnt(F.leaky_relu),
    "ELU": learnt(F.elu),
    "GLU": learnt(lambda x: F.glu(x[:, :6])),
    "Gumbel softmax": learnt(lambda x: F.gumbel_softmax(x, hard=True)),
    "category": lambda: torch.distributions.Categorical(logits=X).sample(),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_router_may_use(name: str) -> None:
    """Forward and backward have a price, an element's at the least and some dozens at the most."""
    assert M * K <= count(HONEST[name]).total <= 40 * M * K


INPLACE: dict[str, tuple[Run, Run]] = {
    "cumsum": (lambda: X.cumsum(0), lambda: X.clone().cumsum_(0)),
    "cumprod": (lambda: X.cumprod(0), lambda: X.clone().cumprod_(0)),
    "mul": (lambda: X.mul(X), lambda: X.clone().mul_(X)),
    "index_add": (
        lambda: X.index_add(0, FIRST[:, 0], X),
        lambda: X.clone().index_add_(0, FIRST[:, 0], X),
    ),
    "views": (
        lambda: X.clone().unsqueeze(0).squeeze(0).t().transpose(0, 1).swapaxes(0, 1),
        lambda: X.clone().unsqueeze_(0).squeeze_(0).t_().transpose_(0, 1).swapaxes_(0, 1),
    ),
}


@pytest.mark.parametrize("name", INPLACE)
def test_an_operation_in_place_costs_the_same(name: str) -> None:
    apart, in_place = (count(run) for run in INPLACE[name])
    assert (apart.matrix, apart.elementwise) == (in_place.matrix, in_place.elementwise)


def test_the_page_lists_what_is_priced() -> None:
    assert PAGE.read_text("utf-8") == price_list(), (
        "docs/priced-operations.md is stale. "
        "Run `python -m bench.flops.prices > docs/priced-operations.md`."
    )


def test_an_operation_has_one_price() -> None:
    assert not MATRIX.keys() & PER_ELEMENT and not FREE & (PER_ELEMENT | MATRIX.keys())


def test_every_priced_name_is_an_operation_of_torch() -> None:
    """In place only where torch has no other form."""
    known = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    listed = {f"aten::{name}" for name in MATRIX.keys() | PER_ELEMENT | FREE}
    assert sorted(name for name in listed if not {name, f"{name}_"} & known) == []
