"""The last column of a plan is the plan of the last token."""

import torch

from bench.decoding.prefix import last_column
from bench.rng import generator
from bench.routing.contract import RoutingPlan


def test_the_column_is_taken_at_each_sequence_s_own_end() -> None:
    scores = torch.randn(3, 7, 4, generator=generator(0, "scores"))
    plan = RoutingPlan(scores > 0, scores.sigmoid(), scores, choice=scores > 1, weighs="ffn")
    at = torch.tensor([6, 0, 3])
    found = last_column(plan, at, None)
    for row, place in enumerate(at.tolist()):
        for name in ("mask", "weight", "scores", "choice"):
            expected = getattr(plan, name)[row, place]
            assert torch.equal(getattr(found, name)[row, 0], expected)
    assert found.weighs == "ffn" and found.merge is None and found.counts is None


def test_a_merge_is_that_of_the_token_s_segment() -> None:
    merge = torch.rand(2, 3, 4, generator=generator(0, "merge"))
    plan = RoutingPlan(torch.ones(2, 12, 4, dtype=torch.bool), merge=merge)
    found = last_column(plan, torch.tensor([4, 11]), 5).merge
    assert found is not None
    assert torch.equal(found[0, 0], merge[0, 0]) and torch.equal(found[1, 0], merge[1, 2])
