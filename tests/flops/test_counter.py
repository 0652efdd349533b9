"""The counter against closed forms.

Every way of multiplying matrices costs as much as a matrix product, or is refused.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.flops.counter import OpCounter, UncountedOp, count

M, N, K = 3, 5, 7
PRODUCT = 2 * M * N * K

Run = Callable[[], object]


def a(*shape: int) -> Tensor:
    return torch.randn(shape)


@torch.library.custom_op("bench_test::hidden_matmul", mutates_args=())
def hidden_matmul(x: Tensor, y: Tensor) -> Tensor:
    """A product that no price list knows."""
    return x @ y


class Hidden(torch.autograd.Function):
    """A product inside a function of autograd."""

    @staticmethod
    def forward(ctx: object, *args: Tensor) -> Tensor:
        return args[0] @ args[1]


X, W = torch.randn(M, K), torch.randn(K, N)


def scattered_product() -> Tensor:
    """X W by writing products, then sums, into place: `scatter` with a reduction is arithmetic."""
    index = torch.arange(M * K * N)
    products = (
        X.unsqueeze(2)
        .expand(M, K, N)
        .reshape(-1)
        .scatter(0, index, W.expand(M, K, N).reshape(-1), reduce="multiply")
    )
    rows = (
        torch.arange(M).view(M, 1, 1) * N
        + torch.arange(N).view(1, 1, N)
        + torch.zeros(1, K, 1, dtype=torch.long)
    )
    return torch.zeros(M * N).scatter(0, rows.flatten(), products, reduce="add").view(M, N)


PRODUCTS: dict[str, tuple[Run, float]] = {
    "matmul": (lambda: X @ W, PRODUCT),
    "linear with bias": (lambda: F.linear(X, W.T, torch.zeros(N)), PRODUCT),
    "einsum": (lambda: torch.einsum("mk,kn->mn", X, W), PRODUCT),
    "batched": (lambda: torch.bmm(a(4, M, K), a(4, K, N)), 4 * PRODUCT),
    "broadcast": (lambda: a(4, 2, M, K) @ W, 8 * PRODUCT),
    "baddbmm": (lambda: torch.baddbmm(a(4, M, N), a(4, M, K), a(4, K, N)), 4 * PRODUCT),
    "in place": (lambda: torch.zeros(M, N).addmm_(X, W), PRODUCT),
    "into a tensor": (lambda: torch.mm(X, W, out=torch.empty(M, N)), PRODUCT),
    "matrix and vector": (lambda: X @ W[:, 0], 2 * M * K),
    "addmv": (lambda: torch.addmv(a(M), X, W[:, 0]), 2 * M * K),
    "dot": (lambda: torch.dot(X[0], W[:, 0]), 2 * K),
    "outer, added": (lambda: torch.addr(a(M, N), a(M), a(N)), 2 * M * N),
    "integers": (lambda: X.long() @ W.long(), PRODUCT),
    "complex": (lambda: X.to(torch.complex64) @ W.to(torch.complex64), 4 * PRODUCT),
    "bfloat16": (lambda: X.bfloat16() @ W.bfloat16(), PRODUCT),
    "function of autograd": (lambda: Hidden.apply(X, W), PRODUCT),
    "grouped": (
        lambda: F.grouped_mm(a(8, 16), a(2, 16, 24), offs=torch.tensor([3, 8], dtype=torch.int32)),
        2 * 8 * 16 * 24,
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_costs_2mnk_however_it_is_called(name: str) -> None:
    run, flops = PRODUCTS[name]
    assert count(run).matrix == flops
    with torch.no_grad():
        assert count(run).matrix == flops


@given(batch=st.integers(1, 4), m=st.integers(1, 9), k=st.integers(1, 9), n=st.integers(1, 9))
@settings(max_examples=40)
def test_products_and_their_gradients_cost_what_torch_counts_where_it_counts_them(
    batch: int, m: int, k: int, n: int
) -> None:
    left, right = (
        torch.randn(*shape, requires_grad=True) for shape in ((batch, m, k), (batch, k, n))
    )

    def run() -> None:
        (left @ right).sum().backward()

    with FlopCounterMode(display=False) as theirs:
        run()
    assert count(run).matrix == theirs.get_total_flops() == 6 * batch * m * k * n


ELEMENTWISE: dict[str, tuple[Run, float]] = {
    "multiply and sum": (lambda: (X[:, :, None] * W).sum(1), PRODUCT),
    "integers": (lambda: (X.long()[:, :, None] * W.long()).sum(1), PRODUCT),
    "bits": (lambda: ((X > 0)[:, :, None] & (W > 0)).sum(1), PRODUCT),
    "logarithms": (lambda: (X[:, :, None] + W).logsumexp(1), PRODUCT),
    "squared distances": (
        lambda: F.mse_loss(X[:, :, None].expand(M, K, N), W.expand(M, K, N), reduction="none").sum(
            1
        ),
        PRODUCT,
    ),
    "norms": (lambda: (X[:, :, None] - W).norm(dim=1), PRODUCT),
    "multiply and add": (
        lambda: [torch.addcmul(a(M, N), X[:, k, None], W[k]) for k in range(K)],
        PRODUCT,
    ),
    "in place": (
        lambda: [torch.zeros(M, N).addcmul_(X[:, k, None], W[k]) for k in range(K)],
        PRODUCT,
    ),
    "lerp": (
        lambda: [
            torch.lerp(a(M, N), W[k].expand(M, N), X[:, k, None].expand(M, N)) for k in range(K)
        ],
        3 * M * N * K,
    ),
    "running sums": (lambda: (X[:, :, None] * W).cumsum(1), PRODUCT),
    "index_add": (
        lambda: a(M, N).index_add(0, torch.zeros(K, dtype=torch.long), W * X[0, :, None]),
        2 * K * N,
    ),
    "lists": (lambda: torch._foreach_mul_([W.clone(), W.clone()], 2.0), 2 * K * N),
    "complex": (lambda: X.to(torch.complex64) * 2.0, 6 * M * K),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_product_in_elementwise_disguise_costs_no_less(name: str) -> None:
    run, flops = ELEMENTWISE[name]
    counter = count(run)
    assert counter.matrix == 0
    assert counter.total >= flops
    assert counter.total <= 1.6 * flops + M * N * K


@pytest.mark.parametrize("kernel", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_costs_its_two_square_products_on_any_kernel(
    kernel: SDPBackend, causal: bool
) -> None:
    batch, heads, seq, dim = 2, 3, 11, 16
    query, key, value = (torch.randn(batch, heads, seq, dim, requires_grad=True) for _ in range(3))
    square = 4 * batch * heads * seq**2 * dim

    def forward() -> Tensor:
        with sdpa_kernel(kernel):
            return F.scaled_dot_product_attention(query, key, value, is_causal=causal)

    assert count(forward).matrix == square
    out = forward().sum()
    assert count(out.backward).matrix == 2 * square


def _lstm() -> object:
    return nn.LSTM(K, N, batch_first=True)(a(2, M, K))


def _fast_attention() -> object:
    layer = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    with torch.no_grad():
        return layer(a(2, 3, 16), a(2, 3, 16), a(2, 3, 16))


PRICED_OR_REFUSED: dict[str, tuple[Run, float]] = {
    "scatter that reduces": (scattered_product, PRODUCT),
    "LSTM": (_lstm, 2 * 2 * M * 4 * N * (K + N)),
    "GRU": (lambda: nn.GRU(K, N, batch_first=True)(a(2, M, K)), 2 * 2 * M * 3 * N * (K + N)),
    "fast path of attention": (_fast_attention, 2 * 2 * 3 * 4 * 16 * 16 + 4 * 2 * 9 * 16),
    "bilinear": (lambda: F.bilinear(X, a(M, N), a(4, K, N)), 2 * M * 4 * K * N),
    "convolution": (lambda: F.conv1d(a(2, K, 9), a(N, K, 3)), 2 * 2 * 7 * N * K * 3),
    "FFT": (lambda: torch.fft.rfft(X), 5 * M * K),
    "inverse FFT": (lambda: torch.fft.ifft(X), 5 * M * K),
    "cdist": (lambda: torch.cdist(X, W.T), PRODUCT),
    "pdist": (lambda: F.pdist(X), M * (M - 1) / 2 * K),
    "solve": (lambda: torch.linalg.solve(a(K, K), W), 2 / 3 * K**3),
    "inverse": (lambda: torch.linalg.inv(a(K, K)), 2 * K**3),
    "SVD": (lambda: torch.linalg.svd(X), 2 * M * M * K),
    "eigenvalues": (lambda: torch.linalg.eigh(a(K, K)), 4 / 3 * K**3),
    "matrix exponential": (lambda: torch.linalg.matrix_exp(a(K, K)), 2 * K**3),
    "matrix power": (lambda: torch.linalg.matrix_power(a(K, K), 8), 3 * 2 * K**3),
    "multi_dot": (
        lambda: torch.linalg.multi_dot([X, W, a(N, M)]),
        min(PRODUCT + 2 * M * N * M, 2 * K * N * M + 2 * M * K * M),
    ),
    "tensordot": (lambda: torch.tensordot(X, W, dims=1), PRODUCT),
    "Kronecker": (lambda: torch.kron(X, W), M * K * K * N),
    "embedding bag": (lambda: F.embedding_bag(torch.zeros(4, 3, dtype=torch.long), W), 4 * 3 * N),
    "sparse": (lambda: torch.sparse.mm(X.to_sparse(), W), PRODUCT),
    "int8": (
        lambda: torch._int_mm(
            torch.ones(32, 32, dtype=torch.int8), torch.ones(32, 32, dtype=torch.int8)
        ),
        2 * 32**3,
    ),  # pyright: ignore
    "quantised": (
        lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.qint8).dequantize() @ W,
        PRODUCT,
    ),
    "custom operation": (lambda: hidden_matmul(X, W), PRODUCT),
    "vmap": (lambda: torch.vmap(lambda row: row @ W)(X), PRODUCT),
    "Jacobian": (lambda: torch.func.jacrev(lambda x: x @ W)(X[0]), 2 * K * N),
    "unfold": (lambda: F.unfold(a(1, 2, 4, 4), 3), 1),
    "bicubic": (lambda: F.interpolate(a(1, 2, 4, 4), scale_factor=2, mode="bicubic"), 2 * 64 * 16),
    "grid sample": (
        lambda: F.grid_sample(a(1, 2, 4, 4), a(1, 5, 5, 2), align_corners=False),
        2 * 25 * 4,
    ),
    "batch norm": (lambda: F.batch_norm(X, None, None, training=True), M * K),
    "cosine similarity": (lambda: F.cosine_similarity(X[:, :, None], W[None], dim=1), PRODUCT),
    "histogram": (lambda: torch.histc(X, 4), M * K),
    "triangular": (
        lambda: torch.linalg.solve_triangular(torch.eye(K) + a(K, K).tril(), W, upper=False),
        K * K * N,
    ),
    "Cholesky": (lambda: torch.linalg.cholesky(torch.eye(K)), K**3 / 3),
}


@pytest.mark.filterwarnings("ignore")
def test_the_scattered_product_is_one() -> None:
    assert torch.allclose(scattered_product(), X @ W, atol=1e-5)


@pytest.mark.parametrize("name", PRICED_OR_REFUSED)
def test_nothing_is_cheaper_than_it_is(name: str) -> None:
    """Operations that torch's counter misses cost the closed form or more, or are refused."""
    run, flops = PRICED_OR_REFUSED[name]
    try:
        counter = count(run)
    except UncountedOp:
        return
    assert counter.total >= flops


@pytest.mark.parametrize("name", ["bilinear", "FFT", "solve", "SVD", "custom operation"])
def test_the_refusals_are_refusals(name: str) -> None:
    with pytest.raises(UncountedOp, match="has no known cost"):
        count(PRICED_OR_REFUSED[name][0])


def test_an_orthogonal_draw_is_priced_by_its_factorisation() -> None:
    rows, columns = 12, 4
    householder = 2 * rows * columns**2 - 2 / 3 * columns**3
    counter = count(lambda: nn.init.orthogonal_(torch.empty(rows, columns)))
    assert 2 * householder <= counter.matrix <= 4 * householder


class Outer(nn.Module):
    """A module whose child uses an operation without a price."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).abs()


def test_the_error_names_operation_shapes_module_and_line() -> None:
    place = r"in Inner\.forward \(test_counter\.py:\d+\)"
    with pytest.raises(
        UncountedOp, match=rf"aten::_fft_r2c on shapes \[\(3, 7\)\] {place} has no known cost"
    ):
        count(lambda: Outer()(X))


@pytest.mark.parametrize(
    "leave",
    [
        lambda: X.numpy(),
        lambda: X.tolist(),
        lambda: X.__array__(),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_data_may_not_leave_torch_while_it_is_counted(leave: Run) -> None:
    with pytest.raises(UncountedOp, match="takes data out of torch"):
        count(leave)


@pytest.mark.parametrize(
    "move",
    [
        lambda: X.clone().view(K, M).T.contiguous(),
        lambda: torch.cat((X, X)).split(2),
        lambda: X.where(torch.ones(M, K, dtype=torch.bool), 0),
        lambda: X.masked_fill(torch.zeros(M, K, dtype=torch.bool), 1),
        lambda: X.gather(1, torch.zeros(M, 2, dtype=torch.long)).index_select(0, torch.tensor([1])),
        lambda: X.to(torch.bfloat16).expand(2, M, K).reshape(-1),
        lambda: torch.randn(M, K, generator=torch.Generator()),
        lambda: F.embedding(torch.tensor([1, 2]), X),
    ],
)
def test_moving_and_making_data_is_free(move: Run) -> None:
    assert count(move).total == 0


def test_counters_nest_and_the_outer_one_sees_all() -> None:
    with OpCounter() as outer:
        _ = X @ W
        with OpCounter() as inner:
            _ = X @ W
    assert (outer.matrix, inner.matrix) == (2 * PRODUCT, PRODUCT)
    assert outer.calls["mm"] == 2


def test_counting_changes_no_result() -> None:
    module = nn.Sequential(nn.Linear(K, N), nn.GELU(), nn.Linear(N, 1))
    before = module(X)
    results: list[Tensor] = []
    count(lambda: results.append(module(X)))
    assert torch.equal(before, results[0])
