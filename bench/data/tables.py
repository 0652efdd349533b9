"""Rows of tables as documents, streamed through `datasets`.

Parquet and JSON lines from a disk, any data set from a hub.
"""

from collections.abc import Generator
from contextlib import closing
from typing import Any

from bench.config.data import DataConfig
from bench.data.documents import Document
from bench.errors import UserError, unknown


def stream(config: DataConfig, loader: str, **options: Any) -> Generator[Document, None, None]:
    """One document a row, in the order of the table, without shuffling or copying it.

    The iterator may be closed at any row. Order matters little: `bench.data.splits` deals documents
    by their hash.

    Args:
        config: names the columns.
        loader: first argument of `datasets.load_dataset`.
        options: its further arguments.

    Raises:
        UserError: `datasets` is missing, or the table or a column of it cannot be read.
    """
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise UserError(
            f"Reading {config.path!r} needs the package datasets: pip install -c constraints.txt -e ."
        ) from None
    try:
        table = datasets.load_dataset(loader, streaming=True, **options)
        with closing(iter(table)) as rows:
            for index, row in enumerate(rows):
                yield _document(config, index, row)
    except (OSError, ValueError, DatasetsError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
        raise UserError(
            f"Cannot read the data {config.path!r} (name {config.name!r}): {reason}. Check path, name and split."
        ) from error


def _document(config: DataConfig, index: int, row: dict[str, Any]) -> Document:
    columns = [config.text_column, *([config.domain_column] if config.domain_column else [])]
    for column in columns:
        if column not in row:
            raise unknown(
                "column",
                column,
                row,
                f"Set text_column and domain_column to columns of {config.path!r}.",
            )
    text, *domain = (row[column] for column in columns)
    if not isinstance(text, str | None):
        raise UserError(
            f"Column {config.text_column!r} of {config.path!r} holds {type(text).__name__}, not text: set text_column."
        )
    return Document(f"row-{index}", str(domain[0]) if domain else "text", text or "")
