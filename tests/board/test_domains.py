"""Differences by domain against sums over documents."""

import math
from statistics import fmean

from bench.board.build import boards_of
from bench.board.domains import domain_differences
from bench.board.text import number
from tests.board.synthetic import QUICK, records

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


def test_records_without_documents_have_no_table() -> None:
    bare = [one.model_copy(update={"documents": {}}) for one in MADE]
    assert domain_differences(boards_of(bare)[0]) is None
    assert domain_differences(boards_of(records(QUICK[1:3]))[0]) is None, "no matched model"
