"""Hold a board: its rows, their records and the statistics' judgement of them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

from bench.board.text import whole
from bench.board.verdicts import Judgement
from bench.config.roles import DENSE_MATCHED, matched_row
from bench.config.row import Role
from bench.record import Record
from bench.stats import Outcome

RowStatus = Literal["ok", "incomplete", "off_budget", "invalid", "diverged", "failed", "mixed"]


@dataclass(frozen=True)
class Row:
    """All seeds of one row under one budget.

    Attributes:
        name: the row's name on the board.
        records: every record of the row, by seed and router seed, whatever its status.
        status: "ok" when every record counts and at least two seeds are the board's; else why the
            row is not ranked.
        reason: the same in words, with the seeds concerned; of a ranked row, which seeds it lacks.
    """

    name: str
    records: tuple[Record, ...]
    status: RowStatus = "ok"
    reason: str = ""

    @cached_property
    def first(self) -> Record:
        """Return the record for names and settings: the lowest seed that counts, if any does."""
        return next(iter(self.good), self.records[0])

    @cached_property
    def good(self) -> tuple[Record, ...]:
        """Return the records that were run to the end and kept the rules."""
        return tuple(record for record in self.records if counts(record))

    @property
    def label(self) -> str:
        """Return the name for a frame."""
        return whole(self.name)

    @property
    def role(self) -> Role:
        """Return the role of the row on the board."""
        return self.first.cell.role

    @cached_property
    def router_seeds(self) -> tuple[int, ...]:
        """Return the router seeds that each seed must have: all that were declared or run."""
        # A suite that declares more router seeds than were run makes a seed incomplete.
        declared = {
            seed
            for record in self.records
            for row in record.provenance.config.get("rows") or ()
            if row["name"] == self.name
            for seed in row.get("router_seeds") or ()
        }
        return tuple(sorted(declared | {record.row.router_seed for record in self.records}))

    @cached_property
    def losses(self) -> dict[int, float]:
        """Return seed -> headline loss, nats a byte, of the seeds that count."""
        return self.by_seed(lambda record: record.loss)

    def by_seed(self, read: Callable[[Record], float | None]) -> dict[int, float]:
        """Return the row's value of a figure at each seed, from the records that count."""
        return by_seed(self.good, read, self.router_seeds)

    @property
    def control(self) -> str | None:
        """Return the row of `random` to compare with; a record of a study may name none."""
        return next((r.cell.control for r in self.records if r.cell.control), None)

    @cached_property
    def waived(self) -> dict[str, str]:
        """Return failed but waived check -> finding; empty for shipped routers.

        A check of a wrapped router has that router's name before it.
        """
        found: dict[str, str] = {}
        for record in self.records:
            for one in record.checks:
                if one.status in ("waived", "expected_failure"):
                    wrapped = f"{one.router}: " * (one.router != record.row.router)
                    found.setdefault(f"{wrapped}{one.check}", one.reason)
        return found

    @property
    def shown_loss(self) -> float | None:
        """Return the mean headline loss, nats a byte, even if no record counts."""
        return self.mean(lambda record: record.loss)

    def mean(self, read: Callable[[Record], float | None]) -> float | None:
        """Average a figure over the records that have it.

        Where no record counts, all do, so that failures show their cost.
        """
        values = [
            value
            for record in self.good or self.records
            if (value := read(record)) is not None and math.isfinite(value)
        ]
        return fmean(values) if values else None


@dataclass(frozen=True)
class Board:
    """One suite at one budget.

    Attributes:
        suite: the suite's name.
        budget: rho, the share of the routed full-path cost that is paid for.
        match: whether rows spent the same training FLOPs or saw the same tokens.
        config: the suite's canonical configuration, as the records hold it.
        seeds: the seeds that rows are ranked on; a ranked row may lack some.
        ranked: rows that may be compared, best first.
        brackets: `dense` and `cheap` at equal tokens; unranked.
        informed: rows with side information, or with a budget of their own; unranked.
        unranked: rows that would be ranked but for their `status`.
        sensitivity: the learning-rate variants of rows, `row@lr...`.
        apart: (record, difference) for records of other rules, data, configuration or machine.
        schedules: the looks of each declaration that some ranked record was made under.
        judgement: the statistics' judgement of the ranked rows.
        equal_tokens: the same suite and budget ranked at equal tokens, where it was run.
        other_budgets: ranked rows of the suite at other budgets.
    """

    suite: str
    budget: float
    match: Literal["flops", "tokens"]
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    ranked: tuple[Row, ...]
    brackets: tuple[Row, ...]
    informed: tuple[Row, ...]
    unranked: tuple[Row, ...]
    sensitivity: tuple[Row, ...]
    apart: tuple[tuple[Record, str], ...]
    schedules: tuple[tuple[int, ...], ...]
    judgement: Judgement
    equal_tokens: "Board | None" = None
    other_budgets: tuple[Row, ...] = ()

    @property
    def title(self) -> str:
        """Name the suite and, if it was run at several, the budget."""
        return (
            f"{self.suite} at {100 * self.budget:g} % budget" if self.other_budgets else self.suite
        )

    @property
    def rows(self) -> tuple[Row, ...]:
        """Return every row that has a loss to show, ranked ones first."""
        return (
            *self.ranked,
            *self.brackets,
            *self.informed,
            *(row for row in self.unranked if row.losses),
        )

    @property
    def matched_control(self) -> str:
        """Name the unrouted row that costs B."""
        return str(comparison(self.config)["dense_matched"])

    @property
    def dense(self) -> Row | None:
        """Return the bracket that throughput is measured against.

        Its active FLOPs are closest to those of the dense model.
        """
        # Without a preference for names: a suite may call its brackets anything.
        shares = {
            row.name: row.mean(
                lambda record: record.flops.active / record.flops.dense if record.flops else None
            )
            for row in self.brackets
        }
        return min(
            (row for row in self.brackets if shares[row.name]),
            key=lambda row: abs((shares[row.name] or 0) - 1),
            default=None,
        )

    def outcome(self, row: Row, control: str | None) -> Outcome | None:
        """Return the declared comparison of `row` with `control`, if there is one."""
        return (
            self.judgement.outcomes.get((row.name, control or "")) if row.status == "ok" else None
        )


def by_seed(
    records: Iterable[Record], read: Callable[[Record], float | None], router_seeds: Sequence[int]
) -> dict[int, float]:
    """Return seed -> mean over its router seeds of a figure read from each record of a row.

    A seed that lacks the figure for any of the router seeds has no value: a mean over those that
    went well would be a selection.

    Args:
        records: of one row, at most one for each seed and router seed.
        read: returns the figure to average.
        router_seeds: all that a seed must have.
    """
    found: dict[int, list[float]] = defaultdict(list)
    for record in records:
        if (value := read(record)) is not None:
            found[record.cell.seed].append(value)
    return {
        seed: fmean(values) for seed, values in found.items() if len(values) == len(router_seeds)
    }


def counts(record: Record) -> bool:
    """Return whether a record's loss may stand on a board."""
    return record.status == "ok" and record.loss is not None and math.isfinite(record.loss)


def comparison(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the suite's declaration before the run.

    Margin (nats a byte), alpha, looks, the unrouted control.
    """
    # Records hold the whole declaration; the defaults are for boards of older ones.
    declared = {
        "margin": 0.01,
        "alpha": 0.05,
        "dense_matched": DENSE_MATCHED,
        **(config.get("comparison") or {}),
    }
    # The default name may stand for a control that the suite named otherwise.
    rows = {row["name"]: row for row in config.get("rows") or ()}
    return {**declared, "dense_matched": matched_row(str(declared["dense_matched"]), rows)}
