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
from scipy import special

from bench.stats.correction import holm
from bench.stats.design import detectable
from bench.stats.equivalence import tost
from bench.stats.moderation import board_prior, fit_prior, moderate, row_variances
from bench.stats.paired import Floats, paired_t

Expectation = Literal["lower", "higher", "equal", "not_lower", "not_higher"]
"""What is said of row - control; "not_lower" and "not_higher": that it is not so by as much as the
margin.

The last two are for claims such as "does no harm", which an outcome in the other direction bears
out.
"""
Verdict = Literal["confirmed", "refuted", "open", "not run"]
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
class Found:
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
    verdict: Verdict


def judge(predictions: Sequence[Prediction], alpha: float) -> list[Found]:
    """Judge all predictions of a study as one family.

    Args:
        predictions: all that were declared, also those without data, which count in the correction.
        alpha: probability of any false verdict.
    """
    if not predictions:
        return []
    tests = _Tests.of(predictions)
    plain, moderated = (
        tests.claims(tests.variance, tests.n - 1.0),
        tests.claims(tests.moderated, tests.df),
    )
    confirm, refute = (
        np.maximum(holm(adjusted), alone) for adjusted, alone in zip(moderated, plain, strict=True)
    )
    count = len(predictions)
    with np.errstate(invalid="ignore", divide="ignore"):
        wide = -special.stdtrit(tests.df, alpha / (2.0 * count)) * np.sqrt(
            tests.moderated / tests.n
        )
        narrow = -special.stdtrit(tests.n - 1.0, alpha / 2.0) * np.sqrt(tests.variance / tests.n)
    half = np.maximum(wide, narrow)
    smallest = _detectable(tests, count, alpha)
    found: list[Found] = []
    for k, prediction in enumerate(predictions):
        differences = prediction.differences
        mean = float(tests.mean[k])
        verdict, p = _verdict(
            prediction, len(differences), float(confirm[k]), float(refute[k]), alpha
        )
        interval = (mean - float(half[k]), mean + float(half[k]))
        wins = sum(_as_claimed(prediction, value) for value in differences.values())
        found.append(
            Found(mean, interval, tuple(differences), wins, p, float(smallest[k]), verdict)
        )
    return found


def claim_verdict(verdicts: Sequence[Verdict]) -> ClaimVerdict:
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
) -> tuple[Verdict, float]:
    if not n:
        return "not run", float("nan")
    if refute <= alpha and not prediction.failed:
        return "refuted", refute
    if confirm <= alpha and not prediction.failed:
        return "confirmed", confirm
    return "open", float(np.fmin(confirm, refute))


@dataclass(frozen=True)
class _Tests:
    """Paired differences of all predictions with plain and moderated variances, arrays
    `[prediction]`.
    """

    predictions: Sequence[Prediction]
    n: Floats
    mean: Floats
    variance: Floats
    moderated: Floats
    df: Floats
    prior_df: Floats
    prior_variance: Floats

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> "_Tests":
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for index, prediction in enumerate(predictions):
            groups[prediction.group].append(index)
        columns = np.full((7, len(predictions)), np.nan)
        for members in groups.values():
            columns[:, members] = _moderated([predictions[index] for index in members])
        return cls(predictions, *columns)

    def claims(self, variance: Floats, df: Floats) -> tuple[Floats, Floats]:
        """P values of what confirms and of what refutes each prediction.

        Directions are one-sided at half the level.
        """
        expects = [prediction.expect for prediction in self.predictions]
        least = np.array([prediction.least for prediction in self.predictions])
        margin = np.array([prediction.margin for prediction in self.predictions])
        sign = np.array([1.0 if expect == "lower" else -1.0 for expect in expects])
        equal = np.array([expect == "equal" for expect in expects])
        denied = np.array(
            [{"not_lower": 1.0, "not_higher": -1.0}.get(expect, 0.0) for expect in expects]
        )
        error = np.sqrt(variance / self.n)
        towards = sign * self.mean  # negative where it goes the claimed way
        edge = np.where(least > 0.0, least, margin)
        confirm = np.where(equal, 0.0, _below(towards + least, error, df))
        refute = np.where(
            equal,
            _below(margin - np.abs(self.mean), error, df),
            _below(-(towards + edge), error, df),
        )
        reach = (
            denied * self.mean + margin
        )  # below 0 where it lies beyond the margin on the side that the claim denies
        confirm = np.where(denied != 0.0, _below(-reach, error, df), confirm)
        refute = np.where(denied != 0.0, _below(reach, error, df), refute)
        for width in np.unique(margin[equal]):
            same = equal & (margin == width)
            confirm[same] = tost(
                self.mean[same], variance[same], self.n[same], df[same], float(width)
            )
        return confirm, refute


def _below(distance: Floats, error: Floats, df: Floats) -> Floats:
    """P value, doubled, of the hypothesis that a mean found at `distance` is 0 or above, against
    that it is below 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(distance == 0.0, 0.0, distance / error)
        p = np.minimum(2.0 * special.stdtr(df, t), 1.0)
    return np.where(np.isnan(distance) | ~(df > 0.0), np.nan, p)


def _moderated(group: Sequence[Prediction]) -> Floats:
    """The seven columns of `_Tests` for one group, `[7, prediction]`."""
    seeds = sorted({seed for prediction in group for seed in prediction.differences})
    rows = {name: own for p in group for name, own in zip(p.names, (p.row, p.control), strict=True)}
    differences = np.array(
        [[prediction.differences.get(seed, np.nan) for seed in seeds] for prediction in group]
    )
    plain = paired_t(differences.reshape(len(group), len(seeds)))
    values = np.array([[own.get(seed, np.nan) for seed in seeds] for own in rows.values()]).reshape(
        len(rows), len(seeds)
    )
    values = values[~np.isnan(values).all(1)]
    df = np.maximum(plain.n - 1.0, 0.0)
    fitted = (
        fit_prior(*row_variances(values)) if values.size else fit_prior(np.array([]), np.array([]))
    )
    prior = board_prior(plain.variance, df, fitted)
    squeezed = moderate(plain.variance, df, prior)
    variance = np.broadcast_to(prior.variance, plain.n.shape)
    return np.stack(
        [
            plain.n,
            plain.mean,
            plain.variance,
            squeezed.variance,
            squeezed.df,
            squeezed.prior_df,
            variance,
        ]
    )


def _detectable(tests: _Tests, count: int, alpha: float) -> Floats:
    """Smallest true difference found with 80 % power, `[prediction]`.

    Infinite without two common seeds.
    """
    smallest = np.full(tests.n.shape, np.inf)
    usable = (tests.n >= 2.0) & ~np.isnan(tests.moderated)
    if usable.any():
        sd, prior_variance = (
            np.sqrt(tests.moderated[usable]),
            np.nan_to_num(tests.prior_variance[usable]),
        )
        smallest[usable] = detectable(
            sd, tests.n[usable], tests.prior_df[usable], prior_variance, count, alpha
        )
    return smallest
