"""Text from files on disk.

Parquet and JSON lines (a row is a document), plain text (a file is a document).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.config.data import TABLE_SUFFIXES, TEXT_SUFFIXES, DataConfig
from bench.data.documents import Document, Source, truncate
from bench.data.tables import stream
from bench.errors import UserError

PIECE_BYTES = 2**14


def source(config: DataConfig) -> Source:
    """The files that `config.path` names: one file, all known files below a folder, or a glob.

    They are recognised again by path, size and time of change, so that a large corpus is not read
    to find it in the cache.

    Raises:
        UserError: no file, or files of several kinds.
    """
    files = _find(str(config.path))
    stats = [(str(file.resolve()), file.stat()) for file in files]
    key: dict[str, object] = {
        "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        "piece": PIECE_BYTES,
    }
    if files[0].suffix in TEXT_SUFFIXES:
        return Source(key, partial(_texts, files))
    loader = "parquet" if files[0].suffix == ".parquet" else "json"
    return Source(
        key,
        partial(stream, config, loader, data_files=[str(file) for file in files], split="train"),
    )


def _find(path: str) -> list[Path]:
    known = TABLE_SUFFIXES + TEXT_SUFFIXES
    root = Path(path).expanduser()
    if root.is_file():
        named = iter([root])
    else:
        named = (
            root.rglob("*")
            if root.is_dir()
            else Path(root.anchor).glob(str(root.relative_to(root.anchor)))
        )
    files = sorted(
        file for file in named if file.is_file() and (file == root or file.suffix in known)
    )
    allowed = ", ".join(known)
    if not files:
        raise UserError(
            f"No data at {path!r}: give a file, folder or glob of {allowed} files, or owner/name of a data set on the hub."
        )
    kinds = {file.suffix for file in files}
    if not kinds <= set(known):
        raise UserError(
            f"Cannot read {path!r}: its ending is {files[0].suffix!r}, allowed are {allowed}."
        )
    if len(kinds) > 1 and not kinds <= set(TEXT_SUFFIXES):
        raise UserError(
            f"Files of several kinds at {path!r} ({', '.join(sorted(kinds))}): name one kind with a glob, e.g. '{path}/*.parquet'."
        )
    return files


def _texts(files: list[Path]) -> Iterator[Document]:
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Cannot read {str(file)!r} as UTF-8 text: {error}.") from error
        if len(files) > 1:
            yield Document(str(file), "text", text)
        else:
            yield from _pieces(file.name, text)


def _pieces(name: str, text: str) -> Iterator[Document]:
    """A single file cut at ends of lines into documents of at most 16 KiB, since splits need
    several.
    """
    index = 0
    while text:
        piece = truncate(text, PIECE_BYTES)
        yield Document(f"{name}-{index}", "text", piece)
        text = text[len(piece) :]
        index += 1
