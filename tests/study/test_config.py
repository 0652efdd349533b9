"""A declaration: which rows run where, and where each comparison is made."""

from tests.study import made

ROWS = [
    {"name": "mlp_gate", "about": "the gate", "series": "gate", "at": 1.0},
    {"name": "mlp_gate@wide", "options": {"width_ratio": 0.5}, "settings": ["half"]},
    {"name": "random@ffn", "role": "control", "options": {"over": "ffn"}},
]
CUT = {"seeds": 2, "first_seed": 5, "core_minutes": 1, "rows": ["mlp_gate", "random@ffn"]}
DECLARED = made.study(rows=ROWS, sizes={"small": {**CUT, "settings": ["quarter"]}, "full": CUT})


def test_a_grid_holds_the_rows_of_the_size_that_name_the_setting() -> None:
    whole = made.study(rows=ROWS)
    grid = whole.grid(whole.size("small"))
    assert {setting: [row.name for row in rows] for setting, rows in grid.items()} == {
        "half": ["mlp_gate", "mlp_gate@wide", "random@ffn"],
        "quarter": ["mlp_gate", "random@ffn"],
    }
    small = DECLARED.grid(DECLARED.size("small"))
    assert {setting: len(rows) for setting, rows in small.items()} == {"quarter": 2}
    assert list(DECLARED.size("small").numbers) == [5, 6]


def test_a_comparison_is_made_where_both_rows_stand() -> None:
    beats, width = DECLARED.comparisons
    assert DECLARED.places(beats) == [("half",), ("quarter",)]
    assert DECLARED.places(beats, DECLARED.size("small")) == [("quarter",)]
    assert DECLARED.places(width) == [("half",)]
    assert DECLARED.places(width, DECLARED.size("full")) == []
    assert (DECLARED.margin_of(beats), DECLARED.margin_of(width)) == (0.01, 0.02)


def test_a_row_runs_as_a_suite_would_list_it() -> None:
    plain = [row.plain().model_dump(exclude_unset=True) for row in DECLARED.rows]
    assert [set(row) & {"about", "series", "at", "settings", "figures"} for row in plain] == [
        *(set[str](),) * 3
    ]
    assert [row["name"] for row in plain] == [row["name"] for row in ROWS]
    assert plain[1]["options"] == {"width_ratio": 0.5}
