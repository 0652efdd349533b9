"""Rows from records: their common seeds, and why one is not ranked."""

from collections.abc import Iterable

import pytest

from bench.board.build import boards_of
from bench.board.model import Row
from bench.board.rows import checked_row, common_seeds, group_rows, preferring
from bench.pages.remarks import remarks
from bench.record import Record
from tests.board.synthetic import CONFIG, QUICK, Kind, record, records, replicas, row_of

GATE, CHANCE = Kind("mlp_gate", 2.0), Kind("random@ffn", 2.2, "control", control=None)


def row(name: str, seeds: Iterable[int]) -> Row:
    return Row(name, tuple(record(Kind(name, 2.0), seed) for seed in seeds))


def test_further_seeds_of_one_of_two_rows_take_no_verdict_away() -> None:
    few = [record(kind, seed) for kind in (GATE, CHANCE) for seed in range(3)]
    more = [record(GATE, seed) for seed in range(3, 9)]
    before, after = boards_of(few)[0], boards_of([*few, *more])[0]
    assert before.judgement.outcomes["mlp_gate", "random@ffn"].verdict == "better"
    assert after.judgement.outcomes == before.judgement.outcomes
    assert not after.unranked
    (extended,) = [row for row in after.ranked if row.name == "mlp_gate"]
    assert extended.reason == "seeds 3-8 left out: they are not common to the rows"


@pytest.mark.parametrize(
    ("held", "chosen"),
    [
        ([range(3), range(3)], (0, 1, 2)),
        ([range(3), range(9)], (0, 1, 2)),
        ([range(1, 4), range(3)], (1, 2)),
        ([range(6)] * 5 + [range(2)], tuple(range(6))),
        ([range(3)] * 5 + [range(9)], (0, 1, 2)),
        ([range(2), range(2, 4)], (0, 1)),
        ([range(1)], (0,)),
        ([], ()),
    ],
)
def test_the_largest_set_that_most_rows_hold(held: list[range], chosen: tuple[int, ...]) -> None:
    assert common_seeds([row(f"r{n}", seeds) for n, seeds in enumerate(held)]) == chosen


def test_records_are_grouped_by_row_and_sorted_by_seed() -> None:
    found = group_rows(records(QUICK[:3], [2, 0, 10])[::-1])
    assert [one.name for one in found] == sorted(kind.row for kind in QUICK[:3])
    assert all([r.cell.seed for r in one.records] == [0, 2, 10] for one in found)


def test_a_row_of_the_other_mode_stands_in_where_the_wanted_one_is_missing() -> None:
    made = [*records(QUICK[1:2]), *records(QUICK[1:4], match="tokens")]
    found = {one.name: one.first.cell.match for one in preferring("flops", made)}
    assert found == {"mlp_gate": "flops", "mlp_gate@twin": "tokens", "mod": "tokens"}


def test_a_seed_that_lacks_a_router_seed_is_left_out() -> None:
    seeds = [replicas(GATE, seed, {0: 2.0, 2: 2.1}) for seed in range(3)]
    (row,) = group_rows([*seeds[0], *seeds[1][:1], *seeds[2]])
    found = checked_row(row, (0, 1, 2))
    assert (found.status, len(found.records)) == ("ok", 4)
    assert found.reason.startswith("compared on 2 of 3 seeds (0, 2)")
    assert found.reason.endswith("seeds 1 left out: a router seed is missing")
    lone = checked_row(row, (1, 2))
    assert lone.status == "incomplete"
    assert lone.reason.startswith("has seeds 0, 2 (each of router seeds 0, 2); ")
    fewer = checked_row(row, (0, 2))
    assert (fewer.status, len(fewer.records)) == ("ok", 4)
    assert fewer.reason == "seeds 1 left out: a router seed is missing"
    (none,) = group_rows([*seeds[0][:1], *seeds[1][1:]])
    assert checked_row(none, ()).status == "incomplete"


@pytest.mark.parametrize(
    ("made", "status", "reason"),
    [
        (records([GATE]), "ok", ""),
        (records([GATE], range(4)), "ok", "seeds 3 left out: they are not common to the rows"),
        (records([GATE], [0, 2]), "ok", "compared on 2 of 3 seeds (0, 2)"),
        (
            records([GATE], [1, 5]),
            "incomplete",
            "has seeds 1, 5; a comparison needs two of 0-2",
        ),
        (
            [record(GATE, 0), *(record(GATE, n, status="failed", reason="x.") for n in (1, 2))],
            "failed",
            "seeds 1-2: x",
        ),
        (
            [*records([GATE], [0, 1]), record(GATE, 2, loss=None)],
            "invalid",
            "seed 2: no finite loss",
        ),
        (
            [*records([GATE], [0, 1]), record(GATE, 2, row=row_of(GATE, options={"a": 1}))],
            "mixed",
            "its seeds were run with 2 different options",
        ),
        (
            [*records([GATE], [0, 1]), record(GATE, 2, row=row_of(GATE, lr_scale=2.0))],
            "mixed",
            "its seeds were run with 2 different recipes",
        ),
    ],
)
def test_a_status_has_its_reason(made: list[Record], status: str, reason: str) -> None:
    found = checked_row(group_rows(made)[0], (0, 1, 2))
    assert (found.status, found.reason) == (status, reason)
    assert status != "ok" or set(found.losses) <= {0, 1, 2}


def test_a_record_that_names_no_control_leaves_the_others_theirs() -> None:
    """One that a study made, whose rows hold none."""
    none, other = {"control": None}, {"control": "luck"}
    mine = [record(GATE, 0, cell=none), record(GATE, 1), record(GATE, 2)]
    board = boards_of([*mine, *records([CHANCE])])[0]
    assert board.judgement.outcomes["mlp_gate", "random@ffn"].n == 3
    board = boards_of([mine[1], record(GATE, 0, cell=other), *records([CHANCE])])[0]
    assert [row.status for row in board.unranked] == ["mixed"]


def test_a_row_of_fewer_seeds_is_compared_on_those_that_both_have() -> None:
    """A board of these seeds alone gives the same verdict and place."""
    mild, late = Kind("mild", 2.05), Kind("late", 2.08)
    rows = [record(kind, seed) for kind in (GATE, CHANCE, mild) for seed in range(6)]
    # the first seeds are easy, so that its own mean is the lowest
    few = [record(late, seed) for seed in range(3)]
    easy = [r.model_copy(update={"loss": (r.loss or 0) - (r.cell.seed < 3)}) for r in rows + few]
    board = boards_of(easy)[0]
    assert board.seeds == tuple(range(6)) and not board.unranked
    assert [row.name for row in board.ranked] == ["mlp_gate", "mild", "late", "random@ffn"]
    found = board.judgement.outcomes["late", "random@ffn"]
    assert (found.verdict, found.seeds) == ("better", (0, 1, 2))
    assert found.notes == "3 of 6 seeds are common to both rows."
    assert "late: compared on 3 of 6 seeds (0-2)." in remarks(board, str)
    assert board.judgement.outcomes["mlp_gate", "random@ffn"].n == 6
    by_seed = {r.cell.seed: r.loss or 0 for r in easy if r.cell.row == "random@ffn"}
    gaps = [(r.loss or 0) - by_seed[r.cell.seed] for r in easy if r.cell.row == "late"]
    assert found.difference == pytest.approx(sum(gaps) / 3)


def test_a_row_without_two_seeds_of_the_look_is_incomplete() -> None:
    """Seeds beyond the look are left out, so a row that has those alone cannot be paired."""
    made = {"config": {**CONFIG, "comparison": {"margin": 0.01, "looks": [3, 6]}}}
    rows = [record(kind, seed, provenance=made) for kind in (GATE, CHANCE) for seed in range(5)]
    late = [record(Kind("late", 2.1), seed, provenance=made) for seed in (2, 3, 4)]
    board = boards_of([*rows, *late])[0]
    assert [row.name for row in board.ranked] == ["mlp_gate", "random@ffn"]
    (row,) = board.unranked
    said = "has seeds 2-4; a comparison needs two of 0-2"
    assert (row.status, row.reason) == ("incomplete", said)
