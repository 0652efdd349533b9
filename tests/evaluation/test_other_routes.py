"""Other routes against loops, closed forms, and a model whose best route is known."""

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from bench.evaluation.evaluate import evaluate
from bench.evaluation.other_routes import exchanged, other_routes, second_choice, summary
from bench.rng import generator
from bench.routing.contract import RoutingPlan
from bench.routing.paths import experts
from tests.world import model, trained_like, windows


def measured(name: str, options: Mapping[str, Any] | None = None) -> Any:
    found = model(name, options or {})
    trained_like(found.decoder)
    return other_routes(found, windows(6), 4, 0, torch.float32)


def test_the_summary_is_that_of_a_loop() -> None:
    draws = np.random.default_rng(0)
    own, sampled = draws.normal(size=(3, 5)), draws.normal(size=(4, 3, 5))
    found = summary(own, sampled, None)
    regret, fragile = [], []
    for window in range(3):
        best = min(own[window].mean(), *(sample[window].mean() for sample in sampled))
        regret.append(own[window].mean() - best)
        for place in range(5):
            worse = sum(sample[window, place] > own[window, place] + 0.1 for sample in sampled)
            fragile.append(worse >= 2)
    assert found.regret == pytest.approx(np.mean(regret))
    assert found.fragile == pytest.approx(np.mean(fragile))
    assert (found.own, found.sampled) == (pytest.approx(own.mean()), pytest.approx(sampled.mean()))


def test_an_exchanged_plan_has_the_rows_of_its_own_sequence() -> None:
    draws = generator(0, "test")
    mask = torch.rand(3, 7, 4, generator=draws) > 0.5
    weight = torch.rand(3, 7, 4, generator=draws)
    made = exchanged(RoutingPlan(mask, weight), draws)
    for b in range(3):
        rows = [(*m.tolist(), *w.tolist()) for m, w in zip(mask[b], weight[b], strict=True)]
        assert made.weight is not None
        pairs = zip(made.mask[b], made.weight[b], strict=True)
        assert sorted((*m.tolist(), *w.tolist()) for m, w in pairs) == sorted(rows)
    assert not torch.equal(made.mask, mask)


def test_the_second_choice_takes_the_place_of_the_best_expert_alone() -> None:
    scores = torch.tensor([[[9.0, 3.0, 2.0, 1.0], [9.0, 1.0, 2.0, 3.0], [9.0, 1.0, 2.0, 3.0]]])
    mask = torch.tensor([[[1, 1, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1]]]).bool()
    weight = torch.tensor([[[1, 0.6, 0.4, 0], [1, 0, 0, 0.9], [1, 0.1, 0.2, 0.7]]])
    made = second_choice(RoutingPlan(mask, weight, scores), experts(3, shared=1))
    assert made.mask.int().tolist() == [[[1, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]]]
    assert made.weight is not None
    wanted = torch.tensor([[[1, 0, 0.4, 0.6], [1, 0, 0.9, 0], [1, 0.1, 0.2, 0.7]]])
    torch.testing.assert_close(made.weight, wanted)


@pytest.mark.parametrize("name", ["mlp_gate", "mod", "top2_moe", "hash"])
def test_a_sampled_route_runs_each_path_as_often_and_changes_the_loss(name: str) -> None:
    found = model(name, {})
    trained_like(found.decoder)
    seen: list[Any] = []

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(result := evaluate(*arguments, keep=True, **options))
        return result

    with patch("bench.evaluation.other_routes.evaluate", watched):
        assert other_routes(found, windows(6), 4, 0, torch.float32) is not None
    own, *sampled = seen[:9]
    for other in sampled:
        assert not np.allclose(own.nats, other.nats)
        for site, mask in own.masks.items():
            assert torch.equal(mask.sum(1), other.masks[site].sum(1))


def test_what_has_no_choice_among_tokens_is_left_out() -> None:
    assert measured("smear") is None
    assert measured("dense") is None  # all tokens alike
    assert measured("top2_moe").second is not None
    assert measured("mlp_gate").second is None
