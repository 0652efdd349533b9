from pathlib import Path

from bench.board import build_board
from tests.board.synthetic import QUICK, records, write


def test_records_of_studies_are_on_no_board(tmp_path: Path) -> None:
    write(tmp_path, records())
    boards = build_board(tmp_path)
    write(tmp_path / "studies" / "some-study" / "small" / "half", records(QUICK[:3]))
    assert build_board(tmp_path) == boards
