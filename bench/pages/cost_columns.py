"""Define the columns of cost and audit."""

import re
from collections.abc import Callable

from bench.board import measures
from bench.board.columns import Column, TableCell, family_column, mean_of, speed_column
from bench.board.model import Board, Row
from bench.board.text import BITS, MISSING, number, percent, quantity, seeds

_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def cost_columns(board: Board) -> list[Column]:
    """Return the columns for the cost of inference and training."""

    def memory(row: Row) -> TableCell:
        used = row.mean(measures.from_training("peak_memory_mb"))
        return TableCell(MISSING if used is None else f"{used:,.0f} MB", used)

    # Records of older versions have no latency, and then the column is left out.
    timed = any(row.mean(measures.latency) is not None for row in board.rows)
    latency = Column(
        "latency, µs",
        "median time of a causal forward pass per token",
        mean_of(measures.latency, quantity),
    )
    return [
        Column(
            "inference FLOPs",
            "active FLOPs per token of a forward pass",
            mean_of(measures.active_flops, quantity),
        ),
        Column(
            "of dense",
            "the same as a share of the dense model's",
            mean_of(measures.active_share, percent),
        ),
        Column(
            "executed",
            "FLOPs with padding and full-square attention, as the same share",
            mean_of(measures.executed_share, percent),
        ),
        Column(
            "training FLOPs",
            "all that training was charged",
            mean_of(measures.training_flops, quantity),
        ),
        Column("tokens", "seen in training", mean_of(measures.from_training("tokens"), quantity)),
        Column(
            "parameters", "in all", mean_of(measures.from_training("parameters_total"), quantity)
        ),
        Column(
            "active",
            "parameters that a token meets on average",
            mean_of(measures.from_training("parameters_active"), quantity),
        ),
        speed_column(board),
        *([latency] if timed else []),
        Column("memory", "peak of the process in training", memory),
    ]


def audit_columns(board: Board) -> list[Column]:
    """Return the columns for family, paper, budget audit, causality, FLOPs to losses and seeds."""

    def paper(row: Row) -> TableCell:
        text = row.first.cell.paper
        # Only a well-formed number becomes a link; everything else is foreign text.
        arxiv = _ARXIV.fullmatch(text)
        return TableCell(
            text or MISSING,
            foreign=arxiv is None,
            link=f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else None,
        )

    def headline(row: Row) -> TableCell:
        return TableCell(row.first.budget.headline if row.first.budget else MISSING)

    def reached(limit: float) -> Callable[[Row], TableCell]:
        return lambda row: _reached(row, limit)

    return [
        family_column(),
        Column("paper", "the source", paper, numeric=False),
        Column(
            "spend",
            "share of the budget that the calibrated model spends on the validation split",
            mean_of(measures.validation_spend, _fine),
        ),
        Column(
            "headline",
            "interpolated if the loss was read at a spend of exactly 100 %, single if there is no "
            "threshold to calibrate or no setting on either side of 100 %",
            headline,
            numeric=False,
        ),
        Column(
            "causality",
            "in trials that replace later tokens, no earlier decision may change (number of "
            "trials)",
            _causality,
            numeric=False,
        ),
        *(
            Column(
                f"FLOPs to {number(BITS * limit, 2)}",
                "training FLOPs until the loss falls to that many bits per byte (and the share of "
                "runs that get there, if not all do)",
                reached(limit),
            )
            for limit in measures.thresholds(board)
        ),
        Column("seeds", "seeds of the means", _seeds, numeric=False),
    ]


def _seeds(row: Row) -> TableCell:
    # A seed with several router seeds counts once.
    several = len(row.router_seeds)
    each = f", {several} router seeds each" if several > 1 else ""
    return TableCell(f"{seeds(list(row.losses))}{each}", len(row.losses))


def _fine(share: float | None) -> str:
    return percent(share, 2)


def _causality(row: Row) -> TableCell:
    # One failed seed fails the row.
    tried = [record.causality for record in row.records if record.causality]
    if not tried:
        return TableCell(MISSING)
    return TableCell(
        f"pass ({sum(one.trials for one in tried)})" if all(one.passed for one in tried) else "fail"
    )


def _reached(row: Row, limit: float) -> TableCell:
    # A mean over the runs that reach the loss is too low, so the cell also has their number.
    cost, hits = measures.mean_cost_to_reach(row, limit)
    if cost is None:
        return TableCell("not reached" if any(record.curve for record in row.good) else MISSING)
    return TableCell(
        quantity(cost) + (f" ({hits}/{len(row.good)})" if hits < len(row.good) else ""), cost
    )
