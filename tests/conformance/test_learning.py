"""No router that cannot learn passes; `test_check.py` shows that every shipped one does."""

import pytest

from bench.conformance.check import examine_one
from bench.conformance.learning import learns_planted_rule
from bench.conformance.subject import Subject
from bench.routing import Router, RouterInput, RoutingPlan, TokenChoice
from bench.routing.estimators import highest
from bench.routing.registry import Entry


class Untrainable(TokenChoice):
    """Chooses the best two without weights, so that no gradient reaches its parameters."""

    def __init__(self) -> None:
        super().__init__(num_experts=8, active=2)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs)
        return RoutingPlan(highest(scores.detach(), 2), None, scores + 0 * scores.sum())


class PushedAway(Untrainable):
    """Gets the gradient of the loss with the wrong sign."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs)
        weight = scores.softmax(-1)
        return RoutingPlan(highest(scores.detach(), 2), 2 * weight.detach() - weight, scores)


UNABLE: tuple[type[Router], ...] = (Untrainable, PushedAway)


def status(router: type[Router], seed: int) -> str:
    subject = Subject(Entry(router.__name__, "experts", "", router), seed=seed)
    return examine_one(learns_planted_rule, subject, {}).status


def test_the_base_of_those_that_cannot_can() -> None:
    """The missing gradient fails below, not the kind of router."""

    class Able(TokenChoice):
        def __init__(self) -> None:
            super().__init__(num_experts=8, active=2)

    assert status(Able, 0) == "passed"


@pytest.mark.parametrize("router", UNABLE, ids=lambda router: router.__name__)
def test_a_router_that_cannot_learn_fails(router: type[Router]) -> None:
    assert status(router, 0) == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 20))
@pytest.mark.parametrize("router", UNABLE, ids=lambda router: router.__name__)
def test_so_it_is_at_more_seeds(router: type[Router], seed: int) -> None:
    assert status(router, seed) == "failed"
