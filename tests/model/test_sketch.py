"""A sketch has the sizes and prices of the model that is built."""

import pytest

from bench.model.assemble import assemble
from bench.model.sketch import sketch
from tests import world


@pytest.mark.parametrize("router", ["mlp_gate", "top2_moe", "hash", "mod", "dense", "random"])
def test_sizes_and_prices_are_those_of_the_model(router: str) -> None:
    blueprint = world.blueprint(router)
    drawn, built = sketch(blueprint), assemble(blueprint, seed=0)
    assert drawn.solution == built.solution
    assert drawn.parameters == sum(p.numel() for p in built.decoder.parameters())
    shares = drawn.solution.shares
    assert drawn.ledger.at(shares) == pytest.approx(built.ledger.at(shares), rel=1e-12)
    assert drawn.learns == (router not in ("dense", "random"))


def test_a_relaxed_gate_trains_every_path_and_a_bracket_one() -> None:
    assert set(sketch(world.blueprint("mlp_gate", {"estimator": "relaxed"})).shares) == {(1, 1)}
    assert set(sketch(world.blueprint("dense", bracket=True)).shares) == {(0, 1)}
    assert set(sketch(world.blueprint("cheap", bracket=True)).shares) == {(1, 0)}
    gate = sketch(world.blueprint("mlp_gate"))
    assert gate.shares == gate.solution.shares
