"""Whole layers full or cheap: which ones, and their cost."""

import pytest
import torch

from bench.errors import UserError
from bench.routing.load_routers import find
from tests.world import SEQ_LEN, model, run_of, tokens


@pytest.mark.parametrize(
    ("full", "budget", "expected"),
    [
        ("first", 0.5, (1, 0.5, 0)),
        ("last", 0.5, (0, 0.5, 1)),
        ("first", 0.25, (0.75, 0, 0)),
        ("last", 0.75, (0.25, 1, 1)),
    ],
)
def test_layers_are_filled_in_order(full: str, budget: float, expected: tuple[float, ...]) -> None:
    found = model("fixed_layers", {"full": full}, budget=budget)
    ids = tokens(64)
    run = run_of(ids)
    with torch.no_grad():
        found.decoder(run)
    shares = [float(trace.plan.mask[..., 1].float().mean()) for trace in run.traces]
    deviation = (0.25 / ids.numel()) ** 0.5
    for share, wanted in zip(shares, expected, strict=True):
        # the hash that decides is paid for, out of the layer in which the budget ends
        paid = wanted - 0.1 <= share
        assert share == wanted if wanted in (0, 1) else paid and share <= wanted + 4 * deviation
    spent = found.evaluation_ledger.active(run.counts, ids.numel()) / ids.numel()
    assert spent == pytest.approx(found.solution.target, rel=0.02)


def test_a_choice_is_the_same_in_any_company() -> None:
    decoder = model("fixed_layers").decoder
    ids = tokens(4)
    whole, alone = run_of(ids), run_of(ids[1:2, : SEQ_LEN // 2], "causal")
    with torch.no_grad():
        decoder(whole)
        decoder(alone)
    for one, other in zip(whole.traces, alone.traces, strict=True):
        assert torch.equal(one.plan.mask[1:2, : SEQ_LEN // 2], other.plan.mask)


def test_other_orders_are_refused() -> None:
    with pytest.raises(UserError, match="'first', 'last'"):
        find("fixed_layers").make({"full": "middle"})
