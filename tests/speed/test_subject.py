"""The costs of a row, against its ledger and the budget."""

from pathlib import Path

import pytest

from bench.runner.resolve import resolve
from bench.speed.subject import Subject
from tests import world


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return world.write_text(tmp_path)


def test_a_step_costs_what_the_ledger_is_charged_and_an_evaluation_the_budget(text: Path):
    subject = Subject(resolve(world.cell(text)))
    tokens = 4 * 32
    first, before = subject.cost_of_step(), subject.model.ledger.total
    subject.step()
    assert first.active == pytest.approx((subject.model.ledger.total - before) / tokens)
    assert first.optimizer == subject.loop.optimizer_flops / tokens
    # Attention is charged for half its square, and nothing else is executed beyond the charge.
    pairs = 4 * subject.model.decoder.config.d_model * 4 * (32 - 1) / 2
    forward = first.active / 3
    assert first.executed / first.active == pytest.approx((forward + pairs) / forward, rel=0.02)
    subject.calibrate()
    subject.set_windows(4)
    cost = subject.cost_of_evaluation()
    assert cost.active == pytest.approx(subject.model.solution.target, rel=0.1)
    assert cost.executed == pytest.approx(cost.active + pairs)


def test_an_evaluation_has_the_windows_that_were_asked_for(text: Path):
    subject = Subject(resolve(world.cell(text, "hash")))
    subject.set_windows(3)
    assert subject.evaluation().nats.shape == (2 * 3, 32)
