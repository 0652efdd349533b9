"""Prepare the values for the page of a study, and render its template.

The page is a pure function of the declaration and the records: equal inputs give equal bytes.
"""

from collections import Counter
from collections.abc import Sequence
from math import isfinite
from typing import Any

from bench.board.conditions import processors
from bench.board.measures import mean_interval
from bench.board.model import Row
from bench.board.text import MISSING, code, escape, interval, listing, number, probability
from bench.board.text import seeds as seed_runs
from bench.pages.leaderboard import provenance_of
from bench.pages.remarks import pretraining_apart
from bench.pages.templating import markdown, shown_figure, source_link
from bench.study.config import StudyComparison, StudyConfig
from bench.study.figures import study_figures
from bench.study.measures import Measure, find_measure
from bench.study.results import Judged, SizeResults

_SIGNS = {"lower": "<", "higher": ">", "equal": "=", "not_lower": "not <", "not_higher": "not >"}


def render_page(study: StudyConfig, results: Sequence[SizeResults]) -> str:
    """Render the page as GitHub Markdown. It names the figures in its folder.

    Args:
        study: the declaration.
        results: the results at each size that has records.
    """
    # The page explains every measure that it shows, also those of predictions alone.
    declared = [comparison.measure for comparison in study.comparisons]
    made = [record.provenance for found in results for record in found.records]
    context = {
        "study": study,
        "summary": _summary(study, results),
        "claims": _claims(study, results),
        "verdict_titles": [f"verdict, {found.name}" for found in results],
        "sizes": [_size(study, found) for found in results],
        "extents": _extents(study, results),
        "measures": [
            find_measure(name) for name in dict.fromkeys(("loss", *study.measures, *declared))
        ],
        "ratios": any(find_measure(name).ratio for name in declared),
        "made": provenance_of(made),
    }
    return markdown("bench.study", "", "page.md.j2", context)


def _summary(study: StudyConfig, results: Sequence[SizeResults]) -> str:
    """Count the verdicts of the claims, in one sentence per size."""
    if not results:
        return "Not run yet."
    said: list[str] = []
    for found in results:
        counts = Counter(verdict for verdict in found.verdicts if verdict is not None)
        words = [
            f"{counts[word]} {word}"
            for word in ("reproduced", "not reproduced", "inconclusive", "not run")
            if counts[word]
        ]
        claims = f"{len(study.claims)} claim{'s' * (len(study.claims) != 1)}"
        said.append(
            f"At size {found.name}, {found.size.seeds} seeds, of {claims}: "
            f"{listing(words) or 'none in its grid'}."
        )
    return " ".join(said)


def _claims(study: StudyConfig, results: Sequence[SizeResults]) -> list[list[str]]:
    """Return each claim with its source, the source's figure, and the verdict at each size."""
    return [
        [
            str(index + 1),
            escape(claim.text, 600),
            source_link(claim.source),
            shown_figure(claim.figure),
            *(_bold(found.verdicts[index] or "not part of this size") for found in results),
        ]
        for index, claim in enumerate(study.claims)
    ]


def _bold(verdict: str) -> str:
    loud = verdict.endswith("reproduced") or verdict in ("confirmed", "refuted")
    return f"**{verdict}**" if loud else verdict


def _size(study: StudyConfig, results: SizeResults) -> dict[str, Any]:
    """Return the rows, figures and comparisons of one size."""
    drawn = study_figures(study, results)
    # Seeds of a row that are left out for the same reason share a line.
    groups: dict[tuple[str, str, str], list[int]] = {}
    for setting, record, why in results.apart:
        groups.setdefault((setting, record.cell.row, why), []).append(record.cell.seed)
    return {
        "name": results.name,
        "seeds": results.size.seeds,
        "settings": [
            {
                **_setting(study, setting, rows),
                "pictures": [
                    (name, figure.title)
                    for name, figure in drawn.items()
                    if name.startswith(f"{results.name}-{setting}-")
                ],
            }
            for setting, rows in results.rows.items()
        ],
        "notes": [(one, _where(one)) for one in results.judged if one.note],
        "across": [
            (name, figure.title)
            for name, figure in drawn.items()
            if name.startswith(f"{results.name}.")
        ],
        "predictions": [
            [str(one.claim + 1), _where(one), *_prediction(study, one)] for one in results.judged
        ],
        "missing": results.missing,
        "left_out": [(setting, row, found, why) for (setting, row, why), found in groups.items()],
    }


def _setting(study: StudyConfig, setting: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the measures of each row of a setting, as means over the seeds that count."""
    measures = [find_measure(name) for name in dict.fromkeys(("loss", *study.measures))]
    declared = {row.name: row for row in study.rows}
    lines: list[list[str]] = []
    for row in rows:
        # A row that does not count has its reason as a note.
        kept = row.status in ("ok", "incomplete")
        values = [
            _value(row, measure) + _theirs(declared[row.name].figures.get(measure.name))
            for measure in measures
        ]
        about = escape(declared[row.name].about)
        note = escape("" if kept else f"{row.status}: {row.reason}")
        lines.append([code(row.name), about, *values, seed_runs(list(row.losses)), note])
    first = rows[0].first if rows else None
    frozen = first.flops.pretraining if first and first.flops else 0.0
    return {
        "name": setting,
        "first": first,
        "processors": processors([record for row in rows for record in row.records]),
        "apart": pretraining_apart(frozen) if frozen else "",
        "titles": [measure.title for measure in measures],
        "lines": lines,
    }


def _theirs(figure: str | None) -> str:
    """Show the source's own figure after ours."""
    return f" (source: {shown_figure(figure)})" if figure else ""


def _value(row: Row, measure: Measure) -> str:
    values = list(row.by_seed(measure.read).values())
    if not values:
        return MISSING
    # Only the loss has an interval; another measure shows how many seeds have it, if not all.
    shown = measure.show(sum(values) / len(values))
    if measure.name == "loss":
        return f"{shown} {interval(*mean_interval(values), 4)}".strip()
    seeds = len({record.cell.seed for record in row.good})
    return shown + (f" ({len(values)}/{seeds})" if len(values) < seeds else "")


def _where(one: Judged) -> str:
    """Return the settings of a prediction."""
    names = [code(name) for name in one.settings]
    return f"best of {listing(names)}" if one.declared.best else names[0]


def _prediction(study: StudyConfig, one: Judged) -> list[str]:
    declared, found, measure = one.declared, one.found, one.declared.of
    # An interval of one seed is NaN or infinite, and is not shown.
    low, high = found.interval
    # An end that a verdict cut does not belong to the interval.
    first, last = found.single_step
    left, right = "[" if low == first else "(", "]" if high == last else ")"
    limits = (
        f" {left}{measure.effect(low)}, {measure.effect(high)}{right}"
        if low == low and abs(low) != float("inf")
        else ""
    )
    return [
        escape(measure.title),
        code(declared.row),
        code(declared.control),
        _expected(study, declared),
        shown_figure(declared.figure),
        MISSING if not found.seeds else measure.effect(found.difference) + limits,
        f"{found.wins}/{len(found.seeds)}",
        probability(found.p),
        MISSING if found.detectable == float("inf") else _size_of(measure, found.detectable),
        _bold(found.verdict),
    ]


def _expected(study: StudyConfig, declared: StudyComparison) -> str:
    measure, sign = declared.of, _SIGNS[declared.expect]
    margin = _size_of(measure, measure.width(study.margin_of(declared)))
    if declared.least is None:
        return f"{sign} (margin {margin})"
    return f"{sign} by {_size_of(measure, measure.width(declared.least))} or more"


def _size_of(measure: Measure, width: float) -> str:
    """Show a half-width in coordinates: as a factor, or as a number without a sign."""
    return measure.effect(width) if measure.ratio else number(width, 4)


def _extents(study: StudyConfig, results: Sequence[SizeResults]) -> list[list[str]]:
    """Return the cells, the predicted cost and the measured minutes of training of each size."""
    took = {
        found.name: sum(
            r.training.seconds for r in found.records if r.training and isfinite(r.training.seconds)
        )
        / 60
        for found in results
    }
    lines: list[list[str]] = []
    for name, size in study.sizes.items():
        measured = f"{took[name]:.0f}" if name in took else MISSING
        command = code(f"python -m bench study {study.name} --size {name}")
        lines.append(
            [
                name,
                seed_runs(list(size.numbers)),
                str(study.num_cells(size)),
                f"{size.core_minutes:g}",
                measured,
                escape(size.machine),
                command,
            ]
        )
    return lines
