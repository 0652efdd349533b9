"""Which rows are ranked together, which are not, and why."""

from pathlib import Path

import pytest

from bench.board import build_board
from bench.board.build import boards_of
from bench.board.model import Board
from bench.config.row import RowConfig
from bench.errors import UserError
from tests.board.synthetic import CONFIG, QUICK, Kind, many, record, records, row_of, swept, write

EXTRA = Kind("extra", 2.1)


def board_with(*added) -> Board:
    return boards_of([*records(), *added])[0]


def names(rows) -> set[str]:
    return {row.name for row in rows}


def test_reruns_below_a_tree_are_on_no_board(tmp_path: Path):
    write(tmp_path, records())
    before = [board.title for board in build_board(tmp_path)]
    write(tmp_path / "reproduce", [record(QUICK[0], 0)])
    assert [board.title for board in build_board(tmp_path)] == before
    assert len(build_board(tmp_path / "reproduce")) == 1


def test_roles_decide_what_is_ranked():
    board = board_with()
    assert names(board.ranked) == {
        kind.row for kind in QUICK if kind.role in ("ranked", "control", "twin")
    }
    assert names(board.brackets) == {"dense", "cheap"}
    assert names(board.informed) == {"tag"}
    assert board.dense is not None and board.dense.name == "dense"


def test_speed_is_measured_against_the_dense_model_and_not_a_larger_bracket():
    made = record(Kind("dense_parameters", 2.0, "bracket", "bracket", "", None, ("full",), 1.0), 0)
    assert made.flops is not None
    larger = made.model_copy(
        update={"flops": made.flops.model_copy(update={"active": 2 * made.flops.dense})}
    )
    board = board_with(larger)
    assert board.dense is not None and board.dense.name == "dense"


@pytest.mark.parametrize("status", ["failed", "diverged", "invalid", "off_budget"])
def test_one_bad_seed_takes_the_row_out_and_says_why(status):
    bad = record(EXTRA, 1, status=status, reason="the cause.")
    board = board_with(record(EXTRA, 0), bad, record(EXTRA, 2))
    (row,) = board.unranked
    assert (row.name, row.status, row.reason) == ("extra", status, "seed 1: the cause")
    assert set(row.losses) == {0, 2}


def test_the_worst_status_of_a_row_names_its_section():
    board = board_with(
        record(EXTRA, 0, status="off_budget", reason="a"),
        record(EXTRA, 1, status="failed", reason="b"),
        record(EXTRA, 2),
    )
    assert board.unranked[0].status == "failed"
    assert board.unranked[0].reason == "seed 0: a; seed 1: b"


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_never_ranked(loss):
    board = board_with(*(record(EXTRA, seed, loss=loss) for seed in range(3)))
    assert board.unranked[0].status == "invalid"
    assert "no finite loss" in board.unranked[0].reason


def test_missing_seeds_are_shown_not_ranked_and_extra_ones_left_out():
    longer = Kind("longer", 2.0)
    board = board_with(record(EXTRA, 0), *(record(longer, seed) for seed in range(5)))
    assert board.seeds == (0, 1, 2)
    assert [(row.name, row.reason) for row in board.unranked] == [
        ("extra", "has seeds 0; a comparison needs two of 0-2")
    ]
    (kept,) = [row for row in board.ranked if row.name == "longer"]
    assert set(kept.losses) == {0, 1, 2}
    assert "3-4" in kept.reason


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rules_version", 99, "rules version 99"),
        ("data_hash", "other", "data other"),
        ("config_hash", "other", "configuration at equal flops other"),
        ("device", "cuda:NVIDIA H100", "device cuda:NVIDIA H100"),
        ("threads", 2, "threads 2"),
        ("dtype", "bfloat16", "dtype bfloat16"),
        ("versions", {"torch": "2.11.0"}, "torch 2.11.0"),
    ],
)
def test_records_of_other_conditions_are_not_ranked_with_the_rest(field, value, said):
    board = board_with(*(record(EXTRA, seed, provenance={field: value}) for seed in range(3)))
    assert "extra" not in names(board.ranked)
    assert {one.cell.row for one, _ in board.apart} == {"extra"}
    assert all(said in why for _, why in board.apart)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("sources of the plugin", {"provenance": {"router_hash": "b"}}),
        ("options", {"row": RowConfig(name="extra", options={"k": 2})}),
    ],
)
def test_a_row_whose_seeds_are_different_experiments_is_mixed(part, changes):
    board = board_with(record(EXTRA, 0), record(EXTRA, 1), record(EXTRA, 2, **changes))
    assert board.unranked[0].status == "mixed"
    assert part in board.unranked[0].reason


def test_budgets_are_boards_and_equal_tokens_is_inside():
    competing = [kind for kind in QUICK if kind.role in ("ranked", "control")]
    boards = boards_of(
        [*records(), *records(competing, match="tokens"), *records(QUICK, budget=0.25)]
    )
    assert [(board.budget, board.match, board.title) for board in boards] == [
        (0.5, "flops", "quick at 50 % budget"),
        (0.25, "flops", "quick at 25 % budget"),
    ]
    tokens = boards[0].equal_tokens
    assert tokens is not None and tokens.match == "tokens"
    assert names(tokens.ranked) == {kind.row for kind in competing}
    assert {row.first.cell.budget for row in boards[0].other_budgets} == {0.25}


def test_learning_rate_variants_are_never_ranked():
    board = board_with(*(swept("mlp_gate", factor, 1.0) for factor in (0.5, 1.0, 2.0)))
    assert board.seeds == (0, 1, 2)
    assert names(board.sensitivity) == {"mlp_gate@lr0.5", "mlp_gate@lr1", "mlp_gate@lr2"}
    assert not any("@lr" in name for name in names(board.ranked) | names(board.unranked))


def test_a_row_that_is_called_like_a_learning_rate_variant_is_ranked():
    board = board_with(*(record(Kind("mlp_gate@lr2", 2.0), seed) for seed in range(3)))
    assert "mlp_gate@lr2" in names(board.ranked) and not board.sensitivity


def test_a_twin_is_compared_with_the_row_that_it_repeats():
    twin = Kind("other", 2.08, "twin")
    rows = {"row": row_of(twin, router="mod", router_seed=3)}
    board = board_with(*(record(twin, seed, **rows) for seed in range(3)))
    assert {(floor.row, floor.twin) for floor in board.judgement.noise} == {
        ("mlp_gate", "mlp_gate@twin"),
        ("mod", "other"),
    }


def test_boards_come_from_disk_by_suite(tmp_path: Path):
    write(tmp_path, records(QUICK[:3]))
    write(
        tmp_path,
        records(
            QUICK[:3], cell={"suite": "smoke"}, provenance={"config": {**CONFIG, "name": "smoke"}}
        ),
    )
    assert [board.suite for board in build_board(tmp_path)] == ["quick", "smoke"]
    assert [board.suite for board in build_board(tmp_path, "smoke")] == ["smoke"]


def test_bad_roots_are_refused_in_one_line(tmp_path: Path):
    with pytest.raises(UserError, match="No records below"):
        build_board(tmp_path)
    write(tmp_path, records(many(1)[:1], [0]))
    with pytest.raises(UserError, match=r"Unknown suite 'quack'\. Did you mean 'quick'\?"):
        build_board(tmp_path, "quack")


def test_an_edited_record_and_a_doubled_cell_are_refused_by_name(tmp_path: Path):
    write(tmp_path, records(QUICK[:1]))
    path = sorted(tmp_path.rglob("seed-1.json"))[0]
    original = path.read_text()
    path.write_text(original.replace('"loss": 2.', '"loss": 1.', 1))
    with pytest.raises(UserError, match=r"seed-1\.json does not match its own digest"):
        build_board(tmp_path)
    path.write_text(original)
    for part in path.parent.glob("seed-1.*"):
        part.with_name(part.name.replace("seed-1", "seed-7")).write_bytes(part.read_bytes())
    with pytest.raises(
        UserError, match=r"seed-1\.json.*records of one cell|seed-7\.json.*records of one cell"
    ):
        build_board(tmp_path)


def test_rows_that_the_suite_declared_and_nobody_ran_count_in_the_correction():
    late = {"name": "late", "role": "ranked", "control": "random@ffn"}
    config = {
        **CONFIG,
        "rows": [{"name": kind.row, "role": kind.role, "control": ""} for kind in QUICK] + [late],
    }
    command = "python -m bench run --suite quick --official"
    alone, declared = (
        boards_of(records(provenance={"config": one, "command": command}))[0].judgement
        for one in (CONFIG, config)
    )
    assert declared.absent == ("late",) and alone.absent == ()
    for pair, outcome in alone.outcomes.items():
        assert declared.outcomes[pair].detectable > outcome.detectable
        assert declared.outcomes[pair].p_adjusted >= outcome.p_adjusted
    assert declared.ranks.keys() == alone.ranks.keys()
    assert max(rank.high for rank in declared.ranks.values()) == len(declared.ranks)


def test_two_rows_that_name_each_other_as_control_are_one_comparison():
    crossed = [
        record(Kind(a, 2.0), seed, cell={"control": b})
        for a, b in (("left", "right"), ("right", "left"))
        for seed in range(3)
    ]
    plan = board_with(*crossed).judgement.plan
    assert plan is not None
    assert [{pair.row, pair.control} for pair in plan.family("primary")].count(
        {"left", "right"}
    ) == 1


def test_boards_with_more_seeds_come_first(tmp_path: Path) -> None:
    for suite, seeds in (("a", range(3)), ("z", range(6))):
        made = records(seeds=[*seeds])
        cells = [one.cell.model_copy(update={"suite": suite}) for one in made]
        write(
            tmp_path,
            [one.model_copy(update={"cell": cell}) for one, cell in zip(made, cells, strict=True)],
        )
    boards = build_board(tmp_path)
    assert [board.suite for board in boards] == ["z", "a"]
