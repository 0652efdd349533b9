"""Sparse execution of any plan equals running everything and masking.

With known counts it never waits.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.backbone.dispatch import (
    assign,
    chosen_pairs,
    dispatch_paths,
    gather_chosen,
    reference_paths,
    scatter_chosen,
)
from bench.backbone.sites import PathSet
from bench.rng import generator, normal
from bench.routing.contract import RoutingPlan
from bench.routing.paths import FFN_GATE, Paths, Site, experts

D_MODEL = 16
PATHS = {
    "gate": FFN_GATE,
    "experts": experts(3),
    "null": Paths(Site.FFN, ("expert0", "expert1", "skip")),
}


def path_set(paths: Paths) -> PathSet:
    made = PathSet(paths, D_MODEL, ffn_width=24, cheap_rank=4, expert_width=10)
    made.reset(lambda name, rows, columns: normal(0, name, rows, columns))
    noise = generator(0, "outputs")
    for parameter in made.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=noise), alpha=0.3)
    return made


@st.composite
def masks(draw: st.DrawFn, num_paths: int) -> Tensor:
    """Any mask at all: paths without tokens, with all of them, tokens with no path or with every
    one.
    """
    batch, seq = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    columns = [
        draw(
            st.one_of(
                st.just([False] * (batch * seq)),
                st.just([True] * (batch * seq)),
                st.lists(st.booleans(), min_size=batch * seq, max_size=batch * seq),
            )
        )
        for _ in range(num_paths)
    ]
    return torch.tensor(columns).T.reshape(batch, seq, num_paths)


@dataclass
class Executed:
    """An update and the gradients of a random functional of it."""

    update: Tensor
    path_updates: dict[str, Any]
    gradients: list[Tensor]


def execute(how: Any, plan: RoutingPlan, paths: PathSet, weighted: bool) -> Executed:
    noise = generator(1, "execute")
    x = torch.randn(*plan.mask.shape[:2], D_MODEL, generator=noise, requires_grad=True)
    weight = torch.randn(plan.mask.shape, generator=noise, requires_grad=True)
    seed = torch.randn(x.shape, generator=noise)
    update, path_updates = how(x, replace(plan, weight=weight if weighted else None), paths)
    leaves = [x, weight, *paths.parameters()]
    gradients = [torch.zeros_like(leaf) for leaf in leaves]
    if update.requires_grad:
        gradients = torch.autograd.grad(
            (update * seed).sum(), leaves, allow_unused=True, materialize_grads=True
        )
    return Executed(update, path_updates, list(gradients))


def assert_same(found: Executed, wanted: Executed) -> None:
    for one, other in zip(
        [found.update, *found.gradients], [wanted.update, *wanted.gradients], strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(PATHS)), st.booleans())
def test_any_plan_is_executed_as_the_reference_does(
    data: st.DataObject, kind: str, weighted: bool
) -> None:
    paths = path_set(PATHS[kind])
    mask = data.draw(masks(len(PATHS[kind].names)))
    plan = RoutingPlan(mask)
    found, wanted = (
        execute(how, plan, paths, weighted) for how in (dispatch_paths, reference_paths)
    )
    assert_same(found, wanted)
    for path, name in enumerate(paths.names):
        if name in found.path_updates:
            index, output = found.path_updates[name]
            taken = mask[..., path].flatten().nonzero().flatten()
            assert torch.equal(
                taken, torch.arange(mask[..., path].numel()) if index is None else index
            )
            torch.testing.assert_close(output, wanted.path_updates[name][1][taken])


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 8), st.data(), st.sampled_from(["gate", "experts"]))
def test_known_counts_change_nothing(batch: int, seq: int, data: st.DataObject, kind: str) -> None:
    num_paths = len(PATHS[kind].names)
    counts = tuple(data.draw(st.integers(0, seq)) for _ in range(num_paths))
    scores = torch.rand(
        batch, seq, num_paths, generator=generator(data.draw(st.integers(0, 99)), "scores")
    )
    rank = scores.argsort(dim=1).argsort(dim=1)
    mask = rank < torch.tensor(counts)
    paths = path_set(PATHS[kind])
    known, dynamic = (
        execute(dispatch_paths, RoutingPlan(mask, counts=c), paths, weighted=True)
        for c in (counts, None)
    )
    assert_same(known, dynamic)


def test_tokens_without_any_path_are_left_as_they_are() -> None:
    paths = path_set(PATHS["experts"])
    update, path_updates = dispatch_paths(
        torch.randn(2, 3, D_MODEL), RoutingPlan(torch.zeros(2, 3, 3, dtype=torch.bool)), paths
    )
    assert not update.any()
    assert not path_updates


class WaitsForDevice(Exception):
    """An operation needs a value, or a size that depends on values, on the host."""


class NoWaiting(TorchDispatchMode):
    """Refuses every operation that would hold up the host on an accelerator."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero.default",
        "is_nonzero",
        "masked_select",
        "unique",
        "equal.default",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation unless it waits."""
        name = str(func).removeprefix("aten.")
        if any(name.startswith(waiting) for waiting in self.WAITING):
            raise WaitsForDevice(name)
        if name.startswith("index.Tensor") and any(
            i is not None and i.dtype is torch.bool for i in args[1]
        ):
            raise WaitsForDevice(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("counts", [(3, 5), (0, 8), (8, 0)])
def test_a_plan_with_known_counts_runs_without_waiting(counts: tuple[int, int]) -> None:
    paths = path_set(FFN_GATE)
    chosen = torch.arange(8).expand(2, 8) >= counts[0]
    plan = RoutingPlan(
        torch.stack((~chosen, chosen), -1), weight=torch.rand(2, 8, 2), counts=counts
    )
    x = torch.randn(2, 8, D_MODEL)
    with NoWaiting():
        dispatch_paths(x, plan, paths)
        index, valid = gather_chosen(chosen, counts[1])
        kept = x.gather(1, index.unsqueeze(-1).expand(-1, -1, D_MODEL))
        scatter_chosen(kept, index, None, valid, x)
    assert valid is None
    with NoWaiting(), pytest.raises(WaitsForDevice):
        dispatch_paths(x, replace(plan, counts=None), paths)


def test_assign_lists_tokens_in_order_and_none_for_all() -> None:
    mask = torch.tensor([[[1, 0, 1], [1, 0, 0]], [[1, 0, 1], [1, 0, 1]]], dtype=torch.bool)
    everyone, nobody, some = assign(RoutingPlan(mask))
    assert everyone is None
    assert nobody is not None
    assert len(nobody) == 0
    assert some is not None
    assert some.tolist() == [0, 2, 3]


@settings(max_examples=40)
@given(masks(1))
def test_gathering_keeps_the_order_and_puts_padding_last(mask: Tensor) -> None:
    chosen = mask[..., 0]
    index, valid = gather_chosen(chosen, None)
    assert valid is not None
    for row in range(len(chosen)):
        wanted = chosen[row].nonzero().flatten().tolist()
        assert index[row][: len(wanted)].tolist() == wanted
        assert valid[row].tolist() == [place < len(wanted) for place in range(index.shape[1])]
    x = torch.randn(*chosen.shape, D_MODEL)
    back = scatter_chosen(
        x.gather(1, index.unsqueeze(-1).expand(-1, -1, D_MODEL)), index, None, valid, x
    )
    assert torch.equal(back, x * chosen.unsqueeze(-1))


def test_pairs_are_causal_and_among_the_chosen() -> None:
    chosen = torch.tensor([[True, False, True, True]])
    wanted = [
        [i == j or (j <= i and bool(chosen[0, i] and chosen[0, j])) for j in range(4)]
        for i in range(4)
    ]
    assert chosen_pairs(chosen)[0].tolist() == wanted
