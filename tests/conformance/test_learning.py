"""Every published design is seen to learn, and no router that cannot."""

import pytest

from bench.conformance import run_checks
from bench.conformance.check import examine_one
from bench.conformance.learning import learns_planted_rule
from bench.conformance.subject import Subject
from bench.routing.contract import Router
from bench.routing.registry import Entry
from tests.conformance.published import PUBLISHED, UNABLE


def status(router: type[Router], seed: int) -> str:
    subject = Subject(Entry(router.__name__, "experts", "", router), seed=seed)
    return examine_one(learns_planted_rule, subject, {}).status


@pytest.mark.parametrize("router", PUBLISHED, ids=lambda router: router.__name__)
def test_a_published_design_learns_and_keeps_every_other_rule(router: type[Router]) -> None:
    results = run_checks(Entry(router.__name__, "experts", "", router))
    assert not [found for found in results if not found.ok]


@pytest.mark.parametrize("router", UNABLE, ids=lambda router: router.__name__)
def test_a_router_that_cannot_learn_fails(router: type[Router]) -> None:
    assert status(router, 0) == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 20))
@pytest.mark.parametrize("router", [*PUBLISHED, *UNABLE], ids=lambda router: router.__name__)
def test_so_it_is_at_more_seeds(router: type[Router], seed: int) -> None:
    assert status(router, seed) == ("passed" if router in PUBLISHED else "failed")
