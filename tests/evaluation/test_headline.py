"""The headline: interpolation at B, and losses by domain and document added up by loops."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.config.suite import EvaluationConfig
from bench.data import Corpus
from bench.data.tokenizer import Tokenizer
from bench.evaluation.headline import (
    document_losses,
    domain_losses,
    interpolate,
    mean_loss,
    measure,
    off_budget,
)
from bench.record import BudgetAudit, SpendPoint
from bench.routing.load_routers import find
from tests.world import CONFIG, ROWS, model, row_id, split, trained_like, windows

DOMAINS = ("first", "second", "third")


def corpus(headline: tuple[str, ...] = DOMAINS[:2]) -> Corpus:
    """Tokens of one, two or three bytes."""
    text = split()
    tokenizer = Tokenizer(
        tuple(b"x" * (index % 3 + 1) for index in range(CONFIG.vocab_size)), lambda texts: []
    )
    return Corpus(DOMAINS, headline, dict.fromkeys(DOMAINS, 0.0), text, text, text, "", tokenizer)


@given(
    st.lists(st.tuples(st.floats(0.9, 1.1), st.floats(0, 5)), min_size=1, max_size=6),
    st.floats(0.8, 1.2),
)
def test_interpolation_is_on_the_line_between_neighbours(
    points: list[tuple[float, float]], at: float
) -> None:
    points = list({x: (x, y) for x, y in points}.values())
    found = interpolate([x for x, _ in points], [y for _, y in points], at)
    below = [p for p in sorted(points) if p[0] <= at]
    above = [p for p in sorted(points) if p[0] >= at]
    if not below or not above:
        wanted = (below or above)[-1 if below else 0][1]
    else:
        (x0, y0), (x1, y1) = below[-1], above[0]
        wanted = y0 if x0 == x1 else y0 + (y1 - y0) * ((at - x0) / (x1 - x0))
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_domain_losses_are_summed_nats_over_summed_bytes() -> None:
    text, found = windows(6), corpus()
    nats = np.random.default_rng(0).random((6, text.tokens.shape[1] - 1))
    for tag, name in enumerate(DOMAINS):
        total = size = 0.0
        for window in range(6):
            if text.tags[window] == tag:
                total += sum(nats[window])
                size += sum(int(token) % 3 + 1 for token in text.tokens[window, 1:])
        assert domain_losses(nats, text, found)[name] == pytest.approx(total / size)


def test_the_headline_is_the_unweighted_mean_over_headline_domains() -> None:
    losses = {"first": 1.0, "second": 2.0, "third": 30.0}
    assert mean_loss(losses, corpus()) == 1.5
    assert mean_loss(losses, corpus(headline=())) == 11.0


def test_documents_add_up_to_the_total() -> None:
    text, found = windows(6), corpus()
    nats = np.random.default_rng(0).random((6, text.tokens.shape[1] - 1))
    documents = document_losses(nats, text, found)
    assert len(documents) == 6
    assert sum(total for _, total, _ in documents.values()) == pytest.approx(nats.sum(), abs=1e-5)
    assert (
        sum(size for _, _, size in documents.values())
        == found.token_bytes[text.tokens[:, 1:]].sum()
    )
    domain, total, _ = documents["document2"]
    assert domain == found.domains[found.validation.document_tags[2]]
    assert total == pytest.approx(nats[2].sum(), abs=1e-5)


@pytest.mark.parametrize(("name", "options"), ROWS, ids=row_id)
def test_measuring_meets_the_budget_or_says_so(name: str, options: Mapping[str, object]) -> None:
    found = model(name, options)
    trained_like(found.decoder)
    config = EvaluationConfig(batch_size=16, tolerance=0.02)
    headline = measure(found, corpus(), windows(60, seed=3), windows(60), config, torch.float32)
    audit = headline.audit
    knobs = any(router.knob is not None for router in found.decoder.routers)
    assert len(audit.points) == (5 if knobs else 1)
    assert [point.spend for point in audit.points] == sorted(point.spend for point in audit.points)
    assert headline.loss == pytest.approx(mean_loss(headline.domain_loss, corpus()))
    if knobs and audit.headline == "interpolated":
        below = [point for point in audit.points if point.spend <= 1][-1]
        above = next(point for point in audit.points if point.spend >= 1)
        assert (
            min(below.loss, above.loss) - 1e-9
            <= headline.loss
            <= max(below.loss, above.loss) + 1e-9
        )
    assert audit.validation_spend * found.solution.target == pytest.approx(
        headline.evaluation.active
    )
    if find(name).family != "bracket":
        assert off_budget(audit) == ""
    else:
        assert off_budget(audit) != ""
        assert (audit.validation_spend < 1) == (name == "cheap")


def audit_of(**changes: Any) -> BudgetAudit:
    point = SpendPoint(target=1.0, spend=1.0, loss=1.0)
    fields: dict[str, Any] = {
        "target_flops": 1.0,
        "capacity": 0.5,
        "expert_width": None,
        "routed_layers": (1,),
        "calibration_spend": 1.0,
    }
    return BudgetAudit(
        **(
            fields
            | {"validation_spend": 1.0, "tolerance": 0.01, "points": (point,), "headline": "single"}
            | changes
        )
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"calibration_spend": 1.02}, "calibration"),
        ({"validation_spend": 0.98}, "validation"),
        ({"validation_spend": 0.98, "headline": "interpolated"}, ""),
        ({"calibration_spend": 0.98, "headline": "interpolated"}, "calibration"),
        ({"own": 1.005}, ""),
        ({"own": 0.6}, "costs 0.6000 of the suite's budget at its given capacity"),
    ],
)
def test_off_budget_names_the_split(changes: dict[str, Any], said: str) -> None:
    found = off_budget(audit_of(**changes))
    assert (said in found) if said else found == ""
