"""Lists of cells: their order, and the rows that vary the learning rate."""

from pathlib import Path

from bench.config.load import parse_suite
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
