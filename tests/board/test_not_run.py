"""Rows of a roster without a record: declared on an official board, never asked for elsewhere."""

from pathlib import Path

from bench.board.build import boards_of
from bench.record import Record, read_records

RESULTS = Path(__file__).parents[2] / "results"


def made_by(record: Record, command: str) -> Record:
    provenance = record.provenance.model_copy(update={"command": command})
    return record.model_copy(update={"provenance": provenance})


def test_a_run_of_ones_own_is_corrected_for_the_rows_that_it_asks_for() -> None:
    rows = ("mlp_gate", "random@ffn", "dense_matched")
    few = [
        record for row in rows for _, record in read_records(RESULTS / "quick" / row / "b50-flops")
    ]
    compared: list[set[str]] = []
    for command in ("bench run --official", "bench run --routers mlp_gate"):
        (board,) = boards_of([made_by(record, command) for record in few])
        assert board.judgement.plan is not None
        primary = [one for one in board.judgement.plan.comparisons if one.family == "primary"]
        compared.append({one.row for one in primary})
    assert "mod" in compared[0] and compared[1] == {"mlp_gate"}
