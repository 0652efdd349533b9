from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.data import DataConfig, load_corpus
from bench.data.tables import stream
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
    rows = stream(settings, "parquet", data_files=[str(tmp_path / "part.parquet")], split="train")
    first, second = next(rows), next(rows)
    rows.close()
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


@pytest.mark.parametrize("name", ["bad.parquet", "bad.jsonl"])
def test_a_broken_table_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"text": "x"\n nonsense')
    with pytest.raises(UserError, match=f"Cannot read the data .*{name}"):
        load_corpus(config(tmp_path / name), tmp_path)


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
