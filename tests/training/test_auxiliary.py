"""Labels are made for losses that are on, and for the sequences that they are of use in."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.rng import key
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


def test_a_standard_loss_is_charged_and_recorded() -> None:
    found = equipped("mlp_gate", losses={"router_z": 0.5})
    done = world.fit(found, 3, router={"losses": {"router_z": 0.5}})
    assert done.auxiliary["router_z"] > 0
    assert found.ledger.spent["auxiliary/forward"] > 0
