"""The closed form of the best loss, against probabilities written out and documents drawn."""

from typing import Any

import pytest
from scipy import stats

from bench.config.data import PlantedConfig
from bench.data.optimum import best_loss, best_loss_at, hard_share, symbol_entropy


def task(**changes: Any) -> PlantedConfig:
    return PlantedConfig.model_validate(changes)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5, 0.9])
def test_the_entropy_of_a_symbol_is_that_of_its_distribution(noise: float) -> None:
    found = task(noise=noise)
    wrong = noise / found.symbols
    chances = [1 - wrong * (found.symbols - 1), *[wrong] * (found.symbols - 1)]
    assert symbol_entropy(found) == pytest.approx(float(stats.entropy(chances)), abs=1e-12)


def test_hard_tokens_are_counted_segment_by_segment() -> None:
    found = task()
    drawn_from_tables = [
        place > found.order  # the first opens the segment, the next have too few before them
        for _ in range(found.hard_segments)
        for place in range(1, found.segment_tokens)
    ]
    share = sum(drawn_from_tables) / (found.document_tokens - 1)
    assert hard_share(found) == pytest.approx(share)


def test_tokens_that_are_left_over_are_guessed() -> None:
    found, layers = task(), 2
    hard = hard_share(found)
    assert best_loss(found, hard / layers, layers) == pytest.approx(best_loss(found))
    assert best_loss(found, 1.0) == best_loss(found)
    half, none = best_loss(found, hard / 2), best_loss(found, 0.0)
    assert half - best_loss(found) == pytest.approx((none - best_loss(found)) / 2)


def test_a_budget_limits_depth_and_not_experts() -> None:
    deep, wide = task(), task(route="experts", domains=2)
    assert best_loss_at(deep, 0.0, 1) == best_loss(deep, 0.0) > best_loss(deep)
    assert best_loss_at(wide, 0.0, 1) == best_loss(wide)
