import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config.data import DataConfig
from bench.data.documents import Document
from bench.data.splits import SPLITS, divide
from bench.errors import UserError


def documents(sizes: list[int], domain: str = "x") -> list[Document]:
    return [
        Document(f"{domain}{i}", domain, f"{domain}{i}".ljust(size, "."))
        for i, size in enumerate(sizes)
    ]


CONFIG = DataConfig.model_validate({"validation_bytes": 500, "calibration_bytes": 900})


@given(st.lists(st.integers(10, 300), min_size=30, max_size=80), st.integers(0, 2**32))
def test_splits_partition_the_documents_whatever_their_order(sizes: list[int], seed: int) -> None:
    given_documents = documents(sizes) + documents(sizes, "y")
    splits = divide(given_documents, CONFIG)
    assert sorted(d.name for split in SPLITS for d in splits[split]) == sorted(
        d.name for d in given_documents
    )
    random.Random(seed).shuffle(given_documents)
    assert divide(given_documents, CONFIG) == splits


def test_held_out_sizes_are_reached_by_whole_documents() -> None:
    splits = divide(documents([100] * 200), CONFIG)
    assert [sum(len(d.data) for d in splits[split]) for split in ("validation", "calibration")] == [
        500,
        900,
    ]
    small = divide(documents([100] * 20), CONFIG)
    assert len(small["validation"]) == 2, "a tenth of 2,000 bytes, not 500"


def test_equal_texts_are_kept_once_so_no_copy_crosses_splits() -> None:
    twins = documents([100] * 50) + [Document("copy", "x", d.text) for d in documents([100] * 50)]
    splits = divide(twins, CONFIG)
    texts = [d.text for split in SPLITS for d in splits[split]]
    assert len(texts) == len(set(texts)) == 50


def test_a_new_document_moves_none_of_the_others_out_of_hash_order() -> None:
    before = divide(documents([100] * 200), CONFIG)
    after = divide([*documents([100] * 200), Document("late", "x", "zzz" * 30)], CONFIG)
    assert len({d.name for d in before["validation"]} ^ {d.name for d in after["validation"]}) <= 2


@pytest.mark.parametrize("bad", [[], [Document("a", "x", " \n")], documents([10, 20])])
def test_too_little_text_is_refused(bad: list[Document]) -> None:
    with pytest.raises(UserError):
        divide(bad, CONFIG)


def test_too_many_domains_are_refused() -> None:
    with pytest.raises(UserError, match="256 values"):
        divide([Document(str(i), str(i), str(i)) for i in range(256)], CONFIG)
