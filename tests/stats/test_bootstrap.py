import numpy as np
import pytest

from bench.errors import UserError
from bench.stats.bootstrap import MEASURED_COVERAGE, hierarchical_bootstrap


def made(
    loss: np.ndarray, size: np.ndarray, domain: str = "prose"
) -> dict[int, dict[str, tuple[str, float, float]]]:
    return {
        s: {
            f"doc{d}": (domain, float(loss[s, d] * size[d]), float(size[d]))
            for d in range(len(size))
        }
        for s in range(len(loss))
    }


def test_mean_is_nats_over_bytes_of_the_domain() -> None:
    rng = np.random.default_rng(0)
    size = rng.uniform(100, 1000, 6)
    loss = rng.normal(2, 0.1, (3, 6))
    data = made(loss, size)
    for s in data:
        data[s]["other"] = ("code", 50.0, 100.0)
    code, prose = hierarchical_bootstrap(data)
    assert (code.domain, code.documents) == ("code", 1)
    assert (code.low, code.high) == pytest.approx((0.5, 0.5))
    assert prose.mean == pytest.approx(
        np.mean([(loss[s] * size).sum() / size.sum() for s in range(3)])
    )
    assert prose.low < prose.mean < prose.high


def test_intervals_are_those_of_a_naive_resampling() -> None:
    rng = np.random.default_rng(1)
    size, loss = rng.uniform(1, 5, 12), rng.normal(size=(5, 12)) + rng.normal(size=12)
    (ours,) = hierarchical_bootstrap(made(loss, size), resamples=8_000)
    naive = []
    for _ in range(8_000):
        s, d = rng.integers(5, size=5), rng.integers(12, size=12)
        naive.append(np.mean([(loss[i, d] * size[d]).sum() / size[d].sum() for i in s]))
    np.testing.assert_allclose([ours.low, ours.high], np.quantile(naive, [0.025, 0.975]), atol=0.05)


def test_a_shared_shift_of_seeds_cancels_in_a_difference() -> None:
    rng = np.random.default_rng(2)
    size, loss = np.ones(8), rng.normal(size=(4, 8))
    row, other = made(loss, size), made(loss + 0.3, size)
    (gap,) = hierarchical_bootstrap(row, other)
    assert (gap.mean, gap.low, gap.high) == pytest.approx((-0.3, -0.3, -0.3))


def test_same_input_same_interval_and_what_is_missing_is_left_out() -> None:
    data = made(np.random.default_rng(3).normal(size=(3, 5)), np.ones(5))
    assert hierarchical_bootstrap(data) == hierarchical_bootstrap(data)
    del data[1]["doc4"]
    (interval,) = hierarchical_bootstrap(data, {s: data[s] for s in (0, 1, 7) if s in data})
    assert (interval.documents, interval.seeds) == (4, 2)


def test_one_seed_says_nothing_of_other_seeds() -> None:
    (interval,) = hierarchical_bootstrap(
        made(np.random.default_rng(4).normal(size=(1, 9)), np.ones(9))
    )
    assert interval.low < interval.high
    assert np.isnan(interval.coverage)


def test_nothing_in_common_is_refused() -> None:
    data = made(np.zeros((2, 3)), np.ones(3))
    with pytest.raises(UserError, match="0 common seeds"):
        hierarchical_bootstrap(data, {5: data[0]})
    with pytest.raises(UserError, match="0 documents"):
        hierarchical_bootstrap(data, {0: {"else": ("prose", 1.0, 1.0)}})


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_coverage_is_stated_as_it_is(seeds: int) -> None:
    """Where seeds make all the noise the nominal 95 % interval comes from a bootstrap of the seeds'
    means, simulated here.
    """
    rng = np.random.default_rng(seeds)
    losses = rng.normal(size=(3000, seeds))
    picked = losses @ rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=2000).T / seeds
    low, high = np.quantile(picked, [0.025, 0.975], axis=1)
    assert ((low <= 0) & (high >= 0)).mean() == pytest.approx(MEASURED_COVERAGE[seeds], abs=0.02)
