"""The paths of a site by name, against products written out."""

import torch

from bench.backbone.sites import PathSet, is_block
from bench.rng import normal
from bench.routing.load_routers import find
from bench.routing.paths import BLOCK_GATE, FFN_GATE, Paths, Site, experts

D, WIDTH, RANK, EXPERT = 8, 12, 2, 6


def built(paths: Paths) -> PathSet:
    made = PathSet(paths, D, WIDTH, RANK, EXPERT)
    made.reset(lambda name, rows, columns: normal(0, name, rows, columns))
    return made


def test_each_name_runs_its_own_path() -> None:
    made = built(Paths(Site.FFN, ("cheap", "skip", "expert0", "full", "expert1")))
    for parameter in made.parameters():  # weights that start at zero test nothing
        parameter.data.add_(0.1)
    x = torch.randn(5, D)
    torch.testing.assert_close(made.run(0, x), made.cheap(x))
    assert made.run(1, x) is None
    torch.testing.assert_close(made.run(2, x), made.bank(x, 0))
    torch.testing.assert_close(made.run(3, x), made.full(x))
    torch.testing.assert_close(made.run(4, x), made.bank(x, 1))
    assert not torch.equal(made.run(2, x), made.run(4, x))


def test_a_path_costs_its_products() -> None:
    made = built(Paths(Site.FFN, ("cheap", "skip", "expert0", "full")))
    assert [made.flops(index) for index in range(4)] == [
        2 * 2 * D * RANK,
        0,
        2 * 3 * D * EXPERT,
        2 * 3 * D * WIDTH,
    ]


def test_experts_take_their_units_from_the_draw_of_the_full_path() -> None:
    bank, full = built(experts(2)).bank, built(FFN_GATE).full
    units = bank.gate.flatten(0, 1)
    assert torch.equal(units, full.gate.flatten(0, 1)[: len(units)])


def test_a_bank_is_all_experts() -> None:
    assert built(experts(3)).is_bank and not built(FFN_GATE).is_bank


def test_block_routers_are_those_with_block_paths() -> None:
    assert is_block(find("mod").make({})) and not is_block(find("mlp_gate").make({}))
    assert find("mod").make({}).paths == BLOCK_GATE
