from pathlib import Path

import pytest

from bench.data import DataConfig
from bench.data.documents import Document
from bench.data.local import PIECE_BYTES, source
from bench.errors import UserError


def read(path: object) -> list[Document]:
    return list(
        source(DataConfig.model_validate({"source": "local", "path": str(path)})).documents()
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "b.txt", "sub/c.txt", "notes.csv"):
        (tmp_path / name).write_text(f"text of {name}\n", encoding="utf-8")
    return tmp_path


def test_a_folder_gives_all_known_files_below_it(folder: Path) -> None:
    assert [document.text for document in read(folder)] == [
        "text of a.txt\n",
        "text of b.txt\n",
        "text of sub/c.txt\n",
    ]


def test_globs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [document.text for document in read(folder / "**" / "*.txt")] == [
        document.text for document in read(folder)
    ]
    monkeypatch.chdir(folder)
    assert {document.text for document in read("[ab].txt")} == {
        "text of a.txt\n",
        "text of b.txt\n",
    }


def test_a_single_text_is_cut_into_pieces_that_join_to_it(tmp_path: Path) -> None:
    text = "".join(f"строка {i}\n" for i in range(5000))
    (tmp_path / "one[1].txt").write_text(text, encoding="utf-8")
    pieces = read(tmp_path / "one[1].txt")
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.data) <= PIECE_BYTES and piece.text.endswith("\n") for piece in pieces)
    assert len({piece.name for piece in pieces}) == len(pieces) > 4


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    for path, said in {
        folder / "none.txt": "No data at",
        folder / "*.parquet": "No data at",
        folder / "notes.csv": r"ending is '\.csv'",
    }.items():
        with pytest.raises(UserError, match=said):
            read(path)
    (folder / "t.jsonl").write_text('{"text": "x"}')
    with pytest.raises(UserError, match=r"several kinds .*\.jsonl, \.txt"):
        read(folder)
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"latin\.txt' as UTF-8"):
        read(folder / "latin.txt")
