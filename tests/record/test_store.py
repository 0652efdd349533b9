import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config.row import RowConfig
from bench.errors import UserError
from bench.record import (
    CellId,
    CurvePoint,
    Provenance,
    Record,
    digest,
    read_record,
    read_records,
    record_path,
    refer,
    write_record,
)
from bench.record.schema import SCHEMA_VERSION

ROOT = Path(__file__).parents[2]


def cell(**changes: Any) -> CellId:
    data: dict[str, Any] = {
        "suite": "quick", "row": "mlp_gate", "family": "gate", "paper": "", "role": "ranked",
        "control": None, "site": "ffn", "seed": 3, "match": "flops", "budget": 0.5,
    }  # fmt: skip
    return CellId.model_validate({**data, **changes})


def record(**changes: Any) -> Record:
    made = Provenance(
        command="c",
        commit="abc",
        dirty=False,
        started="2026-01-01T00:00:00+00:00",
        device="cpu",
        processor="p",
        threads=1,
        dtype="float32",
        versions={"torch": "2"},
        config={"b": [1, 2.5, None], "a": {"x": True}},
        config_hash="1",
        router_hash="2",
        data_hash="3",
    )
    data = {
        "key": "k",
        "status": "ok",
        "cell": cell(),
        "row": RowConfig.model_validate("mlp_gate"),
        "provenance": made,
        "loss": 1.25,
        "domain_loss": {"b": 1.5, "a": 1.0},
    }
    return Record.model_validate({**data, **changes})


def plain(one: Record) -> str:
    """Return it as JSON; NaN equals itself here."""
    return json.dumps(json.loads(one.model_dump_json()), sort_keys=True)


numbers = st.floats() | st.integers(-(2**60), 2**60).map(float)


@given(
    loss=st.none() | numbers,
    domains=st.dictionaries(st.text(), numbers),
    documents=st.dictionaries(st.text(), st.tuples(st.text(), numbers, numbers)),
    curve=st.lists(st.tuples(st.integers(0), st.integers(0), numbers, numbers, numbers, numbers)),
)
@settings(max_examples=100)
def test_what_is_written_is_read(
    tmp_path_factory: Any, loss: Any, domains: Any, documents: Any, curve: Any
) -> None:
    path = tmp_path_factory.mktemp("records") / "seed-0.json"
    points = [
        CurvePoint(step=a, tokens=b, flops=c, seconds=d, train_loss=e, loss=f)
        for a, b, c, d, e, f in curve
    ]
    written = record(loss=loss, domain_loss=domains, documents=documents, curve=tuple(points))
    write_record(written, path)
    read = read_record(path)
    assert plain(read) == plain(written)
    assert digest(read) == digest(written)


def test_the_digest_is_sha256_of_the_sorted_rest_of_the_file(tmp_path: Path) -> None:
    """Anyone can check a record with a JSON parser and SHA-256 alone."""
    path = tmp_path / "seed-0.json"
    write_record(record(), path)
    data = json.loads(path.read_text(encoding="utf-8"))
    digest = data.pop("digest")
    assert hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest() == digest


def leaves(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [leaf for name, part in items for leaf in leaves(part, (*where, name))] or [where]


def edit(data: Any, where: tuple[Any, ...]) -> None:
    for name in where[:-1]:
        data = data[name]
    value = data[where[-1]]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    data[where[-1]] = not value if isinstance(value, bool) else value + 1 if number else f"{value}x"


def test_an_edit_of_anything_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "seed-0.json"
    write_record(record(), path)
    text = path.read_text(encoding="utf-8")
    for where in leaves(json.loads(text)):
        data = json.loads(text)
        edit(data, where)
        path.write_text(json.dumps(data), encoding="utf-8")
        with pytest.raises(UserError, match=r"seed-0\.json") as refused:
            read_record(path)
        assert "\n" not in str(refused.value)
    assert len(leaves(json.loads(text))) > 25


def test_formatting_is_not_an_edit(tmp_path: Path) -> None:
    path = tmp_path / "seed-0.json"
    write_record(record(), path)
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=7), encoding="utf-8"
    )
    assert read_record(path) == record()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '"x"', "{}", '{"digest": "x"}', "\ufeff{}", "[" * 100_000]
)
def test_what_is_no_record_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "seed-0.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"seed-0\.json is not a record"):
        read_record(path)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: text[:80], "JSONDecodeError: "),
        (lambda text: text.replace('"loss": 1.0', '"loss": "low"'), "field 'loss': Input should"),
        (lambda text: text.replace('"loss": 1.0', '"loss": 2.0'), "does not match its own digest"),
    ],
)
def test_a_damaged_record_is_named_and_not_the_reference_to_it(
    tmp_path: Path, edit: Callable[[str], str], said: str
) -> None:
    there, path = tmp_path / "records" / "ab.json", tmp_path / "quick" / "seed-0.json"
    write_record(record(loss=1.0), there)
    refer(path, there)
    there.write_text(edit(there.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_record(path)
    assert str(refused.value).startswith(f"{there} ") and said in str(refused.value)


def test_a_record_from_the_future_is_no_reason_to_delete_it(tmp_path: Path) -> None:
    path = tmp_path / "seed-0.json"
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "new": 1}))
    with pytest.raises(UserError, match="or a later one") as raised:
        read_record(path)
    assert "Delete" not in str(raised.value)


def test_bytes_and_folders_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "seed-0.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "seed-1.json").mkdir()
    for name in ("seed-0.json", "seed-1.json", "seed-2.json"):
        with pytest.raises(UserError, match=name):
            read_record(tmp_path / name)


def test_anyone_may_read_a_record(tmp_path: Path) -> None:
    path = tmp_path / "seed-0.json"
    write_record(record(), path)
    assert path.stat().st_mode & 0o777 == 0o644


def test_records_lie_where_their_cell_says_and_are_read_in_order(tmp_path: Path) -> None:
    assert record_path(Path("r"), cell(row="random@ffn", budget=0.25, match="tokens")) == Path(
        "r/quick/random@ffn/b25-tokens/seed-3.json"
    )
    for seed in (2, 0, 1):
        one = record(cell=cell(seed=seed))
        write_record(one, record_path(tmp_path, one.cell))
    (tmp_path / "quick" / "notes.json").write_text("not a record", encoding="utf-8")
    assert [found.cell.seed for _, found in read_records(tmp_path)] == [0, 1, 2]


def test_a_further_router_seed_of_a_row_lies_beside_the_first(tmp_path: Path) -> None:
    further = record_path(tmp_path, cell(), router_seed=2)
    assert further == record_path(tmp_path, cell()).with_name("seed-3-router-2.json")
    for path, loss in ((record_path(tmp_path, cell()), 1.0), (further, 2.0)):
        write_record(record(loss=loss), path)
    assert sorted(found.loss or 0 for _, found in read_records(tmp_path)) == [1.0, 2.0]


def test_budgets_that_differ_lie_apart() -> None:
    paths = {
        record_path(Path("r"), cell(budget=budget)) for budget in (0.1, 0.125, 0.5, 0.504, 0.999)
    }
    assert len(paths) == 5
