"""Differences by domain against sums over documents."""

import math
from statistics import fmean

from bench.board.build import boards_of
from bench.board.domains import domain_differences
from bench.board.text import number
from tests.board.synthetic import QUICK, record, records, replicas

MADE = records(QUICK[:3], [0, 1, 2])


def test_each_row_stands_against_the_matched_model_in_bits_per_byte() -> None:
    table = domain_differences(boards_of(MADE)[0])
    assert table is not None
    assert table.header == ("router", "code", "locale", "mathematics", "reference", "speech")
    losses = {
        name: fmean(
            sum(nats for _, nats, _ in one.documents.values())
            / sum(size for _, _, size in one.documents.values())
            for one in MADE
            if one.cell.row == name
        )
        for name in ("mlp_gate", "dense_matched")
    }  # every domain of a synthetic record has the same losses
    wanted = (losses["mlp_gate"] - losses["dense_matched"]) / math.log(2)
    lines = {line[0]: line[1:] for line in table.rows}
    assert "dense_matched" not in lines
    assert all(cell.startswith(f"{number(wanted, signed=True)} [") for cell in lines["mlp_gate"])
    assert "over 3 seeds" in table.note


def test_documents_of_a_seed_are_means_over_its_router_seeds() -> None:
    """Two router seeds whose nats lie as far above a loss as below it show the same as the loss."""
    kind = QUICK[1]
    once = [record(kind, seed, loss=2.0 + seed / 10) for seed in range(3)]
    twice = [
        one
        for seed in range(3)
        for one in replicas(kind, seed, {0: 1.9 + seed / 10, 2: 2.1 + seed / 10})
    ]
    twice = [one.model_copy(update={"documents": documents(one.loss or 0)}) for one in twice]
    once = [one.model_copy(update={"documents": documents(one.loss or 0)}) for one in once]
    others = records([QUICK[0], QUICK[2]], range(3))
    tables = [domain_differences(boards_of([*others, *made])[0]) for made in (once, twice)]
    assert tables[0] is not None and tables[0] == tables[1]


def documents(loss: float) -> dict[str, tuple[str, float, float]]:
    return {f"code/{n}": ("code", (loss + n / 7) * 900, 1000.0) for n in range(4)}


def test_records_without_documents_have_no_table() -> None:
    bare = [one.model_copy(update={"documents": {}}) for one in MADE]
    assert domain_differences(boards_of(bare)[0]) is None
    assert domain_differences(boards_of(records(QUICK[1:3]))[0]) is None, "no matched model"
