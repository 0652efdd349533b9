"""The simulations behind the rule, on fixed streams.

A small form for every run, the full one marked slow.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from bench.stats.design import rejection_power
from bench.stats.paired import paired_t


def load(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sim, cuts = load("null_boards"), load("cut_intervals")


def limit(boards: int, sigmas: float) -> float:
    return 0.05 + sigmas * float(np.sqrt(0.05 * 0.95 / boards))


@pytest.mark.parametrize(
    "regime",
    [
        "normal",
        "one loud control",
        "t3, unequal variances",
        "2 clusters",
        "2 clusters, one loud router",
    ],
)
def test_a_null_board_keeps_its_level(regime: str) -> None:
    assert sim.false_claims(sim.REGIMES[regime], 1000, 9, 3) <= limit(1000, 2.5)


def test_the_simulation_can_tell_a_rule_that_does_not_keep_it() -> None:
    """Unmoderated pooling and plain limma, on a board with one noisy control."""
    values = next(sim.batches(sim.REGIMES["one loud control"], 1000, 13, 3, 0))
    pairs = sim.design(13)["primary"]
    assert sim._pooled(values, pairs, 0.05).mean() > 0.2
    assert sim._limma(values, pairs, 0.05).mean() > limit(1000, 4)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [6, 13])
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("regime", sorted(sim.REGIMES))
def test_ten_thousand_null_boards_keep_their_level(regime: str, seeds: int, rows: int) -> None:
    assert sim.false_claims(sim.REGIMES[regime], 10_000, rows, seeds) <= limit(10_000, 2.0)


@pytest.mark.parametrize(
    ("boards", "tolerance"), [(4000, 0.012), pytest.param(40_000, 0.004, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_t_interval_covers(n: int, boards: int, tolerance: float) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1.0, (boards, n))
    tests = paired_t(differences)
    width = stats.t.isf(0.025, n - 1) * np.sqrt(tests.variance / n)
    assert (np.abs(tests.mean - 0.3) <= width).mean() == pytest.approx(0.95, abs=tolerance)
    assert (
        sim.interval_coverage(sim.REGIMES["normal"], min(boards, 10_000), 9, n)[1]
        >= 0.95 - tolerance
    )


@pytest.mark.parametrize(
    ("boards", "tolerance"), [(1000, 0.06), pytest.param(20_000, 0.02, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("n", "effect"), [(3, 3.5), (5, 2.0), (10, 1.2)])
def test_power_on_whole_boards_is_the_theorys(
    n: int, effect: float, boards: int, tolerance: float
) -> None:
    """First step of Holm on simulated boards, against theory at each board's fitted prior and the
    true variance, 2.
    """
    pairs, level = sim.design(13)["primary"], 0.04
    found, theory = [], []
    for values in sim.batches(sim.normal, boards, 13, n, 4):
        values[:, 2] += effect * np.sqrt(2.0)
        tests = sim.compare_family(values, pairs, sim.fit_prior(*sim.row_variances(values)))
        p = tests.moderated.outside(0.0, 0.0)
        found.append(((p <= level / len(pairs)) & (tests.plain.p <= level))[:, 0])
        effects, seeds = np.full(len(values), effect), np.full(len(values), float(n))
        theory.append(
            rejection_power(
                effects,
                seeds,
                tests.moderated.prior_df[:, 0],
                tests.moderated.prior.variance[:, 0] / 2.0,
                len(pairs),
                level,
            )
        )
    assert np.concatenate(found).mean() == pytest.approx(
        np.concatenate(theory).mean(), abs=tolerance
    )


def test_declared_looks_keep_the_level_and_undeclared_ones_spend_more() -> None:
    declared = sim.wrong_over_looks(1000, 6, (5, 10, 20))
    assert declared <= limit(1000, 2.5)
    assert sim.wrong_over_looks(1000, 6, (5, 10, 20), corrected=False) > declared


@pytest.mark.slow
@pytest.mark.parametrize("looks", [(3, 6), (3, 6, 10), (5, 10, 15, 20)])
def test_ten_thousand_boards_over_declared_looks(looks: tuple[int, ...]) -> None:
    assert sim.wrong_over_looks(10_000, 13, looks) <= limit(10_000, 2.0)


@pytest.mark.parametrize("n", [3, 10])
def test_claims_of_difference_and_equivalence_together_keep_the_level(n: int) -> None:
    assert sim.wrong_equivalence(1000, 9, n) <= limit(1000, 2.5)


@pytest.mark.parametrize(
    ("boards", "sigmas"), [(500, 2.5), pytest.param(10_000, 2.0, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("noise", ["normal", "unequal variances"])
def test_intervals_that_end_at_0_and_signs_are_right_together(
    noise: str, boards: int, sigmas: float
) -> None:
    right, cut = cuts.cut_coverage(sim.REGIMES[noise], boards, 13, 5)
    assert cut > 0.1
    assert 1.0 - right <= limit(boards, sigmas)
