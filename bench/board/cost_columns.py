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
        "latency",
        "median time of a causal forward pass, µs a token",
        mean_of(measures.latency, quantity),
    )
    return [
        Column(
            "inference FLOPs",
            "active FLOPs a token, forward",
            mean_of(measures.active_flops, quantity),
        ),
        Column(
            "of dense",
            "active FLOPs as a share of the dense model's",
            mean_of(measures.active_share, percent),
        ),
        Column(
            "executed",
            "FLOPs with padding and full-square attention, share of dense",
            mean_of(measures.executed_share, percent),
        ),
        Column(
            "training FLOPs",
            "charged over the whole of training",
            mean_of(measures.training_flops, quantity),
        ),
        Column("tokens", "seen in training", mean_of(measures.from_training("tokens"), quantity)),
        Column(
            "parameters", "in all", mean_of(measures.from_training("parameters_total"), quantity)
        ),
        Column(
            "active",
            "parameters that a token meets, mean",
            mean_of(measures.from_training("parameters_active"), quantity),
        ),
        speed_column(board),
        *([latency] if timed else []),
        Column("memory", "peak, in training", memory),
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
            "of the budget, on the validation split at the calibrated setting",
            mean_of(measures.validation_spend, _fine),
        ),
        Column("headline", "how the loss at the budget was read", headline, numeric=False),
        Column(
            "causality",
            "trials of changing the future of the trained router without changing its past",
            _causality,
            numeric=False,
        ),
        *(
            Column(
                f"FLOPs to {number(BITS * limit, 2)}",
                f"training FLOPs to {number(BITS * limit, 2)} bits per byte",
                reached(limit),
            )
            for limit in measures.thresholds(board)
        ),
        Column("seeds", "that the means are over", _seeds, numeric=False),
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
    # A mean over the runs that reach the loss is too low, so their number stands beside it.
    cost, hits = measures.mean_cost_to_reach(row, limit)
    if cost is None:
        return TableCell("not reached" if any(record.curve for record in row.good) else MISSING)
    return TableCell(
        quantity(cost) + (f" ({hits}/{len(row.good)})" if hits < len(row.good) else ""), cost
    )
