import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.data import DataConfig, load_corpus
from bench.data.documents import Document, Intake
from bench.data.tables import json_rows, parquet_rows, row_documents
from bench.errors import UserError


def fineweb_edu(path: Path, num_rows: int) -> list[str]:
    """A table with the columns of FineWeb-Edu (Penedo et al., arXiv:2406.17557), in several row
    groups.
    """
    texts = [
        f"Page {i} tells of "
        + " ".join(str(i * k % 7919) for k in range(1, 90))
        + ". Größe: 5 µm.\n"
        for i in range(num_rows)
    ]
    columns = {
        "text": texts,
        "id": [f"<urn:uuid:{i:08}>" for i in range(num_rows)],
        "dump": ["CC-MAIN-2013-20"] * num_rows,
        "url": [f"http://example.org/{i}" for i in range(num_rows)],
        "file_path": ["segments/1.warc.gz"] * num_rows,
        "language": ["en"] * num_rows,
        "language_score": [0.97] * num_rows,
        "token_count": [len(text) // 4 for text in texts],
        "score": [3.1] * num_rows,
        "int_score": [3] * num_rows,
    }
    pq.write_table(pa.table(columns), path, row_group_size=40)
    return texts


def config(path: Path, **options: object) -> DataConfig:
    return DataConfig.model_validate({"path": str(path), **options})


def test_parquet_with_the_columns_of_fineweb_edu(tmp_path: Path) -> None:
    texts = fineweb_edu(tmp_path / "part.parquet", 200)
    corpus = load_corpus(config(tmp_path / "part.parquet"), tmp_path)
    assert corpus.domains == ("text",)
    found = []
    for split in (corpus.train, corpus.calibration, corpus.validation):
        bounds = zip(split.offsets[:-1], split.offsets[1:], strict=True)
        found += [bytes(split.tokens[start : end - 1]).decode() for start, end in bounds]
    assert sorted(found) == sorted(texts)


def test_a_stream_may_be_left_early(tmp_path: Path) -> None:
    texts = fineweb_edu(tmp_path / "part.parquet", 200)
    settings = config(tmp_path / "part.parquet", domain_column="dump")
    rows = parquet_rows(settings, tmp_path / "part.parquet")
    documents = row_documents(settings, rows, Intake())
    first, second = next(documents), next(documents)
    assert [first.text, second.text] == texts[:2]
    assert (first.name, first.domain) == ("row-0", "CC-MAIN-2013-20")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text_column": "txt"}, "Unknown column 'txt'. Did you mean 'text'?"),
        ({"text_column": "score"}, "holds float, not text"),
        ({"domain_column": "topic"}, "Unknown column 'topic'"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, options: dict[str, object], said: str) -> None:
    fineweb_edu(tmp_path / "part.parquet", 3)
    with pytest.raises(UserError) as error:
        load_corpus(config(tmp_path / "part.parquet", **options), tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bad.parquet", "bad.parquet': Parquet magic bytes not found"),
        ("bad.jsonl", r"bad.jsonl': line 1 is no JSON"),
        ("bad.json", r"bad.json': line 1 is no JSON"),
    ],
)
def test_a_broken_table_is_one_line(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_text('{"text": "x"\n nonsense')
    with pytest.raises(UserError, match=f"Cannot read the data .*{said}"):
        load_corpus(config(tmp_path / name), tmp_path)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"text": ' + "9" * 5000 + "}"], ids=["[[", "99"])
def test_json_beyond_the_limits_of_its_reader_is_one_line(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(
        UserError, match=r"line 1 is no JSON \((maximum recursion|Exceeds the limit)"
    ):
        load_corpus(config(tmp_path / name), tmp_path)


@pytest.mark.parametrize("name", ["e.jsonl", "e.json", "e.txt", "e.parquet"])
def test_an_empty_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"holds no text|file size is 0 bytes"):
        load_corpus(config(tmp_path / name), tmp_path)


def test_a_row_that_is_no_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n\n"only text"\n')
    with pytest.raises(UserError, match=r"a\.jsonl': line 3 is no object with columns, but str"):
        load_corpus(config(tmp_path / "a.jsonl"), tmp_path)


def read(rows: list[dict[str, object]], **options: object) -> tuple[list[Document], Intake]:
    intake = Intake()
    return list(row_documents(config(Path("a.jsonl"), **options), rows, intake)), intake


def test_rows_without_text_or_domain_are_counted() -> None:
    rows: list[dict[str, object]] = [{"text": f"row {i}", "kind": "a"} for i in range(3)]
    rows += [{"text": None, "kind": "a"}, {"kind": "a"}, {"text": "x", "kind": None}, {"text": "x"}]
    documents, intake = read(rows, domain_column="kind")
    assert [document.text for document in documents] == ["row 0", "row 1", "row 2"]
    assert intake.dropped == {"null": 2, "null domain": 2}
    documents, intake = read(rows)
    assert len(documents) == 5
    assert intake.dropped == {"null": 2}


def test_a_column_that_no_row_has_is_named_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"column 'txt'\. Did you mean 'text'\? Available: id, text"
    ):
        read([{"text": "a"}, {"id": 1}], text_column="txt")
    endless = ({"body": "a"} for _ in iter(int, 1))
    with pytest.raises(UserError, match=r"column 'text'.*Available: body"):
        list(row_documents(config(Path("a.jsonl")), endless, Intake()))


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_json_is_read_as_lines_and_as_one_array(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"größe {i}"} for i in range(3)]
    lines = "\ufeff" + "\n".join(json.dumps(row) for row in rows)
    (tmp_path / name).write_text(lines, encoding="utf-8")
    assert list(json_rows(config(tmp_path / name), tmp_path / name)) == rows
    if name == "rows.json":
        (tmp_path / name).write_text(json.dumps(rows, indent=1))
        assert list(json_rows(config(tmp_path / name), tmp_path / name)) == rows


def test_rows_without_text_are_passed_over(table: Callable[..., Path], tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"words of row {i}"} for i in range(30)]
    corpus = load_corpus(config(table([*rows, {"text": None}, {"text": ""}])), tmp_path)
    assert (
        sum(
            len(split.document_names)
            for split in (corpus.train, corpus.calibration, corpus.validation)
        )
        == 30
    )
