"""What a board says in its first sentence rests on comparisons that were made."""

from bench.board.build import boards_of
from bench.board.remarks import summary
from tests.board.synthetic import CONFIG, Kind, record, records

SEEDS = range(3)


def test_nothing_is_said_of_a_comparison_that_was_not_made() -> None:
    alone = [record(Kind("mlp_gate", 2.0, control=None), seed) for seed in SEEDS]
    other = [record(Kind("mod", 2.2, control=None), seed) for seed in SEEDS]
    said = summary(boards_of([*alone, *other])[0])
    assert "2 routers and no control to compare with" in said and "beat" not in said
    assert "random choice" in summary(boards_of(records())[0])


def test_the_unrouted_control_is_found_under_a_name_of_its_own() -> None:
    rows = [{"name": "narrow", "router": "dense_matched", "role": "control"}]
    made = {"config": {**CONFIG, "rows": rows}}
    kinds = (Kind("narrow", 2.3, "control", "control", "", None), Kind("mod", 2.0, control=None))
    board = boards_of([record(kind, seed, provenance=made) for kind in kinds for seed in SEEDS])[0]
    assert board.matched_control == "narrow"
    assert "1 of 1 router beat narrow" in summary(board)
