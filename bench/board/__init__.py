"""Judge the records of a tree: a board has rows, comparisons and verdicts. Imports no torch."""

from bench.board.build import build_board
from bench.board.frames import load_records
from bench.board.model import Board

__all__ = ["Board", "build_board", "load_records"]
