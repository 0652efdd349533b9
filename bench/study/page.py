"""The page of a study: a pure function of what was declared and of the records, so that the same of
both make the same bytes.
"""

import re
from collections import Counter
from collections.abc import Sequence

from bench.board.measures import mean_interval
from bench.board.model import Row
from bench.board.remarks import pretraining_apart
from bench.board.text import MISSING, code, escape, interval, listing, number, probability, table
from bench.board.text import seeds as seed_runs
from bench.study.config import StudyComparison, StudyConfig
from bench.study.figures import figures
from bench.study.measures import Measure, find_measure
from bench.study.results import Judged, SizeResults

_SIGNS = {"lower": "<", "higher": ">", "equal": "=", "not_lower": "not <", "not_higher": "not >"}


def render_page(study: StudyConfig, results: Sequence[SizeResults]) -> str:
    """The page as GitHub Markdown; it names the figures that lie beside it.

    Args:
        study: what was declared.
        results: one for every size that has records.
    """
    sections = [
        f"# {escape(study.title)}",
        f"**{_summary(study, results)}**",
        f"Made from the declaration of `{study.name}` and its records; do not edit. Losses are in nats a byte (a token, where the data are "
        "no text), lower is better.",
        escape(study.purpose, 2000),
        f"Scope: {escape(study.scope, 2000)}",
        "## Claims",
        _claims(study, results),
    ]
    for found in results:
        sections += _size(study, found)
    sections += ["## Sizes", _sizes(study, results), _reading(study), _made_by(study, results)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(study: StudyConfig, results: Sequence[SizeResults]) -> str:
    """How many claims were reproduced, in one sentence a size."""
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
            f"At size {found.name}, {found.size.seeds} seeds, of {claims}: {listing(words) or 'none in its grid'}."
        )
    return " ".join(said)


def _claims(study: StudyConfig, results: Sequence[SizeResults]) -> str:
    """Each claim with its source, the source's figure, and the verdict at each size."""
    header = ["", "claim", "source", "its figure", *(f"verdict, {found.name}" for found in results)]
    lines = [
        [str(index + 1), escape(claim.text, 600), _source(claim.source), _figure(claim.figure)]
        + [_bold(found.verdicts[index] or "not part of this size") for found in results]
        for index, claim in enumerate(study.claims)
    ]
    return table(header, lines, "r" + "l" * (len(header) - 1))


def _source(text: str) -> str:
    """A source with its arXiv number as a link."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", escape(text))


def _bold(verdict: str) -> str:
    return f"**{verdict}**" if verdict.endswith("reproduced") else verdict


def _size(study: StudyConfig, results: SizeResults) -> list[str]:
    """Rows, figures and comparisons of one size."""
    sections = [f"## Size {results.name}: {results.size.seeds} seeds"]
    drawn = figures(study, results)
    for setting, rows in results.rows.items():
        sections += [
            f"### Setting {code(setting)}",
            _conditions(study, rows),
            _rows(study, results, setting),
        ]
        sections += [
            f"![{name}]({name})" for name in drawn if name.startswith(f"{results.name}-{setting}-")
        ]
    sections += ["### Predictions", _predictions(study, results.judged), _notes(results)]
    if missing := _missing(results):
        sections += ["### Not run, or not counted", missing]
    return sections


def _conditions(study: StudyConfig, rows: Sequence[Row]) -> str:
    if not rows:
        return "No records."
    first = rows[0].first
    made, cell = first.provenance, first.cell
    threads = f"{made.threads} thread{'s' * (made.threads != 1)}"
    apart = first.flops.pretraining if first.flops else 0.0
    frozen = f" {pretraining_apart(apart)}" if apart else ""
    return (
        f"Suite {code(cell.suite)} at {100 * cell.budget:g} % budget and equal training {'FLOPs' if cell.match == 'flops' else 'tokens'}; "
        f"{escape(made.device)}, {escape(made.processor)}, {threads}, {escape(made.dtype)}.{frozen}"
    )


def _rows(study: StudyConfig, results: SizeResults, setting: str) -> str:
    """The study's measures of each row, means over the seeds that count."""
    measures = [find_measure(name) for name in dict.fromkeys(("loss", *study.measures))]
    declared = {row.name: row for row in study.rows}
    lines: list[list[str]] = []
    for row in results.rows[setting]:
        what = "" if row.status in ("ok", "incomplete") else f"{row.status}: {row.reason}"
        values = [
            _value(row, measure) + _theirs(declared[row.name].figures.get(measure.name))
            for measure in measures
        ]
        lines.append(
            [
                code(row.name),
                escape(declared[row.name].about),
                *values,
                seed_runs(list(row.losses)),
                escape(what),
            ]
        )
    if not lines:
        return ""
    header = ["row", "what it is", *(measure.title for measure in measures), "seeds", "note"]
    return table(header, lines, "ll" + "r" * len(measures) + "ll")


def _theirs(figure: str | None) -> str:
    """The source's own figure, beside ours."""
    return f" (source: {_figure(figure)})" if figure else ""


def _figure(text: str) -> str:
    """A declared figure: escaped, but for its decimal point."""
    return re.sub(r"(?<=\d)&#46;(?=\d)", ".", escape(text, 300))


def _value(row: Row, measure: Measure) -> str:
    values = [value for record in row.good if (value := measure.read(record)) is not None]
    if not values:
        return MISSING
    shown = measure.show(sum(values) / len(values))
    if measure.name == "loss":
        return f"{shown} {interval(*mean_interval(values), 4)}".strip()
    return shown + (f" ({len(values)}/{len(row.good)})" if len(values) < len(row.good) else "")


def _predictions(study: StudyConfig, judged: Sequence[Judged]) -> str:
    """Each prediction with the source's figure beside ours."""
    lines = [[str(one.claim + 1), code(one.setting), *_prediction(study, one)] for one in judged]
    header = [
        "claim",
        "setting",
        "measure",
        "row",
        "to",
        "predicted",
        "source",
        "found",
        "wins",
        "p",
        "detectable",
        "verdict",
    ]
    return (
        table(header, lines, "rllllllrrrrl")
        if lines
        else "None of the study's predictions is part of this size."
    )


def _prediction(study: StudyConfig, one: Judged) -> list[str]:
    declared, found, measure = one.declared, one.found, one.declared.of
    low, high = found.interval
    limits = (
        f" [{measure.effect(low)}, {measure.effect(high)}]"
        if low == low and abs(low) != float("inf")
        else ""
    )
    return [
        escape(measure.title),
        code(declared.row),
        code(declared.control),
        _expected(study, declared),
        _figure(declared.figure),
        MISSING if not found.seeds else measure.effect(found.difference) + limits,
        f"{found.wins}/{len(found.seeds)}",
        probability(found.p),
        MISSING if found.detectable == float("inf") else _size_of(measure, found.detectable),
        _bold(found.verdict)
        if found.verdict not in ("confirmed", "refuted")
        else f"**{found.verdict}**",
    ]


def _expected(study: StudyConfig, declared: StudyComparison) -> str:
    measure, sign = declared.of, _SIGNS[declared.expect]
    margin = _size_of(measure, measure.width(study.margin_of(declared)))
    if declared.least is None:
        return f"{sign} (margin {margin})"
    return f"{sign} by {_size_of(measure, measure.width(declared.least))} or more"


def _size_of(measure: Measure, width: float) -> str:
    """A half-width in coordinates: a factor, or a number without a sign."""
    return measure.effect(width) if measure.ratio else number(width, 4)


def _notes(results: SizeResults) -> str:
    said = [
        f"- {code(one.declared.row)} to {code(one.declared.control)}, {escape(one.declared.of.title)}, {code(one.setting)}: {one.note}."
        for one in results.judged
        if one.note
    ]
    return "\n".join(said)


def _missing(results: SizeResults) -> str:
    lines = [
        f"- {code(row)} in {code(setting)}: no record of seeds {seed_runs(seeds)}."
        for setting, row, seeds in results.missing
    ]
    groups: dict[tuple[str, str, str], list[int]] = {}
    for setting, record, why in results.apart:
        groups.setdefault((setting, record.cell.row, why), []).append(record.cell.seed)
    lines += [
        f"- {code(row)} in {code(setting)}, seeds {seed_runs(found)}, is left out: {escape(why)}."
        for (setting, row, why), found in groups.items()
    ]
    return "\n".join(lines)


def _sizes(study: StudyConfig, results: Sequence[SizeResults]) -> str:
    """What each size holds, what it was predicted to cost, and what its training took."""
    took = {
        found.name: sum(r.training.seconds for r in found.records if r.training) / 60
        for found in results
    }
    lines: list[list[str]] = []
    for name, size in study.sizes.items():
        cells = size.seeds * sum(len(rows) for rows in study.grid(size).values())
        measured = f"{took[name]:.0f}" if name in took else MISSING
        command = code(f"python -m bench study {study.name} --size {name}")
        lines.append(
            [
                name,
                seed_runs(list(size.numbers)),
                str(cells),
                f"{size.core_minutes:g}",
                measured,
                escape(size.machine),
                command,
            ]
        )
    header = [
        "size",
        "seeds",
        "cells",
        "predicted core-minutes",
        "minutes of training",
        "predicted for",
        "command",
    ]
    return table(header, lines, "llrrrll")


def _reading(study: StudyConfig) -> str:
    names = dict.fromkeys(
        ("loss", *study.measures, *(comparison.measure for comparison in study.comparisons))
    )
    meanings = "\n".join(
        f"  - {find_measure(name).title}: {find_measure(name).meaning}." for name in names
    )
    ratios = any(find_measure(c.measure).ratio for c in study.comparisons)
    factors = (
        " Factors (×) are ratios of row to the other, compared in logarithms." if ratios else ""
    )
    return f"""## How to read this

- **Predictions** were declared with the study, before it was run. *Found* is row minus the other row, paired by seed, with an interval
  that is simultaneous over all predictions of the size ({100 * (1 - study.alpha):g} %).{factors}
- **Verdicts**: *confirmed* when the difference is shown to lie where it was predicted; *refuted* when it is shown to fall short of the
  margin, or of the size that was claimed, in the predicted direction; *open* when neither is shown. A difference shown to be real, and
  shown to be smaller than the margin, is *refuted*; one shown to be real alone is *confirmed*. For "=" it must be shown to lie within,
  or beyond, the margin; for "not <" and "not >", not to lie beyond it on that side, or to lie there. Shown means: by the moderated
  t test, Holm-adjusted over all predictions, and by the plain paired t test, both at {study.alpha:g}.
- A claim is *reproduced* when all its predictions are confirmed, *not reproduced* when one is refuted, else *inconclusive*, at this number
  of seeds and this scale.
- **Wins**: seeds whose difference has the predicted sign, or lies within the margin (for "not <" and "not >" on that side). The
  smallest two-sided p of signs alone is 2^(1-n): three wins of three cannot decide anything by themselves.
- **p** is of the verdict: that the difference reaches what was predicted, or for *refuted* that it does not; where *open*, the smaller of
  the two. It is no test against zero where a size was predicted. Intervals are two-sided and verdicts one-sided, so one can be confirmed
  with its interval over the edge.
- **Detectable**: the smallest true difference from zero that this design finds with 80 % power; "by x or more" takes about x more, and "="
  with a margin far below it can come out refuted or open only.
- **Probes** look at a smaller part of the validation split than the headline: compare best and average with each other, not with the loss.
- Measures:
{meanings}"""


def _made_by(study: StudyConfig, results: Sequence[SizeResults]) -> str:
    made = [record.provenance for found in results for record in found.records]
    if not made:
        return ""
    commits = sorted({(one.commit, one.dirty) for one in made})
    named = listing(
        [
            f"{code(commit[:12])}{' with uncommitted changes' if dirty else ''}"
            for commit, dirty in commits
        ]
    )
    ran = listing([code(command, 200) for command in sorted({one.command for one in made})], 3)
    return f"Made by {code(f'python -m bench study {study.name} --render')} from {len(made)} records of {named}, run by {ran}."
