"""Labels are made for losses that are on, and for the sequences that they are of use in."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.model.equip import STANDARD_LOSSES, LossTerm
from bench.rng import key
from bench.routing.contract import AuxLoss
from bench.training.utility import Oracle
from tests import world
from tests.training.test_utility import BATCH, IDS, SEEN, Gate, build, fit, passed
from tests.world import equipped


def test_a_loss_that_is_off_has_no_labels_made() -> None:
    found, never, early = build(Gate), build(Gate), build(Gate)
    never.losses = tuple({} for _ in never.losses)
    for model in (found, never):
        fit(model, steps=2)
    assert "oracle/forward" in found.ledger.spent and "oracle/forward" not in never.ledger.spent
    for terms in early.losses:
        labels = terms["labels"]
        terms["labels"] = replace(labels, loss=replace(labels.loss, until=0.5))
    fit(early, steps=6)
    assert len(SEEN) == 1 + 3  # progress 0, 1/6, 1/3


@pytest.mark.parametrize("kept", [[0], [0, 2], []])
def test_labels_of_some_sequences_are_those_of_all_and_cost_their_share(kept: list[int]) -> None:
    costs: list[float] = []
    utilities: list[Tensor | None] = []
    for only in (
        None,
        torch.zeros(BATCH, dtype=torch.bool).index_fill(
            0, torch.tensor(kept, dtype=torch.long), True
        ),
    ):
        found = build(Gate, layers="one")
        oracle = Oracle(found, 0, torch.float32)
        run, token_loss = passed(found, oracle)
        site = key(0, "oracle", 3) % 3
        costs.append(
            sum(
                cost.active
                for cost in oracle.label(
                    run, IDS[:, 1:], token_loss, 3, None if only is None else {site: only}
                )
            )
        )
        utilities.append(run.traces[site].utility)
    whole, part = utilities
    if not kept:
        assert (part, costs[1]) == (None, 0)
        return
    assert whole is not None and part is not None
    assert torch.allclose(part[kept], whole[kept], atol=1e-5, equal_nan=True)
    others = [row for row in range(BATCH) if row not in kept]
    assert part[others].isnan().all()
    assert costs[1] == pytest.approx(costs[0] * len(kept) / BATCH, rel=0.05)


@pytest.mark.parametrize("layers", ["sum", "mean"])
def test_a_loss_is_a_sum_or_a_mean_over_layers(layers: str) -> None:
    """A loss of 1 in each routed layer, with a weight of 0.25."""
    found = world.model("mlp_gate")
    one = AuxLoss(lambda trace: trace.update.new_ones(()), 0.25, layers=layers)
    found.losses = tuple({"router_z": LossTerm(0.25, one)} for _ in found.losses)
    done = world.fit(found, 1)
    count = len(found.losses)
    assert count > 1
    assert done.auxiliary["router_z"] == 0.25 * (count if layers == "sum" else 1)


@pytest.mark.parametrize("name", ["load_balance", "importance", "load", "router_z"])
def test_losses_of_papers_that_add_layers_are_added(name: str) -> None:
    """Switch, GShard, Mixtral and ST-MoE add the losses of their layers."""
    assert STANDARD_LOSSES[name].layers == "sum"


def test_a_standard_loss_is_charged_and_recorded() -> None:
    found = equipped("mlp_gate", losses={"router_z": 0.5})
    done = world.fit(found, 3, router={"losses": {"router_z": 0.5}})
    assert done.auxiliary["router_z"] > 0
    assert found.ledger.spent["auxiliary/forward"] > 0
