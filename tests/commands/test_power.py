"""The words of `bench power` on present and missing seeds."""

from itertools import combinations
from pathlib import Path

import pytest

from bench.board.build import boards_of
from bench.cli import main
from bench.commands.power import _costs
from tests.board.synthetic import QUICK, records, replicas, write


@pytest.fixture
def board(tmp_path: Path) -> str:
    """A tree of five seeds of synthetic rows."""
    write(tmp_path, records(QUICK, range(5)))
    return str(tmp_path)


def lines(said: str, row: str) -> list[list[str]]:
    return [line.split() for line in said.splitlines() if line.split()[:1] == [row]]


def test_a_line_a_comparison_with_seeds_and_cost(
    board: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["power", "--results", board]) == 0
    said = capsys.readouterr().out
    assert "power 0.8, family-wise level 0.05, 5 seeds" in said
    found = {line[1]: line for line in lines(said, "mod")}
    assert found.keys() == {"random@block", "dense_matched"}
    _, _, _, _, effect, seeds, *_, flops, hours = found["random@block"]
    assert float(effect) == 0.01, "the margin of the suite"
    assert main(["power", "--results", board, "--effect", "0.0001"]) == 0
    harder = [line for line in lines(capsys.readouterr().out, "mod") if line[1] == "random@block"]
    assert harder[0][5:7] == ["over", "512"] and seeds.isdecimal()
    assert float(flops) >= 0 and float(hours) >= 0


def test_a_seed_costs_as_much_as_its_router_seeds_together() -> None:
    one = boards_of(records(QUICK[:2], range(2)))[0]
    gate = [r for seed in range(2) for r in replicas(QUICK[1], seed, {0: 2.0, 2: 2.1, 4: 2.2})]
    three = boards_of([*records(QUICK[:1], range(2)), *gate])[0]
    alone, together = (_costs(board)["mlp_gate"] for board in (one, three))
    assert together.flops == pytest.approx(3 * alone.flops)
    assert _costs(three)["dense_matched"] == _costs(one)["dense_matched"]


def test_all_pairs_are_shown_on_request(board: str, capsys: pytest.CaptureFixture[str]) -> None:
    ranked = [kind.row for kind in QUICK if kind.role == "ranked"]
    pairs = {frozenset(pair) for pair in combinations(ranked, 2)}
    for more in ([], ["--all-pairs"]):
        assert main(["power", "--results", board, *more]) == 0
        said = capsys.readouterr().out
        shown = {frozenset(line[:2]) for name in ranked for line in lines(said, name)}
        assert shown & pairs == (pairs if more else set())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--effect", "big"], "--effect is 'big': give margin, observed, or a number"),
        (["--suite", "quik"], "quik"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(
    board: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["power", "--results", board, *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_one_seed_has_no_spread_to_speak_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, records(QUICK, range(1)))
    assert main(["power", "--results", str(tmp_path)]) == 0
    for line in lines(capsys.readouterr().out, "mod"):
        assert line[2:4] == ["-", "-"] and "unknown" in line


def test_one_ranked_row_has_nothing_to_be_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, records(QUICK[1:2], range(3)))
    assert main(["power", "--results", str(tmp_path)]) == 2
    assert "fewer than two ranked rows" in capsys.readouterr().err


def test_a_board_of_one_row_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, records(QUICK, range(3)) + records(QUICK[1:2], range(3), budget=0.25))
    assert main(["power", "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert lines(said, "mod") and said.count("fewer than two ranked rows") == 1
