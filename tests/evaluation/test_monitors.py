"""Routing metrics against loops and known values."""

import math

import numpy as np
import pytest
import torch

from bench.data import Corpus, Windows
from bench.data.tokenizer import byte_tokenizer
from bench.evaluation.evaluate import Evaluation
from bench.evaluation.monitors import TrainingHistory, monitors
from tests.world import model, split


def test_monitors_of_known_plans() -> None:
    """Two windows of four tokens: every figure can be counted on fingers."""
    found = model("mlp_gate", routed_layers=(1,))
    ids = torch.tensor([[0, 1, 2, 3, 0], [3, 2, 1, 0, 3]]).numpy()
    corpus = Corpus(("a", "b"), ("a", "b"), {}, split(), split(), split(), "", byte_tokenizer())
    mask = torch.tensor([[[1, 0], [0, 1], [0, 0], [0, 1]], [[1, 0], [1, 0], [1, 0], [0, 1]]]).bool()
    scores = torch.tensor([0.0, math.log(3)]).expand(2, 4, 2)
    seen = Evaluation(np.zeros((2, 4)), 1.0, 1.0, {0: mask}, {0: scores})
    tags = Windows(ids, np.array([0, 1]), np.zeros_like(ids))
    (monitor,) = monitors(
        found,
        corpus,
        tags,
        seen,
        TrainingHistory({0: [~mask, mask]}, [[[2.0, 3.0]], [[1.0, 4.0]]], [[0.25, 0.5]]),
        {0: 0.5},
        {0: 0.25},
    )
    assert monitor.on_policy_correlation == 0.25
    assert monitor.utility_correlation == 0.5
    assert monitor.load == pytest.approx((4 / 8, 3 / 8))
    assert monitor.trained_load == (0.25, 0.5)
    assert monitor.margin == pytest.approx(0.5)
    assert monitor.max_logit == pytest.approx(math.log(3))
    assert monitor.dropped == pytest.approx(1 / 8)
    assert (monitor.churn, monitor.saturation) == (1.0, (0.0,))
    assert (monitor.router_gradient, monitor.paths_gradient) == ((2.0, 1.0), (3.0, 4.0))
    assert monitor.load_by_domain["b"] == pytest.approx((0.75, 0.25))


def test_monitors_leave_out_shared_experts() -> None:
    found = model("top2_moe", {"num_shared": 1, "num_experts": 3}, routed_layers=(1,))
    ids = torch.tensor([[0, 1, 2]]).numpy()
    corpus = Corpus(("a",), ("a",), {}, split(), split(), split(), "", byte_tokenizer())
    mask = torch.tensor([[[1, 1, 1, 0], [1, 0, 1, 1]]]).bool()
    scores = torch.tensor([9.0, 0.0, math.log(3), 0.0]).expand(1, 2, 4)
    seen = Evaluation(np.zeros((1, 2)), 1.0, 1.0, {0: mask}, {0: scores})
    windows = Windows(ids, np.array([0]), np.zeros_like(ids))
    (monitor,) = monitors(found, corpus, windows, seen, TrainingHistory({}, [], []), {}, {})
    assert monitor.always == ("expert_shared0",)
    assert monitor.load == (1.0, 0.5, 1.0, 0.5)
    assert monitor.chosen_load == (0.5, 1.0, 0.5)
    assert monitor.margin == pytest.approx(0.6 - 0.2)
    assert monitor.max_logit == pytest.approx(math.log(3))
