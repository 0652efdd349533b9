import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config.data import DataConfig
from bench.data.documents import Document, Intake
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


def test_a_text_of_two_domains_stays_in_one_whatever_the_order() -> None:
    both = [Document(f"{kind}{i}", kind, f"text {i}") for i in range(100) for kind in "xy"]
    intake = Intake()
    splits = divide(both, CONFIG, intake)
    kept = [document for split in SPLITS for document in splits[split]]
    assert len(kept) == len({document.text for document in kept}) == 100
    assert intake.dropped == {"duplicate": 0, "duplicate in another domain": 100}
    counts = [sum(document.domain == kind for document in kept) for kind in "xy"]
    assert min(counts) > 30, "neither domain vanishes"
    assert divide(both[::-1], CONFIG) == splits


def test_a_domain_without_a_text_of_its_own_does_not_vanish() -> None:
    with pytest.raises(UserError, match="Domain 'y' has 0 distinct documents"):
        copies = [next(d for d in documents([100] * 9) if int(d.digest[-8:], 16) % 2 == 0)]
        divide(documents([100] * 50) + [Document("y", "y", d.text) for d in copies], CONFIG)


def test_what_is_left_out_is_counted() -> None:
    intake = Intake()
    blank = [Document("a", "x", ""), Document("b", "x", " \n")]
    divide(documents([100] * 50) + documents([100] * 3) + blank, CONFIG, intake)
    assert intake.dropped == {"empty": 2, "duplicate": 3, "duplicate in another domain": 0}


@pytest.mark.parametrize("seed", range(8))
def test_one_giant_document_stays_in_training(seed: int) -> None:
    """Hash order puts it first, among the first or last; the share holds in bytes."""
    giant = Document("giant", "x", f"{seed}" * 1_200_000)
    config = DataConfig()
    intake = Intake()
    splits = divide([giant, *documents([600] * 300)], config, intake)
    sizes = {split: sum(len(d.data) for d in splits[split]) for split in SPLITS}
    assert giant in splits["train"]
    assert intake.long == 1
    assert 0 < sizes["validation"] <= config.max_holdout * 180_000 + 600
    assert 0 < sizes["calibration"] <= config.max_holdout * 180_000 + 600
    assert len(splits["train"]) > 200, "a tenth of the giant would be nearly all of the others"


@given(st.lists(st.integers(10, 3000), min_size=30, max_size=60))
def test_held_out_splits_are_within_their_share_and_never_empty(sizes: list[int]) -> None:
    splits = divide(documents(sizes), DataConfig())
    total = sum(len(d.data) for split in SPLITS for d in splits[split])
    smallest = min(len(d.data) for split in SPLITS for d in splits[split])
    for split in ("calibration", "validation"):
        held = sum(len(d.data) for d in splits[split])
        assert 0 < held <= max(0.11 * total, smallest)


def test_few_documents_give_one_to_each_held_out_split() -> None:
    splits = divide(documents([90, 100, 110, 120, 130]), CONFIG)
    assert [len(splits[split]) for split in SPLITS] == [3, 1, 1]
    assert len(splits["validation"][0].data) == 90


@pytest.mark.parametrize("bad", [[], [Document("a", "x", " \n")], documents([10, 20])])
def test_too_little_text_is_refused(bad: list[Document]) -> None:
    with pytest.raises(UserError):
        divide(bad, CONFIG)


def test_no_text_is_refused_with_what_was_left_out() -> None:
    intake = Intake(dropped=Counter({"null domain": 150}))
    with pytest.raises(UserError, match=r"\(left out: 2 empty, 150 null domain\): check path"):
        divide([Document(str(i), "x", " ") for i in range(2)], CONFIG, intake)


def test_too_many_domains_are_refused() -> None:
    with pytest.raises(UserError, match="256 values"):
        divide([Document(str(i), str(i), str(i)) for i in range(256)], CONFIG)
