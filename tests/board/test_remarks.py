"""Remarks rest on the numbers, and on comparisons that were made."""

from bench.board import render_leaderboard, render_report
from bench.board.build import boards_of
from bench.board.model import Board
from bench.board.remarks import (
    disagreements,
    pretraining_apart,
    remarks,
    summary,
    waivers,
)
from bench.board.text import listing, plain
from bench.record import CheckOutcome, Record, Status
from tests.board.synthetic import CONFIG, QUICK, Kind, record, records

SEEDS = range(3)
BOARD = boards_of(records())[0]


def test_nothing_is_said_of_a_comparison_that_was_not_made() -> None:
    alone = [record(Kind("mlp_gate", 2.0, control=None), seed) for seed in SEEDS]
    other = [record(Kind("mod", 2.2, control=None), seed) for seed in SEEDS]
    said = summary(boards_of([*alone, *other])[0])
    assert "2 routers, and no control to compare with." in said and "beat" not in said
    assert "random choice" in summary(boards_of(records())[0])


def test_the_unrouted_control_is_found_under_a_name_of_its_own() -> None:
    rows = [{"name": "narrow", "router": "dense_matched", "role": "control"}]
    made = {"config": {**CONFIG, "rows": rows}}
    kinds = (Kind("narrow", 2.3, "control", "control", "", None), Kind("mod", 2.0, control=None))
    board = boards_of([record(kind, seed, provenance=made) for kind in kinds for seed in SEEDS])[0]
    assert board.matched_control == "narrow"
    assert "1 of 1 router beats narrow, " in summary(board)


def test_the_summary_counts_the_routers_that_win() -> None:
    def wins(board: Board, matched: bool) -> int:
        routers = [row for row in board.ranked if row.role == "ranked"]
        found = [
            board.outcome(row, "dense_matched" if matched else row.first.cell.control)
            for row in routers
        ]
        return sum(one.verdict == "better" and one.winner == one.row for one in found if one)

    said = summary(BOARD)
    for count, name in (
        (wins(BOARD, False), "random choice on the same paths."),
        (wins(BOARD, True), "dense_matched, the unrouted model of the same cost."),
    ):
        assert f" {count} of 5 routers {'beats' if count == 1 else 'beat'} {name}" in said
    failed = boards_of([record(QUICK[1], 0, status="failed", reason="x")])[0]
    assert summary(failed) == "No router can be ranked yet."


def test_a_router_that_could_not_be_tested_is_not_counted_and_its_control_is_explained() -> None:
    kinds = [kind for kind in QUICK if kind.row != "random@block"]
    lost = [record(Kind("random@block", 2.19, "control"), seed) for seed in (0, 2)]
    missed = record(
        Kind("random@block", 2.19, "control"), 1, status="off_budget", reason="spends 1.04 of B"
    )
    (board,) = boards_of([*records(kinds), *lost, missed])
    assert "of 4 tested routers" in summary(board)
    assert "on the same paths; mod could not be tested. " in summary(board)
    said = remarks(board, str)
    assert (
        "random@block missed the budget in seed 1, so the whole row is left out, and mod cannot "
        "be compared with it." in said
    )
    assert not any("seeds are common" in line or "Not run" in line for line in said)


def test_the_best_row_and_those_that_are_not_significantly_worse_are_named() -> None:
    ranks = BOARD.judgement.ranks
    first, *others = [row.name for row in BOARD.ranked if ranks[row.name].tier == 1]
    wanted = f"Lowest loss: {first}. Not significantly worse: {listing(others)}."
    assert others and summary(BOARD).endswith(wanted)


def test_the_twin_is_said() -> None:
    said = remarks(BOARD, str)
    assert any(
        line.startswith("A/A control: mlp_gate minus its copy mlp_gate@twin is") for line in said
    )
    assert pretraining_apart(2.5e9).startswith("The frozen backbone of a seed took 2.5")


def test_checks_that_were_waived_are_named_with_what_was_seen() -> None:
    """Of a ranked row, of a failed one, and of a router that the row's own wraps."""

    def made(row: str, status: Status = "ok", *checks: tuple[str, str, str]) -> list[Record]:
        found = [
            CheckOutcome.model_validate(
                {"router": router, "check": check, "status": "waived", "reason": why}
            )
            for router, check, why in checks
        ]
        passed = CheckOutcome(router=row, check="causal", status="passed")
        kind = Kind(row, 2.0, control=None)
        return [record(kind, s, status=status, checks=(passed, *found)) for s in SEEDS]

    fair = made("fair")
    mine = made("mine", "ok", ("mine", "learns", "saw 0.3"), ("inner", "bfloat16", "x" * 500))
    lost = made("lost", "failed", ("lost", "parameters_change", ""))
    board = boards_of([*fair, *mine, *lost])[0]
    assert waivers(board, plain) == [
        "lost fails checks that were waived: parameters_change",
        f"mine fails checks that were waived: learns (saw 0.3); inner: bfloat16 ({'x' * 79}…)",
    ]
    page, report = render_leaderboard([board], command="x"), render_report([board])
    assert "| `mine` ‖ " in page and "| `fair`   " in page and "- `lost` ‖ (" in page
    for text in (page, report):
        assert (
            "‖ mine fails checks that were waived: learns (saw 0.3); inner: bfloat16 (xxx" in text
        )
    assert waivers(BOARD, plain) == []


def test_rankings_that_put_rows_in_other_tiers_disagree() -> None:
    kinds = [QUICK[0], Kind("a", 2.0), Kind("b", 2.5), QUICK[7]]
    swapped = [QUICK[0], Kind("a", 2.5), Kind("b", 2.0), QUICK[7]]

    def board(other: list[Kind]) -> Board:
        seeds = range(8)
        return boards_of([*records(kinds, seeds), *records(other, seeds, match="tokens")])[0]

    tiers = board(swapped).judgement.ranks
    said = disagreements(board(swapped), str)
    assert said.startswith("The two rankings disagree on ")
    assert f"a (tier {tiers['a'].tier} against " in said and "b (tier " in said
    assert tiers["a"].tier < tiers["b"].tier
    assert "all 4 rows that both hold in the same tiers" in disagreements(board(kinds), str)
    assert disagreements(BOARD, str) == ""
