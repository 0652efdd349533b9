"""Judge the predictions of a study, by the same rule as on a board.

A prediction is *confirmed* if the difference lies, with significance, where the claim says: below 0
(or below -least) for "lower", above it for "higher", within the margin for "equal". It is *refuted*
if the difference falls, with significance, short of the claim: it does not reach the margin (or
`least`) in the claimed direction; for "equal", it lies beyond the margin. "not lower" is confirmed
above -margin and refuted below it; "not higher" is the mirror image. Both can hold for a real
difference that is smaller than the margin: that is a refutation. Otherwise the prediction is
*open*. Significance takes two tests at the study's level: the moderated t test, Holm-adjusted over
all predictions of the study, and the plain paired t test (`bench.stats.families`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.stats.families import FamilyTests
from bench.stats.moderation import ModeratedTests, Prior, fit_prior, moderate, row_variances
from bench.stats.paired import Floats, PairedTests, TTests, paired_t

Expectation = Literal["lower", "higher", "equal", "not_lower", "not_higher"]
"""Predicted direction of row - control.

"not_lower" and "not_higher" say that it is not so by as much as the margin. They are for claims
such as "does no harm", which a difference in the other direction confirms too.
"""
PredictionVerdict = Literal["confirmed", "refuted", "open", "not run"]
ClaimVerdict = Literal["reproduced", "not reproduced", "inconclusive", "not run"]


@dataclass(frozen=True)
class Prediction:
    """One prediction with its data.

    Coordinates are nats, or logarithms for measures that are compared as ratios.

    Attributes:
        group: measure and setting. Predictions of one group borrow variance from each other.
        names: names of row and control.
        row: seed -> coordinate of the row.
        control: seed -> coordinate of the control.
        expect: claimed direction of row - control.
        least: claimed smallest size; 0 for a direction alone.
        margin: largest difference that does not matter.
        failed: a cell of either row ran without a result that counts, so nothing is claimed.
    """

    group: tuple[str, str]
    names: tuple[str, str]
    row: Mapping[int, float]
    control: Mapping[int, float]
    expect: Expectation
    least: float
    margin: float
    failed: bool = False

    @property
    def differences(self) -> dict[int, float]:
        """Seed -> row minus control, at common seeds."""
        return {
            seed: self.row[seed] - self.control[seed]
            for seed in sorted(self.row)
            if seed in self.control
        }


@dataclass(frozen=True)
class PredictionResult:
    """The result of one prediction, in its coordinates. Numbers that do not exist are NaN.

    Attributes:
        difference: mean of row - control.
        interval: `single_step`, cut where the verdict's own test leaves off, as on a board
            (`bench.stats.outcome.cut_interval`).
        single_step: simultaneous over all predictions of the study.
        seeds: common seeds.
        wins: number of seeds whose difference has the claimed sign; for "equal", lies within the
            margin; for "not lower" and "not higher", is not beyond the margin on that side.
        p: adjusted p value of the claim behind the verdict; the smaller of the two if it is open.
        detectable: smallest true difference from 0 that this design finds with 80 % power.
        verdict: see the docstring of the module.
    """

    difference: float
    interval: tuple[float, float]
    single_step: tuple[float, float]
    seeds: tuple[int, ...]
    wins: int
    p: float
    detectable: float
    verdict: PredictionVerdict


def judge_predictions(predictions: Sequence[Prediction], alpha: float) -> list[PredictionResult]:
    """Judge all predictions of a study as one family.

    Args:
        predictions: all declared predictions. Those without data count in the correction too.
        alpha: probability of any false verdict.
    """
    if not predictions:
        return []
    # One family for the whole study: each p value is corrected for all predictions.
    tests = _family(predictions)
    # Two p values for each prediction, of the two opposite one-sided claims.
    confirm, refute = _confirm_and_refute(predictions, tests)
    half, smallest = tests.half_width(alpha), tests.detectable(alpha)
    found: list[PredictionResult] = []
    for k, prediction in enumerate(predictions):
        differences, mean = prediction.differences, float(tests.plain.mean[k])
        single_step = mean - float(half[k]), mean + float(half[k])
        verdict, p = _verdict(
            prediction, len(differences), float(confirm[k]), float(refute[k]), alpha
        )
        found.append(
            PredictionResult(
                difference=mean,
                interval=_cut(single_step, prediction, verdict),
                single_step=single_step,
                seeds=tuple(differences),
                wins=sum(_as_claimed(prediction, value) for value in differences.values()),
                p=p,
                detectable=float(smallest[k]),
                verdict=verdict,
            )
        )
    return found


def _cut(
    interval: tuple[float, float], prediction: Prediction, verdict: PredictionVerdict
) -> tuple[float, float]:
    """Return a simultaneous interval without the differences that the verdict's test excludes.

    The interval is of a single step, and Holm's test goes on in steps.
    """
    (low, high), mean = interval, sum(interval) / 2
    own, denied = _bounds(prediction)
    if verdict == "confirmed" and prediction.expect == "equal":
        return max(low, own[0]), min(high, own[1])
    if verdict not in ("confirmed", "refuted"):
        return interval
    # Such a test finds the difference outside of a range, on the side of the mean.
    start, end = denied if verdict == "confirmed" else own
    return (low, min(high, start)) if mean < start else (max(low, end), high)


def claim_verdict(verdicts: Sequence[PredictionVerdict]) -> ClaimVerdict:
    """Return the verdict of a claim from those of its predictions.

    It is reproduced if all are confirmed, and not reproduced if one is refuted.
    """
    if "refuted" in verdicts:
        return "not reproduced"
    if not verdicts or "not run" in verdicts:
        return "not run"
    return "reproduced" if set(verdicts) == {"confirmed"} else "inconclusive"


def _as_claimed(prediction: Prediction, difference: float) -> bool:
    if prediction.expect == "equal":
        return abs(difference) <= prediction.margin
    beyond = {"not_lower": -difference, "not_higher": difference}
    if prediction.expect in beyond:
        return beyond[prediction.expect] <= prediction.margin
    return difference < 0 if prediction.expect == "lower" else difference > 0


def _verdict(
    prediction: Prediction, n: int, confirm: float, refute: float, alpha: float
) -> tuple[PredictionVerdict, float]:
    if not n:
        return "not run", float("nan")
    # A refutation comes first: a real difference may still be smaller than the margin.
    if refute <= alpha and not prediction.failed:
        return "refuted", refute
    if confirm <= alpha and not prediction.failed:
        return "confirmed", confirm
    return "open", float(np.fmin(confirm, refute))


def _confirm_and_refute(
    predictions: Sequence[Prediction], tests: FamilyTests
) -> tuple[Floats, Floats]:
    """Return p values, by the whole rule, for confirming and refuting each prediction.

    A prediction is refuted outside of its own differences, and confirmed outside of the differences
    that deny it. "equal" is confirmed inside its own differences.
    """
    own, denied = (np.array(bounds).T for bounds in zip(*map(_bounds, predictions), strict=True))
    equal = np.array([prediction.expect == "equal" for prediction in predictions])

    def confirm(kind: TTests) -> Floats:
        return np.where(equal, kind.inside(*own), kind.outside(*denied))

    return tests.adjusted(confirm), tests.adjusted(lambda kind: kind.outside(*own))


def _bounds(prediction: Prediction) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the differences that a prediction allows, and those that deny it, from low to high.

    Differences in between neither confirm nor refute it.
    """
    margin, least, inf = prediction.margin, prediction.least, np.inf
    edge = least or margin
    return {
        "lower": ((-inf, -edge), (-least, inf)),
        "higher": ((edge, inf), (-inf, least)),
        "equal": ((-margin, margin), (-inf, inf)),
        "not_lower": ((-margin, inf), (-inf, -margin)),
        "not_higher": ((-inf, margin), (margin, inf)),
    }[prediction.expect]


def _family(predictions: Sequence[Prediction]) -> FamilyTests:
    """Return the tests of all predictions, with the variances of each group moderated apart."""
    seeds = sorted({seed for prediction in predictions for seed in prediction.differences})
    rows = [_losses(prediction.row, seeds) for prediction in predictions]
    controls = [_losses(prediction.control, seeds) for prediction in predictions]
    plain = paired_t(np.array(rows) - np.array(controls))
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, prediction in enumerate(predictions):
        groups[prediction.group].append(index)
    columns = np.full((6, len(predictions)), np.nan)
    for members in groups.values():
        # The prior of a group comes from the residuals of its rows, each row once.
        used = PairedTests(*(column[members] for column in vars(plain).values()))
        by_name: dict[str, Floats] = {}
        for k in members:
            by_name |= zip(predictions[k].names, (rows[k], controls[k]), strict=True)
        tests = moderate(used, _rows_prior(np.array(list(by_name.values())), used))
        prior = np.broadcast_arrays(tests.prior.df, tests.prior.variance, tests.n)[:2]
        columns[:, members] = tests.variance, tests.df, tests.prior_df, tests.mean, *prior
    variance, df, prior_df, mean, *prior = columns
    return FamilyTests(plain, ModeratedTests(plain.n, mean, variance, df, prior_df, Prior(*prior)))


def _losses(own: Mapping[int, float], seeds: Sequence[int]) -> Floats:
    return np.array([own.get(seed, np.nan) for seed in seeds])


def _rows_prior(values: Floats, tests: PairedTests) -> Prior:
    """Fit the prior of a group from its rows, at the seeds of its differences."""
    # Leave out seeds and rows without any value.
    values = values[:, ~np.isnan(tests.differences).all(axis=0)]
    values = values[~np.isnan(values).all(axis=1)]
    return (
        fit_prior(*row_variances(values)) if values.size else Prior(np.array(0.0), np.array(np.nan))
    )
