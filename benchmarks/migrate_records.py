"""Bring records of schema 1 into the form of schema 2, and into one store; no figure changes.

    python benchmarks/migrate_records.py results

A record of schema 1 names its options, and leaves the rest of its row to a search in `config.rows`.
The row is rebuilt here, and proven: the content key of schema 1 is computed from it again and must
be the one in the record. Copies that studies held become references to one record.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from bench.config.base import hash_of
from bench.config.looks import without_impossible
from bench.config.read_suite import parse_suite
from bench.config.row import RowConfig
from bench.record import Record, digest, record_path, refer, store_path, write_record
from bench.routing.load_routers import find
from bench.runner.cells import Cell
from bench.runner.resolve import config_hash, content_key

SCRIPT = "benchmarks/migrate_records.py"
NOT_NUMERICS = (
    *("purpose", "seeds", "rows", "comparison", "sensitivity", "thresholds", "budget", "match"),
    "name",
)
"""Fields of a suite that schema 1 left out of its keys."""
MACHINE = ("device", "threads", "dtype", "versions")


def row_of(data: dict[str, Any]) -> RowConfig:
    """Return the row that a record of schema 1 was run with."""
    cell, name = data["cell"], str(data["cell"]["row"])
    listed = {row["name"]: row for row in data["provenance"]["config"]["rows"]}
    base, _, factor = name.rpartition("@lr")
    if name in listed:
        row = RowConfig.model_validate(listed[name])
    elif base in listed:
        row = RowConfig.model_validate(listed[base])
        scale = row.lr_scale * float(factor)
        row = row.model_copy(update={"name": name, "lr_scale": scale})
    else:
        row = RowConfig(name=name, router=cell["router"], options=cell["options"])
    return row.model_copy(update={"role": cell["role"]})


def old_key(cell: Cell, data: dict[str, Any]) -> str:
    """Return the content key that schema 1 gave the cell."""
    made = data["provenance"]
    canonical = cell.suite.canonical().items()
    suite = {name: value for name, value in canonical if name not in NOT_NUMERICS}
    row = {k: v for k, v in cell.row.canonical().items() if k not in ("name", "control")}
    conditions = {"budget": cell.suite.budget, "match": cell.match, "seed": cell.seed}
    numerics = {"suite": suite, "row": row, "cell": conditions}
    machine = {name: made[name] for name in MACHINE}
    return hash_of(
        [made["rules_version"], numerics, made["plugin_hash"], made["data_hash"], machine]
    )


def migrated(data: dict[str, Any]) -> Record:
    """Return a record of schema 1 as one of schema 2.

    Raises:
        ValueError: the row that was rebuilt does not give the key of the record.
    """
    cell_data, made = dict(data["cell"]), dict(data["provenance"])
    changes = {"budget": cell_data["budget"], "match": cell_data["match"]}
    suite = parse_suite({**without_impossible(made["config"]), **changes}, "record")
    cell = Cell(suite, row_of(data), cell_data["seed"])
    if old_key(cell, data) != data["key"]:
        raise ValueError("the row that was rebuilt does not give the content key of the record")
    training = cell.training.model_dump(exclude_defaults=True)
    identity = find(cell.row.router).identity(cell.row.options, training)
    machine = {name: made[name] for name in MACHINE}
    text = hash_of([made["data_hash"], data["headline_domains"]])
    del cell_data["router"], cell_data["options"], made["plugin_hash"]
    fields = {
        **data,
        "schema_version": 2,
        "key": content_key(cell, identity, text, machine),
        "cell": cell_data,
        "row": cell.row,
        "provenance": {**made, "router_hash": identity, "config_hash": config_hash(cell)},
        "migrated": SCRIPT,
    }
    return Record.model_validate(fields)


def read_old(path: Path) -> dict[str, Any] | None:
    """Return the data of a record of schema 1; None for another file.

    Raises:
        ValueError: the record does not match its own digest.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("schema_version") != 1:
        return None
    said = data.pop("digest")
    if hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest() != said:
        raise ValueError("it does not match its own digest")
    return data


def holds(new: Any, old: Any) -> bool:
    """Return whether new data hold all of the old ones; fields that came later are empty."""
    if isinstance(old, dict) and isinstance(new, dict):
        later = [value for name, value in new.items() if name not in old]
        return not any(later) and all(name in new and holds(new[name], old[name]) for name in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(holds, new, old))
    return json.dumps(new) == json.dumps(old)


def figures_of(data: dict[str, Any]) -> dict[str, Any]:
    """Return all of a record that was measured: the part that a migration may not change."""
    names = ("schema_version", "key", "cell", "provenance", "row", "migrated", "checks")
    return {name: value for name, value in data.items() if name not in names}


def main() -> None:
    """Migrate every record of a tree in place."""
    root = Path(sys.argv[1])
    count, kept = 0, set[Path]()
    for path in sorted(root.rglob("seed-*.json")):
        data = read_old(path)
        if data is None:
            continue
        try:
            record = migrated(data)
        except ValueError as error:
            raise SystemExit(f"{path}: {error}") from None
        new = figures_of(json.loads(record.model_dump_json()))
        assert holds(new, figures_of(data)), path
        place, target = path.parents[3], store_path(root, record.key)
        assert record_path(place, record.cell) == path, path
        if target not in kept:
            write_record(record, target)
        elif digest(record) != json.loads(target.read_text(encoding="utf-8"))["digest"]:
            raise SystemExit(f"{path}: another record of the same key differs from it")
        kept.add(target)
        refer(path, target)
        count += 1
    print(f"{count} records migrated; {len(kept)} in the store")


if __name__ == "__main__":
    main()
