"""Render the records: `leaderboard.md`, figures and `report.html`. Imports no torch."""

from bench.board.build import build_board
from bench.board.figures import write_figures
from bench.board.frames import load_records
from bench.board.model import Board
from bench.board.pages import render_leaderboard
from bench.board.report import render_report

__all__ = [
    "Board",
    "build_board",
    "load_records",
    "render_leaderboard",
    "render_report",
    "write_figures",
]
