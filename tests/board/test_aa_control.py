"""What is said of twins, and of rows that are means over several router seeds."""

from statistics import fmean, variance

import numpy as np
import pytest

from bench.board.aa_control import aa_control, router_seeds
from bench.board.build import boards_of
from bench.board.limits import limits
from bench.board.model import Board
from bench.board.text import BITS, number
from bench.config.row import RowConfig
from bench.record import Record
from bench.stats import NoiseFloor
from tests.board.synthetic import CONFIG, QUICK, Kind, records, replicas

GATE, CHANCE = QUICK[1], QUICK[7]
TWINS = (Kind("mlp_gate@twin", 2.08, "twin"), Kind("mlp_gate@twin-2", 2.08, "twin"))
DRAWS = {"mlp_gate": (0, 2, 4), "mlp_gate@twin": (1, 3, 5), "mlp_gate@twin-2": (6, 7, 8)}


def made(shift: float, tasks: int = 8, **comparison: object) -> list[Record]:
    """A gate and two twins of three router seeds each; `shift` moves the second twin."""
    rng = np.random.default_rng(0)
    found = records([CHANCE], range(tasks))
    rows = [RowConfig(name=n, router_seeds=own).canonical() for n, own in DRAWS.items()]
    config = {**CONFIG, "rows": rows, "comparison": {**CONFIG["comparison"], **comparison}}
    for kind in (GATE, *TWINS):
        moved = shift * (kind.row == "mlp_gate@twin-2")
        for task in range(tasks):
            losses = {s: 2.0 + moved + float(rng.normal(0, 0.03)) for s in DRAWS[kind.row]}
            found += replicas(kind, task, losses, provenance={"config": config})
    return found


def board(*arguments: float, **comparison: object) -> Board:
    (one,) = boards_of(made(*arguments, **comparison))
    return one


def test_every_twin_is_tested_and_counted() -> None:
    sound, shifted = board(0.0), board(0.3)
    assert {floor.twin for floor in sound.judgement.noise} == set(DRAWS) - {"mlp_gate"}
    said = aa_control(sound.judgement.noise, str)
    assert [line.endswith("; not significant.") for line in said] == [True, True, False]
    assert said[-1] == "None of 2 twins differs significantly from its row."
    said = aa_control(shifted.judgement.noise, str)
    assert said[-1].startswith("The A/A control fails: 1 of 2 twins differs significantly")
    (floor,) = [one for one in shifted.judgement.noise if not one.passed]
    assert said[-1].startswith("The A/A control fails")
    assert said[-1].endswith(f"up to {number(BITS * abs(floor.difference), 4)} bits per byte.")


@pytest.mark.parametrize(("passed", "lines"), [(True, 1), (False, 2), (None, 1)])
def test_one_twin_is_explained_only_where_it_fails(passed: bool | None, lines: int) -> None:
    floor = NoiseFloor("gate", "twin", 3, 0.01, 0.01, 0.02, 0.03, 0.5, passed)
    assert len(aa_control([floor], str)) == lines


def test_an_interval_without_0_that_does_not_count_at_this_look_is_explained() -> None:
    early = NoiseFloor("gate", "twin", 3, 0.1, 0.01, 0.02, 0.03, 0.01, True)
    (said,) = aa_control([early], str)
    assert said.endswith("; not significant at the corrected level of this look.")


def test_the_spread_between_router_seeds_is_the_pooled_sd_within_a_seed() -> None:
    (said,) = router_seeds(board(0.0), str)
    own = [one for one in made(0.0) if one.cell.row == "mlp_gate"]
    within = [
        variance(one.loss for one in own if one.cell.seed == task and one.loss) for task in range(8)
    ]
    assert f"mlp_gate (3, SD {number(BITS * fmean(within) ** 0.5, 4)})" in said
    assert "random@ffn" not in said
    assert router_seeds(boards_of(records())[0], str) == []


def test_what_was_declared_to_be_said_is_said() -> None:
    said = "A look at thirty tasks was added after the A/A control had failed."
    assert f"History: {said}" in limits(board(0.0, remark=said))
    assert not any(said in line for line in limits(board(0.0)))
