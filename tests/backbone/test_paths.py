"""Expert banks and the cheap path against formulas written out, and whose weights are whose."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.backbone.paths import ExpertBank, LowRank
from bench.rng import generator, normal

D_MODEL = 16


def draw(name: str, rows: int, columns: int) -> Tensor:
    return normal(0, name, rows, columns)


def bank(width: int, count: int) -> ExpertBank:
    made = ExpertBank(D_MODEL, width, count)
    made.reset(draw)
    made.down.data.copy_(torch.randn(made.down.shape, generator=generator(0, "down")))
    return made


def test_an_expert_is_a_swiglu() -> None:
    experts, x = bank(8, 3), torch.randn(5, D_MODEL)
    for index in range(3):
        gate, up = x @ experts.gate[index].T, x @ experts.up[index].T
        wanted = (gate / (1 + (-gate).exp()) * up) @ experts.down[index].T
        torch.testing.assert_close(experts(x, index), wanted, rtol=1e-5, atol=1e-5)


def test_the_cheap_path_is_two_products() -> None:
    cheap, x = LowRank(D_MODEL, 4), torch.randn(5, D_MODEL)
    cheap.reset(draw)
    assert not cheap(x).any()
    cheap.up.data.normal_()
    torch.testing.assert_close(cheap(x), x @ cheap.down.T @ cheap.up.T)


@pytest.mark.parametrize("width", [5, 7, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_products_are_the_loop_over_experts(width: int, dtype: torch.dtype) -> None:
    experts, sizes = bank(width, 4), [3, 0, 6, 1]
    x = torch.randn(10, D_MODEL, generator=generator(0, "x"), requires_grad=True)
    seed = torch.randn(10, D_MODEL, generator=generator(0, "seed"))
    found: list[list[Tensor]] = []
    for grouped in (True, False):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
            if grouped:
                out = experts.grouped(x, torch.tensor(sizes).cumsum(0).to(torch.int32))
            else:
                out = torch.cat([experts(part, index) for index, part in enumerate(x.split(sizes))])
        assert out.dtype is dtype
        found.append(
            [out, *torch.autograd.grad((out.float() * seed).sum(), [x, *experts.parameters()])]
        )
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


def test_in_bfloat16_the_numbers_of_rows_of_a_product_are_few() -> None:
    experts, rows = bank(8, 2), list[int]()

    class Rows(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func.overloadpacket is torch.ops.aten.mm:
                rows.append(len(args[0]))
            return func(*args, **(kwargs or {}))

    with torch.autocast("cpu", dtype=torch.bfloat16), Rows():
        for count in (1, 31, 32, 33, 64):
            assert len(experts(torch.randn(count, D_MODEL))) == count
    assert set(rows) == {32, 64} and len(rows) == 15


def test_experts_and_narrower_layers_start_from_slices_of_the_dense_draw() -> None:
    dense, narrow, split = bank(32, 1), bank(20, 1), bank(8, 4)
    for name in ("gate", "up"):
        whole = getattr(dense, name)[0]
        assert torch.equal(getattr(narrow, name)[0], whole[:20])
        assert torch.equal(getattr(split, name).flatten(0, 1), whole)
    assert dense.gate.std().item() == pytest.approx(D_MODEL**-0.5, rel=0.1)


def test_flops_are_those_of_the_products() -> None:
    assert bank(7, 3).flops() == 2 * 3 * D_MODEL * 7
    assert LowRank(D_MODEL, 4).flops() == 2 * 2 * D_MODEL * 4
