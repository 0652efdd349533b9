import numpy as np
import pytest

from bench.stats.reproduction import compare

RECORDED = {seed: 2.0 + 0.01 * seed for seed in range(6)}


def shifted(by: float, sd: float = 0.0) -> dict[int, float]:
    noise = np.random.Generator(np.random.PCG64(3)).normal(0, sd, len(RECORDED))
    return {seed: loss + by + e for (seed, loss), e in zip(RECORDED.items(), noise, strict=True)}


def test_the_same_losses_confirm_even_a_single_seed() -> None:
    assert compare({4: 2.0}, {4: 2.0}, margin=0.01).verdict == "confirmed"


@pytest.mark.parametrize(
    ("by", "sd", "verdict"),
    [
        (0.001, 0.001, "confirmed"),
        (0.1, 0.005, "refuted"),
        (-0.1, 0.005, "refuted"),
        (0.02, 0.1, "inconclusive"),
    ],
)
def test_the_verdict_follows_the_interval(by: float, sd: float, verdict: str) -> None:
    found = compare(RECORDED, shifted(by, sd), margin=0.02)
    assert found.verdict == verdict
    assert np.mean(list(found.differences.values())) == pytest.approx(by, abs=3 * sd)


def test_one_seed_that_differs_can_neither_confirm_nor_refute() -> None:
    assert compare({0: 2.0}, {0: 2.5}, margin=0.01).verdict == "inconclusive"


def test_no_rerun_is_inconclusive() -> None:
    assert compare(RECORDED, {}, margin=0.01).verdict == "inconclusive"
