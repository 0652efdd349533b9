"""Store records by content key, and refer to them from the places of their cells.

    results/records/ab/abcd….json              a record, readable, with a digest of itself
    results/records/ab/abcd….details.json.gz   its bulky parts, covered by the digest
    results/quick/mlp_gate/b50-flops/seed-0.json   a reference to it, for the board of `quick`
    .../seed-0-router-2.json                   one to a further router seed of the same row

So a cell that a board and two studies share is run once and kept once.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import UserError, told
from bench.files import write_atomically
from bench.record.schema import SCHEMA_VERSION, CellId, Record

STORE = "records"
REPRODUCED = "reproduce"
"""Folder of a tree for reruns, which are compared with the records that they repeat."""
DETAILS = ("documents", "monitors", "passage", "curve")
"""Fields that are stored next to the record, compressed. They are nine tenths of its size."""
_REFERENCE = "record"


def store_path(root: Path, key: str) -> Path:
    """Return the place of the record with a content key in the store of a tree."""
    return root / STORE / key[:2] / f"{key}.json"


def record_path(root: Path, cell: CellId, router_seed: int | None = None) -> Path:
    """Return the place of a cell: `root/<suite>/<row>/b<budget>-<match>/seed-<n>.json`.

    Args:
        root: of the tree.
        cell: which cell.
        router_seed: of a cell that is not the first of its row and seed; then the file is
            `seed-<n>-router-<router seed>.json`.
    """
    # The first router seed has no suffix, so a row without router seeds has plain names.
    where = conditions(cell.budget, cell.match)
    further = "" if router_seed is None else f"-router-{router_seed}"
    return root / cell.suite / cell.row / where / f"seed-{cell.seed}{further}.json"


def conditions(budget: float, match: str) -> str:
    """Return the name of the folder for a budget and a match."""
    return f"b{budget * 100:g}-{match}"


def digest(record: Record) -> str:
    """Return the SHA-256 of a record's file, keys sorted, without the digest itself."""
    return _hash(_split(record)[0])


def write_record(record: Record, path: Path) -> None:
    """Write a record atomically: its details first, so that a killed run leaves no half record."""
    data, details = _split(record)
    if details:
        # No time stamp, so that equal records give equal bytes.
        write_atomically(_beside(path), gzip.compress(details.encode(), mtime=0))
    text = json.dumps({"digest": _hash(data), **data}, indent=1, sort_keys=True)
    write_atomically(path, text + "\n")


def refer(path: Path, record: Path) -> None:
    """Write a reference at `path` to the record at `record`."""
    # Relative, so that a tree can be moved.
    target = Path(os.path.relpath(record, path.parent)).as_posix()
    write_atomically(path, json.dumps({_REFERENCE: target}) + "\n")


def target_of(path: Path) -> Path | None:
    """Return the place that a reference names, or None if there is no reference."""
    # A file that is no reference is an old record, or damaged: the caller decides.
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        return path.parent / data[_REFERENCE]
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        return None


def read_record(path: Path) -> Record:
    """Read one record, or the record that a reference names.

    Raises:
        UserError: the file is not JSON, no record of this schema, edited since it was written, or
            a reference to a missing record.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if _REFERENCE in data:
            # From here on the record itself is named in errors.
            path = _target(path, str(data[_REFERENCE]))
            data = json.loads(path.read_text(encoding="utf-8"))
        if int(data.get("schema_version", 0)) > SCHEMA_VERSION:
            raise _from_the_future(path, data["schema_version"])
        # Validate an edited record too: the error about its schema comes first.
        said = data.pop("digest")
        sound = _hash(data) == said
        record = Record.model_validate(_joined(data, path) if sound else _without_details(data))
    except (ValueError, KeyError, AttributeError, TypeError, OSError, RecursionError) as error:
        raise UserError(
            f"{_plain(path)} is not a record of schema {SCHEMA_VERSION}: {_problem(error)}. "
            "Delete it and run its cell again."
        ) from None
    if not sound:
        raise _edited(path)
    return record


def read_records(root: Path) -> Iterator[tuple[Path, Record]]:
    """Yield every record below `root` with the path of its cell, in the order of paths."""
    # References only: the store itself has names by key, and details have another ending.
    for path in sorted(root.rglob("seed-*.json")):
        yield path, read_record(path)


def _split(record: Record) -> tuple[dict[str, Any], str]:
    """Return the data of a record's file, and the text of its details, which may be empty."""
    data = json.loads(record.model_dump_json())
    # The record holds the hash of its details, so its own digest covers both files.
    details = {name: value for name in DETAILS if (value := data.pop(name))}
    text = json.dumps(details, sort_keys=True, separators=(",", ":")) if details else ""
    return {**data, "details": hashlib.sha256(text.encode()).hexdigest() if text else ""}, text


def _without_details(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != "details"}


def _joined(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a record's data with its details, after a check of their hash."""
    if not data["details"]:
        return _without_details(data)
    try:
        text = gzip.decompress(_beside(path).read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise ValueError(f"its details {_beside(path).name} cannot be read ({said})") from None
    # The gzip bytes may differ between versions of zlib, so the hash is of the text.
    if hashlib.sha256(text).hexdigest() != data["details"]:
        raise _edited(_beside(path))
    return {**_without_details(data), **json.loads(text)}


def _target(path: Path, target: str) -> Path:
    there = path.parent / target
    if not there.is_file():
        raise UserError(
            f"{path} refers to {target}, which is not there. Restore it or run its cell again."
        )
    return there


def _plain(path: Path) -> Path:
    """Return a path without the `..` of a reference, unless a link makes that another file."""
    plain = Path(os.path.normpath(path))
    return plain if plain.exists() else path


def _problem(error: Exception) -> str:
    """Return the first problem of a record, with its field if it has one."""
    if not isinstance(error, ValidationError):
        return told(error)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"field {where!r}: {first['msg']}" if where else first["msg"]


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.details.json.gz")


def _edited(path: Path) -> UserError:
    return UserError(
        f"{_plain(path)} does not match its own digest: it was changed after it was written. "
        "Restore it or run its cell again."
    )


def _from_the_future(path: Path, schema: int) -> UserError:
    return UserError(
        f"{path} is a record of schema {schema}, and this version reads {SCHEMA_VERSION} at most. "
        "Use the version of token-routing-bench that wrote it, or a later one."
    )


def _hash(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
