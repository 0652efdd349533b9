"""The declaration of a board: that of most records, with all others named."""

from bench.board.build import boards_of
from bench.board.declarations import declaration_of
from tests.board.synthetic import CONFIG, Kind, record, records
from tests.board.test_build import EXTRA, board_with


def test_the_declaration_of_most_records_holds_and_others_are_noted():
    other = {**CONFIG, "comparison": {"margin": 0.5}}
    board = board_with(*(record(EXTRA, seed, provenance={"config": other}) for seed in range(3)))
    assert board.judgement.plan is not None and board.judgement.plan.margin == 0.01
    assert any("3 of 33 ranked records" in note for note in board.judgement.notes)


IMPOSSIBLE = {**CONFIG, "comparison": {"margin": 0.02, "looks": [1]}}


def test_looks_that_cannot_be_held_are_left_out_with_a_note_and_do_not_spoil_the_records():
    """Suites that declare them are refused now; records of such a suite must still make a board."""
    (board,) = boards_of(records(provenance={"config": IMPOSSIBLE}))
    assert board.judgement.plan is not None
    assert (board.judgement.plan.margin, board.judgement.plan.looks) == (0.02, ())
    assert any(
        "declared at seeds 1, which cannot be held" in note for note in board.judgement.notes
    )
    assert [row.name for row in board.ranked] == [row.name for row in board_with().ranked]


def test_looks_that_cannot_be_held_have_no_vote_beside_a_declaration_that_can():
    mended = {**CONFIG, "comparison": {"margin": 0.02, "looks": [3]}}
    old = records(seeds=[0, 1], provenance={"config": IMPOSSIBLE})
    (board,) = boards_of([*old, *records(seeds=[2], provenance={"config": mended})])
    assert board.judgement.plan is not None and board.judgement.plan.looks == (3,)
    assert any("20 of 30 ranked records" in note for note in board.judgement.notes)
    assert not any("cannot be held" in note for note in board.judgement.notes)


def test_the_difference_of_two_declarations_is_said_and_both_schedules_are_kept() -> None:
    kind = Kind("mlp_gate", 2.0)
    old, new = (
        {**CONFIG, "comparison": {"margin": 0.02, "looks": looks, "remark": remark}}
        for looks, remark in (([3, 10], ""), ([3, 10, 30], "A look was added."))
    )
    made = [
        record(kind, seed, provenance={"config": old if seed < 2 else new}) for seed in range(5)
    ]
    found = declaration_of(made)
    assert found.schedules == ((3, 10), (3, 10, 30))
    (said,) = found.notes
    assert said.startswith(
        "2 of 5 ranked records were made under another declaration (looks 3 and 10 instead of 3, "
        "10 and 30). "
    )
    assert "remark" not in said
    alone = declaration_of(made[2:])
    assert alone.schedules == ((3, 10, 30),)
    assert alone.notes == ("All 3 ranked records were made under this declaration.",)
