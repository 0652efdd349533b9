"""What the records show: `leaderboard.md`, figures and `report.html`. Imports no torch."""

from bench.board.build import build_board
from bench.board.markdown import render_leaderboard
from bench.board.model import Board

__all__ = ["Board", "build_board", "render_leaderboard"]
