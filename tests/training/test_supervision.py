"""Supervised documents, and the cost of their labels."""

import numpy as np
import pytest
import torch

from bench.data import Split
from bench.training.supervision import supervised_documents
from tests import world

NAME = "partially_supervised"


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.5, 1.0])
def test_the_share_is_of_the_documents_and_smaller_shares_lie_within_larger_ones(
    share: float,
) -> None:
    chosen = supervised_documents(1000, share)
    assert int(chosen.sum()) == round(1000 * share)
    assert torch.equal(chosen, supervised_documents(1000, share))
    assert not (supervised_documents(1000, share / 2) & ~chosen).any()
    assert not supervised_documents(1000, 0.0).any()
    assert int(supervised_documents(7, 0.01).sum()) == 1


def test_oracle_labels_cost_the_share_of_sequences_that_have_a_supervised_document() -> None:
    text = world.split()
    two = Split(text.tokens, text.offsets[[0, 20, 40]], np.array([0, 1], np.uint8), ("a", "b"))
    spent: list[float] = []
    for steps, options in (
        (6, {"share": 1.0}),
        (6, {"share": 0.01}),
        (6, {"share": 1.0, "anneal": 1e-9}),
        (1, {"share": 1.0}),
    ):
        model = world.model(NAME, {"source": "oracle", **options})
        world.fit(model, steps, two)
        spent.append(model.ledger.spent.get("oracle/forward", 0.0))
    whole, one_of_two_documents, first_step_alone, one_step = spent
    assert 0 < one_of_two_documents < 0.75 * whole
    assert first_step_alone == one_step < whole
