"""A board of 200 routers and 20 seeds."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.board.synthetic import many, records, write

RENDER = """
import resource, sys
from pathlib import Path
from bench.board import build_board
from bench.figures.board_figures import write_figures
from bench.pages import render_leaderboard, render_report
out = Path(sys.argv[2])
boards = build_board(Path(sys.argv[1]))
(out / "leaderboard.md").write_text(render_leaderboard(boards, command="x"))
(out / "report.html").write_text(render_report(boards))
write_figures(boards, out / "figures")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "torch" in sys.modules)
"""


@pytest.mark.slow
def test_two_hundred_routers_and_twenty_seeds_take_two_gigabytes(tmp_path: Path):
    write(tmp_path / "results", records(many(200), range(20)))
    command = [sys.executable, "-c", RENDER, str(tmp_path / "results"), str(tmp_path)]
    kilobytes, torch = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(kilobytes) <= 2_000_000
    assert torch == "False"
    assert (tmp_path / "leaderboard.md").read_text().count("`router_199`") >= 3
    assert (tmp_path / "report.html").stat().st_size < 20_000_000
