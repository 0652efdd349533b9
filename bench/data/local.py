"""Read text from files on disk.

A row of Parquet or JSON lines is a document; a file of plain text is a document. A path is taken
literally: no character in it is a pattern.
"""

import difflib
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from bench.config.data import TABLE_SUFFIXES, TEXT_SUFFIXES, DataConfig, exists
from bench.data.documents import Document, Intake, Source
from bench.data.tables import json_rows, parquet_rows, row_documents
from bench.errors import UserError

# A single text file is cut into pieces: about 64 of them, of 1 to 16 KiB.
PIECE_BYTES = 2**14
_SMALLEST_PIECE = 2**10
_PIECES = 2**6
_KNOWN = TABLE_SUFFIXES + TEXT_SUFFIXES


def source(config: DataConfig) -> Source:
    """Return the text of `config.path`: one file, or all known files below a folder.

    The cache key has path, size and time of change of each file, so that a cached corpus is found
    without reading its files.

    Raises:
        UserError: no file, or files of several kinds.
    """
    intake = Intake()
    root = Path(str(config.path))
    files = _find(root, intake)
    stats = [(str(file.resolve()), file.stat()) for file in files]
    key: dict[str, object] = {
        "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        "piece": PIECE_BYTES,
    }
    intake.files = len(files)
    if files[0].suffix.lower() in TEXT_SUFFIXES:
        return Source(key, partial(_texts, root, files), intake)
    return Source(key, partial(_rows, config, files, intake), intake)


def _find(root: Path, intake: Intake) -> list[Path]:
    """Return the files to read, in order of name, and count the other files of a folder."""
    if not exists(root):
        raise _missing(root)
    if not (root.is_file() or root.is_dir()):
        raise UserError(f"{str(root)!r} is neither a file nor a folder: give one of these.")
    files = [root] if root.is_file() else _visible(root, intake)
    # One kind for all files: text, or one format of rows, which has one reader.
    kinds = {file.suffix.lower() for file in files}
    allowed = ", ".join(_KNOWN)
    if not files:
        raise UserError(f"The folder {str(root)!r} has no file to read: put {allowed} files there.")
    if not kinds <= set(_KNOWN):
        raise UserError(
            f"Cannot read {str(root)!r}: its ending is {files[0].suffix!r}, allowed are {allowed}."
            " Unpack or convert it."
        )
    if len(kinds) > 1 and not kinds <= set(TEXT_SUFFIXES):
        raise UserError(
            f"Files of several kinds at {str(root)!r} ({', '.join(sorted(kinds))}):"
            " give one file, or a folder with files of one kind."
        )
    return files


def _visible(root: Path, intake: Intake) -> list[Path]:
    """Return the known files below a folder in order of name, and count the other files."""

    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(root).parts)

    def refuse(error: OSError) -> None:
        if not hidden(Path(error.filename)):
            raise UserError(f"Cannot read the folder {str(error.filename)!r}: {error.strerror}.")

    found: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=refuse):
        for path in (Path(folder, name) for name in [*folders, *names]):
            if path.is_dir() and not path.is_symlink():
                continue  # the walk comes there
            if why := _left_out(path, hidden(path)):
                intake.dropped[why] += 1
            else:
                found.append(path)
    return sorted(found)


def _left_out(path: Path, hidden: bool) -> str:
    """Return why a path of a folder is not read; empty for a file that is."""
    if hidden:
        return "hidden (files)"
    if path.is_dir():
        return "linked (folders)"
    if not path.is_file():
        return "no file in fact (links, pipes)"
    return "" if path.suffix.lower() in _KNOWN else "of another kind (files)"


def does_not_exist(root: Path) -> str:
    """Say that a path does not exist, with the nearest path that does."""
    place = Path(root.anchor)
    rest = root.parts[len(place.parts) :]
    # Walk down as long as the names exist; the first that does not may be a typing error.
    while rest and exists(place / rest[0]):
        place, rest = place / rest[0], rest[1:]
    names: list[str] = []
    with suppress(OSError):  # the place is no folder, or reading it is not allowed
        names = [entry.name for entry in place.iterdir()]
    wanted = rest[0] if rest else ""
    if wanted in names:
        return f"The link {str(place / wanted)!r} leads nowhere."
    if not wanted.startswith("."):
        names = [name for name in names if not name.startswith(".")]
    close = difflib.get_close_matches(wanted, names, n=1)
    guess = ""
    if close:
        # Prefer the whole path with the corrected name, if it exists.
        whole = place.joinpath(close[0], *rest[1:])
        guess = f" Did you mean {str(whole if exists(whole) else place / close[0])!r}?"
    return f"The file {str(root)!r} does not exist.{guess}"


def _missing(root: Path) -> UserError:
    advice = "give an existing file or folder"
    if any(sign in str(root) for sign in "*?["):
        advice += " (a path is no pattern)"
    return UserError(
        f"{does_not_exist(root)} For data.path, {advice};"
        " for a data set on the hub, set data.source to hub."
    )


def _rows(config: DataConfig, files: list[Path], intake: Intake) -> Iterator[Document]:
    rows = (
        row
        for file in files
        for row in (parquet_rows if file.suffix.lower() == ".parquet" else json_rows)(config, file)
    )
    return row_documents(config, rows, intake)


def _texts(root: Path, files: list[Path]) -> Iterator[Document]:
    for file in files:
        try:
            data = file.read_bytes()
            text = data.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            said = f"Cannot read {str(file)!r} as UTF-8 text: {error}."
            raise UserError(f"{said} Save it as UTF-8, or take it out.") from error
        if len(files) > 1:
            yield Document(file.relative_to(root).as_posix(), "text", text)
        else:
            yield from _pieces(file.name, text.encode("utf-8"))


def _pieces(name: str, data: bytes) -> Iterator[Document]:
    """Cut a single file into documents at ends of lines, because splits need several documents.

    A document has at most 16 KiB. A small file gives about 64 documents of at least 1 KiB.
    """
    limit = min(PIECE_BYTES, max(_SMALLEST_PIECE, len(data) // _PIECES))
    start = index = 0
    while start < len(data):
        end = start + limit
        if end < len(data):
            line_end = data.rfind(b"\n", start, end) + 1
            if line_end > start:
                end = line_end
            else:
                # A very long line is cut inside: step back to the first byte of a character.
                while data[end] & 0xC0 == 0x80:
                    end -= 1
        yield Document(f"{name}-{index}", "text", data[start:end].decode("utf-8"))
        start, index = end, index + 1
