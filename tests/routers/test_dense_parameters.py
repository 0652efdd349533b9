"""The dense model of as many parameters as a bank."""

import pytest

from bench.routing.load_routers import find
from tests import world


@pytest.mark.parametrize("num_experts", [2, 4, 8])
@pytest.mark.parametrize("active", [1.0, 2.0])
def test_it_has_the_parameters_of_the_bank_and_no_other_weights(
    num_experts: int, active: float
) -> None:
    dense = world.model(
        "dense_parameters", {"num_experts": num_experts, "mean_experts": active}, bracket=True
    )
    bank = world.model(
        "random", {"over": "experts", "num_experts": num_experts, "active_experts": active}
    )
    units = world.CONFIG.d_model * len(bank.solution.layers)
    work = (
        num_experts * bank.evaluation_ledger.routers / (6 * units * active)
    )  # the cost of the bank's own router narrows every expert
    total = [sum(p.numel() for p in model.decoder.parameters()) for model in (dense, bank)]
    assert abs((total[0] - total[1]) / (3 * units) - work) <= (num_experts + 1) / 2
    run = world.run_of(world.tokens())
    dense.decoder(run)
    assert all(trace.plan.mask.all() for trace in run.traces)


def test_it_takes_no_impossible_bank() -> None:
    with pytest.raises(ValueError, match="mean_experts is 5"):
        type(find("dense_parameters").make({}))(num_experts=4, mean_experts=5)
