"""Turn rows of tables into documents: JSON lines, Parquet, and rows of any other origin."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.config.data import DataConfig
from bench.data.documents import Document, Intake
from bench.errors import UserError, unknown

TableRow = Mapping[str, Any]
_PATIENCE = 1000
"""Number of rows without a column after which the column counts as missing."""
_NO_JSON = (ValueError, RecursionError)
"""Errors of Python's reader: a wrong sign, a number that is too long, or too many brackets."""


def row_documents(
    config: DataConfig, rows: Iterable[TableRow], intake: Intake
) -> Iterator[Document]:
    """Yield one document per row, in the order of the table. Rows may be infinite.

    Rows whose text or domain is null or absent are left out and counted in `intake`.

    Raises:
        UserError: no row has a column, or the text column does not hold text.
    """
    columns = [config.text_column, *([config.domain_column] if config.domain_column else [])]
    # A column is missing until a row has it. The names of all rows so far are kept for the error.
    missing = dict.fromkeys(columns, 0)
    names: dict[str, None] = {}
    for index, row in enumerate(rows):
        for column in list(missing):
            if column in row:
                del missing[column]
            else:
                names.update(dict.fromkeys(row))
                missing[column] += 1
                if missing[column] >= _PATIENCE:
                    raise _no_column(config, column, names)
        text, *domain = (row.get(column) for column in columns)
        if text is None:
            intake.dropped["null"] += 1
        elif not isinstance(text, str):
            raise UserError(
                f"Column {config.text_column!r} of {config.path!r} holds {type(text).__name__}, not"
                " text: set text_column."
            )
        elif domain == [None]:
            intake.dropped["null domain"] += 1
        else:
            document = Document(f"row-{index}", str(domain[0]) if domain else "text", text)
            # JSON may hold half of a pair of surrogates, which is no character.
            intake.replaced += not text.isascii() and document.data.decode() != text
            yield document
    # A short table may end before the patience does.
    for column in missing:
        if names:
            raise _no_column(config, column, names)


def json_rows(config: DataConfig, file: Path) -> Iterator[TableRow]:
    """Yield the rows of a file of JSON lines, or of one JSON array of objects.

    Raises:
        UserError: the file cannot be read, or a line is no object.
    """
    try:
        # A `.json` file may hold one array, one object, or JSON lines after all.
        if file.suffix.lower() == ".json" and (rows := _whole(file)) is not None:
            for index, row in enumerate(rows):
                yield _object(config, file, f"item {index}", row)
            return
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _object(
                        config, file, f"line {number}", _parsed(config, file, number, line)
                    )
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(config, file, str(error)) from None


def parquet_rows(config: DataConfig, file: Path) -> Iterator[TableRow]:
    """Yield the rows of a Parquet file, with the needed columns only.

    Raises:
        UserError: the file cannot be read.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    wanted = {config.text_column, config.domain_column}
    try:
        # Pass an open file, because a path could be taken for an address.
        with file.open("rb") as stream, parquet.ParquetFile(stream) as table:
            names = table.schema_arrow.names
            for column in wanted - {None, *names}:
                raise _no_column(config, str(column), names)
            for batch in table.iter_batches(columns=[name for name in names if name in wanted]):
                yield from batch.to_pylist()
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise _unreadable(config, file, str(error)) from None


def _whole(file: Path) -> list[Any] | None:
    """Return the items of a file that is one JSON value, or None for JSON lines."""
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except _NO_JSON:
        return None
    return value if isinstance(value, list) else [value]


def _parsed(config: DataConfig, file: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except _NO_JSON as error:
        said = getattr(error, "msg", str(error))
        raise _unreadable(config, file, f"line {number} is no JSON ({said})") from None


def _object(config: DataConfig, file: Path, place: str, row: Any) -> TableRow:
    if not isinstance(row, dict):
        said = f"{place} is no object with columns, but {type(row).__name__}"
        raise _unreadable(config, file, said)
    return row


def _unreadable(config: DataConfig, file: Path, reason: str) -> UserError:
    where = "" if file.name == Path(str(config.path)).name else f" {file.name!r},"
    said = (reason.strip().splitlines() or ["no reason given"])[0].rstrip(".")
    return UserError(
        f"Cannot read the data {config.path!r}:{where} {said}. Correct or remove the file."
    )


def _no_column(config: DataConfig, column: str, names: Iterable[str]) -> UserError:
    advice = f"Set text_column and domain_column to columns of {config.path!r}."
    return unknown("column", column, names, advice)
