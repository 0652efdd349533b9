"""From the differences that a study's predictions are about to verdicts, by the rule that decides
on a board.

A prediction is *confirmed* when the difference is shown to lie where the claim says: below 0 (or
below -least) for "lower", above it for "higher", within the margin for "equal". It is *refuted*
when the difference is shown to fall short of the
claim: it does not reach the margin (or `least`) in the claimed direction, which includes every
difference the other way; for "equal", it lies beyond the margin. "not lower" is confirmed when the
difference is shown to lie above -margin, refuted when below; "not higher" likewise. Both can hold
for a difference that is real and smaller than the margin: that is a refutation. Otherwise it is
*open*. What is shown is shown by two tests at the study's level: the moderated t test,
Holm-adjusted over all predictions of the study, and the plain paired t test
(`bench.stats.families`).
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
"""What is said of row - control; "not_lower" and "not_higher": that it is not so by as much as the
margin.

The last two are for claims such as "does no harm", which an outcome in the other direction bears
out.
"""
PredictionVerdict = Literal["confirmed", "refuted", "open", "not run"]
ClaimVerdict = Literal["reproduced", "not reproduced", "inconclusive", "not run"]


@dataclass(frozen=True)
class Prediction:
    """One prediction with its data; coordinates are nats, or logarithms of what is compared as a
    ratio.

    Attributes:
        group: predictions of one group share the variance that is borrowed: same measure, same
            setting.
        row: seed -> coordinate.
        control: seed -> coordinate.
        expect: what is claimed of row - control.
        least: how large it is claimed to be; 0 for a direction alone.
        margin: half-width of what does not matter.
        failed: a cell of either row ran and gave no result that counts, so it cannot be confirmed.
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
        """Seed -> row - control, at common seeds."""
        return {
            seed: self.row[seed] - self.control[seed]
            for seed in sorted(self.row)
            if seed in self.control
        }


@dataclass(frozen=True)
class PredictionResult:
    """What came of one prediction, in its coordinates; NaN for what can't be computed.

    Attributes:
        difference: mean of row - control.
        interval: simultaneous over all predictions of the study.
        seeds: common seeds.
        wins: seeds whose difference has the claimed sign, or for "equal" lies within the margin, or
            not beyond it for "not lower" and "not higher".
        p: of the claim that the verdict makes, of the likelier one where it is open; adjusted.
        detectable: smallest true difference from 0 that this design finds with 80 % power.
        verdict: see the module.
    """

    difference: float
    interval: tuple[float, float]
    seeds: tuple[int, ...]
    wins: int
    p: float
    detectable: float
    verdict: PredictionVerdict


def judge_predictions(predictions: Sequence[Prediction], alpha: float) -> list[PredictionResult]:
    """Judge all predictions of a study as one family.

    Args:
        predictions: all that were declared, also those without data, which count in the correction.
        alpha: probability of any false verdict.
    """
    if not predictions:
        return []
    tests = _family(predictions)
    confirm, refute = _confirm_and_refute(predictions, tests)
    half, smallest = tests.half_width(alpha), tests.detectable(alpha)
    found: list[PredictionResult] = []
    for k, prediction in enumerate(predictions):
        differences, mean = prediction.differences, float(tests.plain.mean[k])
        verdict, p = _verdict(
            prediction, len(differences), float(confirm[k]), float(refute[k]), alpha
        )
        found.append(
            PredictionResult(
                difference=mean,
                interval=(mean - float(half[k]), mean + float(half[k])),
                seeds=tuple(differences),
                wins=sum(_as_claimed(prediction, value) for value in differences.values()),
                p=p,
                detectable=float(smallest[k]),
                verdict=verdict,
            )
        )
    return found


def claim_verdict(verdicts: Sequence[PredictionVerdict]) -> ClaimVerdict:
    """A claim is reproduced if all its predictions are confirmed, not reproduced if one is refuted."""
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
    if refute <= alpha and not prediction.failed:
        return "refuted", refute
    if confirm <= alpha and not prediction.failed:
        return "confirmed", confirm
    return "open", float(np.fmin(confirm, refute))


def _confirm_and_refute(
    predictions: Sequence[Prediction], tests: FamilyTests
) -> tuple[Floats, Floats]:
    """P values by the whole rule of what would confirm and refute each prediction, `[prediction]`.

    A prediction is confirmed outside of the differences that deny it, but for "equal", which is
    confirmed inside of its own; it is refuted outside of its own.
    """
    own, denied = (np.array(bounds).T for bounds in zip(*map(_bounds, predictions), strict=True))
    equal = np.array([prediction.expect == "equal" for prediction in predictions])

    def confirm(kind: TTests) -> Floats:
        return np.where(equal, kind.inside(*own), kind.outside(*denied))

    return tests.adjusted(confirm), tests.adjusted(lambda kind: kind.outside(*own))


def _bounds(prediction: Prediction) -> tuple[tuple[float, float], tuple[float, float]]:
    """Differences that a prediction allows, and those that deny it, each from low to high.

    Between the two lie differences that neither confirm nor refute it.
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
    """The tests of all predictions, the variances of each group moderated apart."""
    seeds = sorted({seed for prediction in predictions for seed in prediction.differences})
    rows = [_losses(prediction.row, seeds) for prediction in predictions]
    controls = [_losses(prediction.control, seeds) for prediction in predictions]
    plain = paired_t(np.array(rows) - np.array(controls))
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, prediction in enumerate(predictions):
        groups[prediction.group].append(index)
    columns = np.full((6, len(predictions)), np.nan)
    for members in groups.values():
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
    """Prior of the residual variances of a group's rows, at the seeds of its differences."""
    values = values[:, ~np.isnan(tests.differences).all(axis=0)]
    values = values[~np.isnan(values).all(axis=1)]
    return (
        fit_prior(*row_variances(values)) if values.size else Prior(np.array(0.0), np.array(np.nan))
    )
