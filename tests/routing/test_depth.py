"""The causal substitutes of top-k: values that each compares and learns, and their knob 0."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.routers.asking import built, inputs, plan
from tests.world import fit, model, run_of, tokens


@pytest.mark.parametrize("knob", [-0.3, 0.0, 0.3])
@pytest.mark.parametrize("causal", ["calibrated", "bce", "predictor", "quantile"])
def test_evaluation_compares_the_score_of_the_mechanism_with_the_knob(
    causal: str, knob: float
) -> None:
    router: Any = built("mod", {"causal": causal})
    if causal == "quantile":
        router.quantile.fill_(0.2)
    for parameter in router.parameters():
        parameter.data.mul_(4)
    router.knob.fill_(knob)
    seen = inputs("causal")
    found = plan(router, seen)
    r = (seen.hidden @ router.score.weight.detach().T).squeeze(-1)
    wanted = r
    if causal == "predictor":
        first, _, last = router.predictor
        wanted = last(torch.nn.functional.gelu(first(seen.hidden))).squeeze(-1)
    if causal == "quantile":
        wanted = r - 0.2
    assert found.weight is not None and found.scores is not None
    torch.testing.assert_close(found.weight[..., 1], r)
    torch.testing.assert_close(found.scores[..., 1], wanted.detach())
    assert torch.equal(found.mask[..., 1], wanted + knob > 0)
    assert 0 < int(found.mask[..., 1].sum()) < found.mask[..., 1].numel()


def test_all_mechanisms_train_by_the_same_top_k_of_the_same_score() -> None:
    plans = [
        plan(built("mod", {"causal": causal, "capacity": 0.5}), inputs())
        for causal in ("calibrated", "bce", "predictor", "quantile")
    ]
    for other in plans[1:]:
        assert torch.equal(plans[0].mask, other.mask)
        assert torch.equal(plans[0].scores, other.scores)


def test_a_running_quantile_is_a_mean_at_first_and_then_an_average_that_forgets() -> None:
    found = model("mod", {"causal": "quantile", "capacity": 0.25})
    router: Any = found.decoder.routers[0]
    seen: list[float] = []
    for seed in range(14):
        run = run_of(tokens(seed=seed))
        with torch.no_grad():
            found.decoder(run)
            router.after_step(run.traces[0])
        scores = run.traces[0].plan.scores[..., 1]
        seen.append(float(np.quantile(scores.detach().numpy(), 0.75)))
        mean = seen[0]
        for step, value in enumerate(seen):
            mean += max(1 / (step + 1), 0.1) * (value - mean)
        assert float(router.quantile) == pytest.approx(mean, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    ("causal", "losses"),
    [
        ("calibrated", set()),
        ("bce", {"centre"}),
        ("predictor", {"predictor"}),
        ("quantile", set()),
    ],
)
def test_a_mechanism_has_the_losses_it_needs(causal: str, losses: set[str]) -> None:
    found = model("mod", {"causal": causal})
    assert all(set(terms) == losses for terms in found.losses)
    before = [p.clone() for p in found.decoder.routers[0].parameters()]
    fit(found, 4)
    after = found.decoder.routers[0].parameters()
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_predictor_has_no_gradient_into_the_model() -> None:
    found = model("mod", {"causal": "predictor"})
    run = run_of(tokens())
    found.decoder(run)
    router = found.decoder.routers[0]
    loss = router.aux_losses["predictor"].compute(run.traces[0])
    rest = [p for p in found.decoder.parameters() if p not in set(router.predictor.parameters())]
    assert all(g is None for g in torch.autograd.grad(loss, rest, allow_unused=True))
