"""Lists of cells: their order, and the rows that vary the learning rate."""

from pathlib import Path

from bench.config.read_suite import parse_suite
from bench.runner.cells import plan_cells, sensitivity_rows
from tests.runner.suites import SUITE


def test_cells_come_seed_by_seed() -> None:
    suite = parse_suite(SUITE, "s")
    assert list(map(str, plan_cells(suite, suite.rows, [0, 2]))) == [
        "mlp_gate seed 0",
        "random@ffn seed 0",
        "mlp_gate seed 2",
        "random@ffn seed 2",
    ]


def test_a_row_of_several_router_seeds_has_a_cell_for_each_at_every_seed() -> None:
    rows = [{"name": "mlp_gate", "router_seeds": [2, 0]}, "hash"]
    suite = parse_suite({**SUITE, "rows": rows}, "s")
    cells = plan_cells(suite, suite.rows, [0, 1])
    assert list(map(str, cells)) == [
        *("mlp_gate seed 0", "mlp_gate seed 0 router 0", "hash seed 0"),
        *("mlp_gate seed 1", "mlp_gate seed 1 router 0", "hash seed 1"),
    ]
    assert [cell.row.router_seed for cell in cells] == [2, 0, 0, 2, 0, 0]


def test_each_backbone_is_trained_first_by_one_cell() -> None:
    rows = [{"name": "mlp_gate", "router_seeds": [0, 2]}, "hash"]
    frozen = {**SUITE, "regime": "controller", "pretrain": {"tokens": 100}, "rows": rows}
    suite = parse_suite(frozen, "s")
    cells = plan_cells(suite, suite.rows, [0, 1])
    assert [str(cell) for cell in cells[:2]] == ["mlp_gate seed 0", "mlp_gate seed 1"]
    assert len(cells) == 6


def test_sensitivity_rows_vary_the_rate_of_every_row_but_twins() -> None:
    rows = [
        "mlp_gate",
        {"name": "mlp_gate@twin", "role": "twin", "router_seed": 1},
        {"name": "hash", "lr_scale": 3.0},
    ]
    suite = parse_suite(
        {**SUITE, "rows": rows, "sensitivity": {"lr_scales": [0.5, 2.0], "seed": 77}}, "s"
    )
    found = sensitivity_rows(suite, suite.rows)
    expected = {
        f"{row}@lr{scale:g}": base * scale
        for row, base in (("mlp_gate", 1.0), ("hash", 3.0))
        for scale in (0.5, 1.0, 2.0)
    }
    assert {row.name: row.lr_scale for row in found} == expected
    assert sensitivity_rows(parse_suite(SUITE, "s"), suite.rows) == []


def test_plugin_files_go_to_the_rows_that_need_them() -> None:
    suite = parse_suite(SUITE, "s")
    mine = Path("mine.py")
    cells = plan_cells(suite, suite.rows, [0], [mine], frozenset({"random@ffn"}))
    assert [(cell.plugin_files, cell.outside) for cell in cells] == [((), False), ((mine,), True)]
