"""The control of a row chooses among the same paths: found under any name, or made."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.config.read_suite import load_suite, parse_suite, suite_names
from bench.config.suite import SuiteConfig
from bench.errors import UserError
from bench.model.assemble import solve_size
from bench.routing.load_routers import find
from bench.runner.cells import Cell
from bench.runner.controls import choice_kind, control_of, with_controls
from bench.runner.resolve import resolve
from bench.runner.rows import Rows, parse_rows
from tests import world
from tests.runner.suites import SUITE

CHANCE: dict[str, Any] = {"name": "chance", "router": "random", "role": "control"}
WIDE: dict[str, Any] = {"name": "wide", "router": "top2_moe", "options": {"num_experts": 16}}
PLUGIN = """
from bench.routing import BLOCK_GATE, Paths, Router, Site, experts, register

class Some(Router):
    def forward(self, inputs):
        raise NotImplementedError

@register("skips_ffn", family="tests")
class Skips(Some):
    paths = Paths(Site.FFN, ("skip", "full"), base="skip")

@register("seldom", family="tests")
class Seldom(Some):
    paths, mean_experts = experts(4), 0.5

@register("null", family="tests")
class Null(Some):
    paths, mean_experts = Paths(Site.FFN, ("expert0", "skip", "expert1")), 0.5

@register("shares_one", family="tests")
class Shares(Some):
    paths, mean_experts = experts(15, shared=1), 4.0

@register("staged", family="tests")
class Staged(Some):
    paths = BLOCK_GATE
    def inside(self):
        return Seldom()

@register("staged_skip", family="tests")
class StagedSkip(Some):
    paths, layers = BLOCK_GATE, "other"
    def inside(self):
        return Skips()

@register("beside_full", family="tests")
class BesideFull(Some):
    paths = Paths(Site.FFN, ("expert0", "expert1", "full"))
"""


def suite_of(*rows: Any, **changes: Any) -> SuiteConfig:
    return parse_suite({**SUITE, "routed_layers": [1, 2, 3], **changes, "rows": list(rows)}, "s")


def run_of(suite: SuiteConfig, routers: str = "all") -> tuple[SuiteConfig, Rows, list[str]]:
    return with_controls(suite, parse_rows(suite, routers))


def control(suite: SuiteConfig, name: str) -> str | None:
    row = suite.row(name)
    return control_of(suite, row, find(row.router).describe(row.options))


@pytest.mark.parametrize(
    ("row", "options", "same"),
    [
        ("mlp_gate", {}, True),
        ("mlp_gate", {"over": "ffn", "num_experts": 3}, True),  # of which "ffn" makes no use
        ("mlp_gate", {"layers": "other"}, False),
        ("mlp_gate", {"over": "block"}, False),
        ("mod", {"over": "block"}, True),
        ("mod", {"over": "block", "layers": "every"}, False),
        ("mod", {"over": "block", "capacity": 0.25}, False),
        ("top2_moe", {"over": "experts"}, True),
        ("top2_moe", {"over": "experts", "active_experts": 1}, False),
        ("top2_moe", {"over": "experts", "num_experts": 16}, False),
        ("hash", {"over": "experts", "active_experts": 1}, True),
        ("adaptive_moe", {"over": "experts", "active_experts": 1.2}, True),
        ("adaptive_moe", {"over": "experts", "active_experts": 1.25}, False),
    ],
)
def test_a_control_is_found_by_what_it_chooses(row: str, options: Any, same: bool) -> None:
    suite = suite_of(row, {**CHANCE, "options": options})
    assert control(suite, row) == ("chance" if same else None)
    assert control(suite, "chance") is None
    bracket = suite_of(row, {**CHANCE, "options": options, "role": "bracket"})
    assert control(bracket, row) is None


def test_of_several_the_first_of_the_role_control_is_taken() -> None:
    ranked, other = {**CHANCE, "role": "ranked"}, {**CHANCE, "name": "luck"}
    assert control(suite_of("mlp_gate", ranked), "mlp_gate") == "chance"
    assert control(suite_of("mlp_gate", ranked, other), "mlp_gate") == "luck"
    assert control(suite_of("mlp_gate", CHANCE, other), "mlp_gate") == "chance"


def test_layers_are_compared_as_they_are_used() -> None:
    """Every layer of one is every other of one."""
    every = {**CHANCE, "options": {"over": "block", "layers": "every"}}
    assert control(suite_of("mod", every), "mod") is None
    assert control(suite_of("mod", every, routed_layers=[2]), "mod") == "chance"


@pytest.mark.parametrize(
    ("row", "name", "options"),
    [
        ("mlp_gate", "random@ffn", {"over": "ffn"}),
        ("mod", "random@block", {"over": "block"}),
        (
            {"name": "mod", "options": {"layers": "every"}},
            "random@block-every",
            {"over": "block", "layers": "every"},
        ),
        (
            {"name": "mod", "options": {"capacity": 0.25}},
            "random@block-0.25",
            {"over": "block", "capacity": 0.25},
        ),
        (
            WIDE,
            "random@experts-16-2",
            {"over": "experts", "num_experts": 16, "active_experts": 2.0},
        ),
        (
            "adaptive_moe",
            "random@experts-8-1.2",
            {"over": "experts", "num_experts": 8, "active_experts": 1.2},
        ),
        (
            "deepseek_v3",
            "random@experts-16-4-1",
            {"over": "experts", "num_experts": 16, "active_experts": 4.0, "num_shared": 1},
        ),
    ],
)
def test_a_missing_control_is_made(row: Any, name: str, options: Any, text: Path) -> None:
    """Its model has the layers of the row's, the paths and the budget."""
    given = suite_of(row)
    suite, rows, said = run_of(given)
    made = rows.rows[-1]
    assert (made.name, made.router, made.role, made.options) == (name, "random", "control", options)
    assert suite.rows == (*given.rows, made) and list(rows.cards) == [given.rows[0].name, name]
    assert len(said) == 1 and said[0].startswith(
        f"added  {name}, the control of {rows.rows[0].name}:"
    )
    assert control(suite, given.rows[0].name) == name
    data = {"data": world.suite(text).data, "rows": suite.rows, "seq_len": 32}
    suite = world.suite(text).model_copy(update={**data, "routed_layers": given.routed_layers})
    mine, chance = (resolve(Cell(suite, one, 0)) for one in rows.rows)
    assert mine.cell_id.control == chance.cell_id.row == name
    (sized, _), (other, _) = solve_size(mine.blueprint()), solve_size(chance.blueprint())
    assert (sized.layers, sized.budget) == (other.layers, other.budget)
    # The cost of a given capacity follows from it, with the work of the row's own router.
    assert sized.target == pytest.approx(other.target, rel=0.01)
    assert {len(shares) for shares in sized.shares} == {len(chance.card.paths.names)}
    np.testing.assert_allclose(other.shares, sized.shares, atol=0.03)


def test_one_control_serves_all_rows_that_choose_the_same() -> None:
    other = {**WIDE, "name": "tall"}
    suite, rows, said = run_of(suite_of(WIDE, other, "mlp_gate"), "wide,tall")
    assert [row.name for row in rows.rows] == ["wide", "tall", "random@experts-16-2"]
    assert len(said) == 1 and "the control of wide, tall:" in said[0]
    # another run of the suite that holds the control adds nothing
    assert with_controls(suite, rows) == (suite, rows, [])


def test_rows_that_need_no_control_get_none() -> None:
    names = "dense,dense_matched,planted_oracle,mlp_gate@twin,random"
    twin = {"name": "mlp_gate@twin", "role": "twin", "router_seed": 1}
    suite = suite_of({"name": "dense", "role": "bracket"}, "mlp_gate", twin)
    _, rows, said = run_of(suite, names)
    assert [row.name for row in rows.rows] == names.split(",") and said == []


def test_a_control_of_the_command_line_serves() -> None:
    suite, _, said = run_of(suite_of(WIDE), "wide,random:over=experts:num_experts=16")
    assert said == [] and control(suite, "wide") == "random@over=experts+num_experts=16"


def test_options_on_the_command_line_may_ask_for_another_control() -> None:
    rows = (
        {**WIDE, "control": "chance"},
        {**CHANCE, "options": {**WIDE["options"], "over": "experts"}},
    )
    suite, _, said = run_of(suite_of(*rows), "wide:renormalise=false")
    assert said == [] and control(suite_of(*rows), "wide") == "chance"
    _, found, _ = run_of(suite, "wide:num_experts=4")
    assert found.rows[-1].name == "random@experts-4-2"


@pytest.mark.usefixtures("forked")
def test_the_control_of_each_kind_of_plugin(tmp_path: Path) -> None:
    """Each makes the choice of its row, inside the block too; of one kind `random` has none."""
    file = tmp_path / "some.py"
    file.write_text(PLUGIN, encoding="utf-8")
    names = {
        "skips_ffn": "random@ffn-skip",
        "seldom": "random@experts-4-0.5",
        "null": "random@experts-2-0.5-skip",
        "shares_one": "random@experts-15-3-1",
        "staged": "random@block-experts-4-0.5-every",
        "staged_skip": "random@block-ffn-skip",
    }
    suite = suite_of(*names, "beside_full")
    with world.own_registry():
        _, rows, said = with_controls(suite, parse_rows(suite, "all", [file]))
    assert [row.name for row in rows.rows[len(names) + 1 :]] == list(names.values())
    for row, made in names.items():
        mine, chance = choice_kind(rows.cards[row], suite), choice_kind(rows.cards[made], suite)
        assert mine == chance and rows.cards[made].name == "random"
    assert said[0] == (
        "no control  beside_full: 'random' has no option to choose 1 of 2 experts or full in "
        "layers 1, 2, 3"
    )
    assert "chooses skip or block with skip or full inside in layers 1, 3" in said[-1]


def test_a_choice_inside_the_block_is_compared_too() -> None:
    plain = {**CHANCE, "options": {"over": "block"}}
    staged = {"over": "block", "inside": "experts", "num_experts": 4, "active_experts": 1}
    assert control(suite_of("mod", {**CHANCE, "options": staged}), "mod") is None
    assert (
        control(suite_of("mod", {**CHANCE, "options": staged}, {**plain, "name": "b"}), "mod")
        == "b"
    )


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            ({**WIDE, "control": "chance"}, {**CHANCE, "options": {"over": "experts"}}),
            "Row 'wide' chooses 2 of 16 experts in layers 1, 2, 3; 'chance', which it names as its "
            "control, chooses 2 of 8 experts in layers 1, 2, 3. Leave",
        ),
        (
            ({"name": "mod", "control": "chance"}, CHANCE),
            "Row 'mod' chooses skip or block in layers 1, 3; 'chance', which it names as its "
            "control, chooses cheap or full in layers 1, 2, 3. Leave",
        ),
        (
            ({**WIDE, "control": "hash"}, "hash"),
            "Row 'wide' names the control 'hash'; a control is a row of the router 'random'",
        ),
        (
            ({"name": "mlp_gate", "control": "chance"}, {**CHANCE, "role": "bracket"}),
            "Row 'mlp_gate' names the control 'chance'; a control is a row of the router 'random'",
        ),
        (
            (WIDE, {**CHANCE, "name": "random@experts-16-2"}),
            "Row 'random@experts-16-2' does not choose 2 of 16 experts in layers 1, 2, 3, and",
        ),
    ],
)
def test_a_control_that_does_not_fit_is_refused_in_one_line(rows: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        run_of(suite_of(*rows))
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", suite_names())
def test_the_suites_list_the_controls_of_all_their_rows(name: str) -> None:
    suite = load_suite(name)
    after, rows, said = run_of(suite)
    assert (after, said) == (suite, [])
    cards = rows.cards
    for row in rows.rows:
        if found := control_of(suite, row, cards[row.name]):
            assert choice_kind(cards[found], suite) == choice_kind(cards[row.name], suite)
            assert (cards[found].name, suite.row(found).role) == ("random", "control")
        else:
            # The cost follows from the given capacity, so no control of the suite costs the same.
            own = row.role == "informed" and cards[row.name].capacity is not None
            assert own or row.role in ("bracket", "control")
