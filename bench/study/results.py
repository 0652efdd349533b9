"""Collect the results of a study from its records: its grid and the verdicts of predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.board.build import STUDIES
from bench.board.conditions import separate
from bench.board.model import Row, counts
from bench.board.rows import checked_row, group_rows
from bench.config.read_suite import parse_suite
from bench.record import Record, read_records
from bench.stats.claims import (
    ClaimVerdict,
    Prediction,
    PredictionResult,
    PredictionVerdict,
    claim_verdict,
    judge_predictions,
)
from bench.study.config import Size, SizeName, StudyComparison, StudyConfig, StudyRow
from bench.study.measures import Measure
from bench.study.read_study import setting_at, value_at


@dataclass(frozen=True)
class Judged:
    """One prediction in its settings, with its result."""

    claim: int
    settings: tuple[str, ...]
    declared: StudyComparison
    found: PredictionResult
    note: str


@dataclass(frozen=True)
class SizeResults:
    """The results of a study at one size.

    Attributes:
        name: "small" or "full".
        size: the declaration of the size.
        rows: setting -> its rows in the order of the study, without rows that have no records.
        missing: (setting, row, seeds without a record).
        apart: (setting, record, reason why it does not count).
        judged: all predictions within the size's grid.
        verdicts: one per claim; None for a claim that this size leaves out.
    """

    name: SizeName
    size: Size
    rows: dict[str, tuple[Row, ...]]
    missing: tuple[tuple[str, str, tuple[int, ...]], ...]
    apart: tuple[tuple[str, Record, str], ...]
    judged: tuple[Judged, ...]
    verdicts: tuple[ClaimVerdict | None, ...]

    @property
    def records(self) -> list[Record]:
        """All records that the page shows."""
        return [record for rows in self.rows.values() for row in rows for record in row.records]


def study_folder(out: Path, study: str) -> Path:
    """Return the folder of a study's page and records in a tree of records."""
    return out / STUDIES / study


def collect(study: StudyConfig, folder: Path) -> list[SizeResults]:
    """Return the results at every size that has records below `folder`.

    Raises:
        UserError: a record was edited.
    """
    return [
        _at_size(study, name, folder / name)
        for name in study.sizes
        if any((folder / name).rglob("seed-*.json"))
    ]


def _at_size(study: StudyConfig, name: SizeName, folder: Path) -> SizeResults:
    size, grid = study.sizes[name], study.grid(study.sizes[name])
    rows: dict[str, tuple[Row, ...]] = {}
    missing: list[tuple[str, str, tuple[int, ...]]] = []
    apart: list[tuple[str, Record, str]] = []
    seeds = tuple(size.numbers)
    for setting, declared in grid.items():
        kept, others = _sort_out(
            study, size, setting, [record for _, record in read_records(folder / setting)]
        )
        apart += [(setting, record, why) for record, why in others]
        found = {row.name: checked_row(row, seeds) for row in group_rows(kept)}
        # Rows without records are missing entirely, others may lack single seeds.
        rows[setting] = tuple(found[row.name] for row in declared if row.name in found)
        for row in declared:
            there = (
                {(record.cell.seed, record.row.router_seed) for record in found[row.name].records}
                if row.name in found
                else set[tuple[int, int]]()
            )
            asked = [one.router_seed for one in row.plain().replicas()]
            if lacking := tuple(s for s in seeds if not {(s, own) for own in asked} <= there):
                missing.append((setting, row.name, lacking))
    judged = _judge(study, size, rows)
    # A claim holds the verdicts of all its predictions in all their settings.
    claims: list[list[PredictionVerdict]] = [
        [one.found.verdict for one in judged if one.claim == index]
        for index in range(len(study.claims))
    ]
    return SizeResults(
        name=name,
        size=size,
        rows=rows,
        missing=tuple(missing),
        apart=tuple(apart),
        judged=tuple(judged),
        verdicts=tuple(claim_verdict(verdicts) if verdicts else None for verdicts in claims),
    )


def _sort_out(
    study: StudyConfig, size: Size, setting: str, records: Sequence[Record]
) -> tuple[list[Record], list[tuple[Record, str]]]:
    """Return the records of declared cells under one set of conditions, and the others.

    Each of the others comes with the reason.
    """
    declared = {row.name: row for row in study.grid(size)[setting]}
    replaced = setting_at(study, size, setting).set
    wanted: list[Record] = []
    apart: list[tuple[Record, str]] = []
    for record in records:
        why = _undeclared(record, declared.get(record.cell.row), size, replaced)
        if why:
            apart.append((record, why))
        else:
            wanted.append(record)
    if not wanted:
        return [], apart
    # Records of the same cells may differ in machine, version or precision: use one group only.
    together, others = separate(wanted)
    return together, apart + others


def _undeclared(
    record: Record, row: StudyRow | None, size: Size, replaced: dict[str, object]
) -> str:
    """Return the reason why a record belongs to no declared cell, or an empty text."""
    config = record.provenance.config
    if row is None or record.cell.seed not in size.numbers:
        return "the study does not list this cell"
    # A cell that another study ran may have been compared with another row there.
    if record.row.alone() not in row.plain().alone().replicas():
        return "the row was run with other options"
    # Compare as parsed suites, so that defaults count and the spelling does not.
    ran = parse_suite(config, f"record of {row.name}").model_dump(mode="json") if replaced else {}
    changed = [field for field, value in replaced.items() if value_at(ran, field) != value]
    return f"it was run with {changed[0]} = {value_at(ran, changed[0])}" if changed else ""


def _judge(study: StudyConfig, size: Size, rows: dict[str, tuple[Row, ...]]) -> list[Judged]:
    """Judge all predictions of the size as one family."""
    places: list[tuple[int, tuple[str, ...], StudyComparison]] = [
        (index, settings, comparison)
        for index, claim in enumerate(study.claims)
        for comparison in claim.comparisons
        for settings in study.places(comparison, size)
    ]
    # The same row may run in several settings.
    by_name = {(setting, row.name): row for setting, found in rows.items() for row in found}
    predictions = [
        _prediction(study, settings, comparison, by_name) for _, settings, comparison in places
    ]
    return [
        Judged(claim, settings, comparison, found, _note(prediction, found, size))
        for (claim, settings, comparison), prediction, found in zip(
            places, predictions, judge_predictions(predictions, study.alpha), strict=True
        )
    ]


def _prediction(
    study: StudyConfig,
    settings: tuple[str, ...],
    comparison: StudyComparison,
    rows: dict[tuple[str, str], Row],
) -> Prediction:
    measure = comparison.of
    # One row for each setting; a prediction with `best` takes the lowest of them.
    row, control = (
        [rows.get((setting, name)) for setting in settings]
        for name in (comparison.row, comparison.control)
    )
    margin, least = study.margin_of(comparison), comparison.least
    return Prediction(
        group=(" ".join(settings), comparison.measure),
        names=(comparison.row, comparison.control),
        row=_lowest(row, measure),
        control=_lowest(control, measure),
        expect=comparison.expect,
        least=0.0 if least is None else measure.width(least),
        margin=measure.width(margin),
        # A failed cell may have failed because of its loss, so nothing is claimed then.
        failed=any(
            not (counts(record) and measure.reached(record))
            for one in (*row, *control)
            if one is not None
            for record in one.records
        ),
    )


def _lowest(rows: Sequence[Row | None], measure: Measure) -> dict[int, float]:
    """Return seed -> lowest value over the settings of a row, for the seeds that all have."""
    # Coordinates may be logarithms; their order is the order of the values.
    found = [coordinates(row, measure) for row in rows]
    return {
        seed: min(values[seed] for values in found)
        for seed in found[0]
        if all(seed in values for values in found)
    }


def coordinates(row: Row | None, measure: Measure) -> dict[int, float]:
    """Return seed -> value to take differences of, for the seeds that count and have it."""
    return row.by_seed(measure.coordinate) if row else {}


def _note(prediction: Prediction, found: PredictionResult, size: Size) -> str:
    """Return the note on a verdict, or an empty text."""
    if found.verdict == "not run":
        return "no seed of both rows has the measure"
    said: list[str] = []
    if len(found.seeds) < size.seeds:
        said.append(f"{len(found.seeds)} of {size.seeds} seeds have the measure in both rows")
    if prediction.failed:
        said.append("a cell failed, broke a rule or did not reach the loss, so nothing is claimed")
    # The interval lies inside the margin on both sides.
    elif (
        found.verdict == "refuted"
        and prediction.expect in ("lower", "higher")
        and max(map(abs, found.interval)) <= prediction.margin
    ):
        said.append("whatever its sign, it is smaller than the margin")
    return "; ".join(said)
