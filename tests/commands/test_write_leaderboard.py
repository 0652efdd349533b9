"""Writing the board and its figures, and the messages where that fails."""

import errno
import re
import shlex
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli import main
from bench.commands.write_leaderboard import render, stale_board, studies_in, unknown_studies_in
from bench.errors import UserError
from bench.record import read_records


def test_the_board_and_the_figures_are_written_where_they_are_said_to_be(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (runs / "tiny" / "figures").iterdir():
        file.unlink()
    render(runs, Path("board.md"), Console())
    assert stale_board(runs, Path("board.md")) == []
    figures = list((runs / "tiny" / "figures").iterdir())
    assert figures
    assert capsys.readouterr().out.splitlines() == [
        "board    board.md",
        f"figures  runs/tiny/figures/ ({len(figures)} files)",
    ]


@pytest.mark.parametrize("what", ["leaderboard.md", "figures"])
def test_a_board_that_cannot_be_written_costs_one_line_and_no_record(
    runs: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The place may be taken away while cells run, so it is not enough to have looked before."""

    def refuse(path: Path, text: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    module = (
        "bench.commands.write_leaderboard"
        if what == "leaderboard.md"
        else "bench.figures.board_figures"
    )
    monkeypatch.setattr(f"{module}.write_atomically", refuse)
    before = list(read_records(runs))
    with pytest.raises(UserError) as caught:
        render(runs, runs / "leaderboard.md", Console())
    told = str(caught.value)
    assert what in told and "(Permission denied)" in told
    assert "run `python -m bench leaderboard`" in told
    assert list(read_records(runs)) == before


def test_a_tree_without_studies_has_none(runs: Path) -> None:
    assert studies_in(runs) == [] and unknown_studies_in(runs) == []


def test_a_study_of_ones_own_is_passed_over_with_a_word(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "studies" / "mine").mkdir(parents=True)
    (runs / "studies" / "estimators").mkdir()
    assert [study.name for study in studies_in(runs)] == ["estimators"]
    assert main(["leaderboard", "--check"]) == 1, "the page of the other is not there"
    said = capsys.readouterr().out
    assert "passed over: the page of 'mine', a study of your own." in said


@pytest.mark.parametrize(
    ("root", "target", "options"),
    [
        ("runs", "runs/leaderboard.md", " --results ."),
        ("results", "leaderboard.md", " --official"),
        ("./my runs", "my runs/leaderboard.md", " --results ."),
        ("runs", "board.md", " --out board.md"),
        ("my runs", "pages/board.md", " --results '../my runs' --out board.md"),
    ],
)
def test_a_board_names_the_command_that_makes_it(
    runs: Path, root: str, target: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if root != "runs":
        shutil.copytree(runs, root)
    Path(target).parent.mkdir(exist_ok=True)
    render(Path(root), Path(target), Console())
    made = Path(target).read_text(encoding="utf-8")
    said = set(re.findall(r"`(python -m bench leaderboard[^`]*)`", made))
    assert said == {f"python -m bench leaderboard{options}"}
    assert stale_board(Path(root).absolute(), Path(target)) == []
    Path(target).unlink()
    monkeypatch.chdir(Path(target).parent)  # the page says that the command is run there
    assert main(shlex.split(said.pop())[3:]) == 0
    assert Path(Path(target).name).read_text(encoding="utf-8") == made


def test_a_moved_tree_keeps_its_page(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(runs, "elsewhere/mine")
    assert main(["leaderboard", "--results", "elsewhere/mine", "--check"]) == 0
    monkeypatch.chdir("elsewhere")
    assert main(["leaderboard", "--results", "mine", "--check"]) == 0
