"""Measure the error of predicted rates: each row from the records of the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.planning.rates import LEAST_ROWS, Measured, Rates


@dataclass(frozen=True)
class Error:
    """The errors of predictions for rows that the rates do not know.

    Attributes:
        rows: number of rows.
        typical: median over rows of the absolute relative error.
        largest: largest of them.
        worst: its row.
    """

    rows: int
    typical: float
    largest: float
    worst: str


def leave_one_out(measured: Sequence[Measured], quantity: str = "seconds") -> Error | None:
    """Predict each row from the records of the others, and compare with the row's median.

    Args:
        measured: records of one suite on one kind of device.
        quantity: `seconds` of training, or `memory`.
    """
    rows = sorted({one.work.row for one in measured})
    if len(rows) <= LEAST_ROWS:
        return None
    errors: dict[str, float] = {}
    for row in rows:
        own = [one for one in measured if one.work.row == row]
        rates = Rates([one for one in measured if one.work.row != row])
        if quantity == "seconds":
            ratios = [rates.training_seconds(one.work) / one.seconds for one in own]
        else:
            ratios = [rates.memory(one.work) / one.memory for one in own if one.memory]
        if ratios:
            errors[row] = abs(median(ratios) - 1)
    worst = max(errors, key=lambda row: errors[row])
    return Error(len(errors), median(errors.values()), errors[worst], worst)
