"""The rank correlation of score and utility.

1 for scores that are the utility, -1 for its opposite, and none where there is no score.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.backbone.passes import make_pass
from bench.evaluation.utility import utility_correlation
from bench.model.assemble import Model, assemble
from bench.routing.capacity import gate_plan
from bench.routing.contract import OracleRequest, Router, RouterInput, RoutingPlan
from bench.routing.paths import FFN_GATE
from bench.routing.registry import Entry
from routers.gates import MLPGate
from routers.mixture_of_depths import MixtureOfDepths
from tests.world import SEQ_LEN, blueprint, model, trained_like, windows

WINDOWS = windows()


class Knowing(Router):
    """Even positions are upgraded. The score is looked up by (token, position)."""

    paths = FFN_GATE
    oracle = OracleRequest("on_policy", 1 / SEQ_LEN)
    table: Tensor | None = None

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return gate_plan(
            inputs.positions % 2 == 0,
            None,
            None if self.table is None else self.table[: len(inputs.tokens)],
        )


def build(router: type[Router]) -> Model:
    found = assemble(replace(blueprint("mlp_gate"), entry=Entry("x", "gate", "", router)), 0)
    trained_like(found.decoder, 0.2)
    return found


def single_flips(found: Model, site: int) -> Tensor:
    """Return the worth of each upgrade: the token alone takes either path, in a pass of its own."""
    ids = torch.from_numpy(WINDOWS.tokens)
    worth = torch.zeros(len(ids), SEQ_LEN)
    for token in range(SEQ_LEN):
        losses: list[Tensor] = []
        for path in (False, True):

            def decide(
                router: Router, inputs: RouterInput, path: bool = path, token: int = token
            ) -> RoutingPlan:
                chosen = (inputs.positions % 2 == 0).clone()
                if router is found.decoder.routers[site]:
                    chosen[:, token] = path
                return gate_plan(chosen, None)

            with torch.no_grad():
                logits = found.decoder(make_pass(ids[:, :-1], None, decide=decide))
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits[:, token], ids[:, token + 1], reduction="none"
                )
            )
        worth[:, token] = losses[0] - losses[1]
    return worth


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scores_that_are_the_utility_agree_wholly(sign: float) -> None:
    found = build(Knowing)
    for site, router in enumerate(found.decoder.routers):
        router.table = sign * single_flips(found, site)
    correlations = utility_correlation(found, WINDOWS, batch_size=len(WINDOWS.tokens), seed=0)
    assert list(correlations) == [0, 1, 2]
    assert all(value == pytest.approx(sign, abs=0.01) for value in correlations.values())


def test_it_is_booked_as_evaluation_and_nothing_else_changes() -> None:
    found = build(Knowing)
    for router in found.decoder.routers:
        router.table = torch.randn(len(WINDOWS.tokens), SEQ_LEN)
    before = {name: tensor.clone() for name, tensor in found.decoder.state_dict().items()}
    spent = dict(found.ledger.spent)
    utility_correlation(found, WINDOWS, batch_size=4, seed=0)
    assert dict(found.ledger.spent) == spent
    tokens = len(WINDOWS.tokens) * SEQ_LEN
    assert found.evaluation_ledger.spent["oracle/forward"] > tokens * found.evaluation_ledger.fixed
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in found.decoder.state_dict().items()
    )


@pytest.mark.parametrize("name", ["random", "top2_moe"])
def test_routers_that_ask_for_no_oracle_have_none(name: str) -> None:
    found = model(name, {"over": "ffn"} if name == "random" else {})
    assert utility_correlation(found, WINDOWS, batch_size=4, seed=0) == {}
    assert "oracle/forward" not in found.evaluation_ledger.spent


def test_a_router_without_scores_has_none() -> None:
    assert utility_correlation(build(Knowing), WINDOWS, batch_size=4, seed=0) == {}


class AroundAGate(MixtureOfDepths):
    """A block with a gate inside, which has the options of utility without their use."""

    oracle = OracleRequest("on_policy", 0.25)

    def inside(self) -> Router:
        return MLPGate()


def test_a_gate_inside_a_block_is_left_out() -> None:
    found = build(AroundAGate)
    assert [site.inside for site in found.ledger.sites] == [True, False] * 2
    correlations = utility_correlation(found, WINDOWS, batch_size=4, seed=0)
    assert list(correlations) == [1, 3]
