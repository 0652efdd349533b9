import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from bench.data import DataConfig
from bench.data.documents import Document
from bench.data.local import PIECE_BYTES, _pieces, source
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


@pytest.mark.parametrize("name", ["run[1]", "x::y", "what?", "all*", "a b"])
def test_a_path_is_read_as_given(tmp_path: Path, name: str) -> None:
    """Next to each name is another name that it would match as a pattern."""
    for other in ("run1", "what1", "all1", "y"):
        (tmp_path / other).mkdir()
        (tmp_path / other / "a.jsonl").write_text('{"text": "another"}\n')
        (tmp_path / f"{other}.jsonl").write_text('{"text": "another"}\n')
    (tmp_path / name).mkdir()
    for path in (tmp_path / name / "a.jsonl", tmp_path / f"{name}.jsonl"):
        path.write_text('{"text": "as given"}\n')
        assert [document.text for document in read(path)] == ["as given"]
    assert [document.text for document in read(f"{tmp_path / name}/")] == ["as given"]


def test_a_pattern_is_no_path(folder: Path) -> None:
    with pytest.raises(UserError, match=r"\*\.txt' does not exist.*a path is no pattern"):
        read(folder / "*.txt")


def test_hidden_files_and_other_kinds_are_counted_and_not_read(folder: Path) -> None:
    (folder / ".d.txt").write_text("hidden\n")
    (folder / ".git").mkdir()
    (folder / ".git" / "e.txt").write_text("hidden\n")
    found = source(DataConfig(source="local", path=str(folder)))
    assert not any("hidden" in document.text for document in found.documents())
    assert found.intake.files == 3
    assert found.intake.dropped == {"hidden (files)": 2, "of another kind (files)": 1}


def test_links_are_not_followed_in_silence(folder: Path) -> None:
    (folder / "sub" / "up").symlink_to("..")
    (folder / "gone.txt").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.txt")
    (folder / "again.txt").symlink_to("a.txt")
    found = source(DataConfig(source="local", path=str(folder)))
    assert found.intake.files == 4
    assert found.intake.dropped == {
        "of another kind (files)": 1,
        "linked (folders)": 1,
        "no file in fact (links, pipes)": 2,
    }
    for path, said in {
        "gone.txt": "The link .* leads nowhere",
        "pipe.txt": "neither a file",
    }.items():
        with pytest.raises(UserError, match=said):
            read(folder / path)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_folder_that_may_not_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    """Root may read everything, so the system's answer is made up."""
    closed, scan = folder / (".closed" if hidden else "closed"), os.scandir
    closed.mkdir()

    def refuse(path: str) -> Any:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    if hidden:
        assert len(read(folder)) == 3
    else:
        with pytest.raises(UserError, match=r"Cannot read the folder '.*/closed': Permission de"):
            read(folder)


@pytest.mark.parametrize("text", ["a\r\nb\rc\n", "\ufeffstart\n"])
def test_text_keeps_its_bytes_without_the_mark_of_its_encoding(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.txt").write_bytes(text.encode())
    (document,) = read(tmp_path / "t.txt")
    assert document.data == text.removeprefix("\ufeff").encode()


def test_a_single_text_is_cut_into_pieces_that_join_to_it(tmp_path: Path) -> None:
    text = "".join(f"строка {i}\n" for i in range(5000))
    (tmp_path / "one[1].txt").write_text(text, encoding="utf-8")
    pieces = read(tmp_path / "one[1].txt")
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.data) <= PIECE_BYTES and piece.text.endswith("\n") for piece in pieces)
    assert len({piece.name for piece in pieces}) == len(pieces) > 4


class Watched(bytes):
    """Bytes that count the bytes copied out of them."""

    copied = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        Watched.copied += 1 if isinstance(found, int) else len(found)
        return found


@pytest.mark.parametrize("line", ["short line\n", "字" * 40_000 + "\n"])
def test_cutting_reads_each_byte_about_once(line: str) -> None:
    data = line.encode() * (2**21 // len(line.encode()))
    pieces = list(_pieces("x", Watched(data)))
    assert "".join(piece.text for piece in pieces).encode() == data
    assert all(len(piece.data) <= PIECE_BYTES for piece in pieces)
    assert len(data) <= Watched.copied <= 1.01 * len(data)
    Watched.copied = 0


def test_a_small_text_is_cut_into_enough_pieces_to_split(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"line {i}\n" for i in range(3000)))
    assert len(read(tmp_path / "t.txt")) > 20


@pytest.mark.parametrize(
    ("path", "guess"),
    [
        ("aa.txt", "a.txt"),
        ("sub/d.txt", "sub/c.txt"),
        ("sud/c.txt", "sub/c.txt"),
        ("subs/gone.txt", "sub"),
        ("a.txt/b.txt", None),
        ("zzzzzz", None),
        ("x" * 5000, None),
    ],
)
def test_a_missing_path_is_named_with_the_nearest(
    folder: Path, path: str, guess: str | None
) -> None:
    (folder / ".aa.txt").write_text("")
    with pytest.raises(UserError, match=r"' does not exist\.") as error:
        read(folder / path)
    found = re.search(r"Did you mean '(.*?)'\?", str(error.value))
    assert (found[1] if found else None) == (str(folder / guess) if guess else None)


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    for path, said in {
        folder / "none.txt": "does not exist",
        folder / "*.parquet": "does not exist",
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


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no file to read"):
        read(tmp_path)
