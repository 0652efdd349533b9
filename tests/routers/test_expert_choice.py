"""Expert choice: the best tokens of a sequence in training, a threshold in evaluation."""

import pytest
import torch

from bench.evaluation.calibrate import calibrate
from tests.routers.asking import SEQ, built, inputs, plan
from tests.world import fit, model, run_of, tokens, windows


@pytest.mark.parametrize("mean", [1.0, 2.0, 3.5])
def test_in_training_each_expert_takes_its_best_tokens(mean: float) -> None:
    router = built("expert_choice", {"mean_experts": mean})
    seen = inputs()
    found = plan(router, seen)
    count = round(mean / 8 * SEQ)
    assert found.counts == (count,) * 8
    p = (seen.hidden @ router.logits.weight.detach().T).softmax(-1)
    assert found.weight is not None
    for sequence in range(len(p)):
        for expert in range(8):
            column = p[sequence, :, expert].tolist()
            best = sorted(range(SEQ), key=lambda t: -column[t])[:count]
            assert found.mask[sequence, :, expert].nonzero().flatten().tolist() == sorted(best)
    assert torch.allclose(found.weight, p * found.mask)


def test_in_evaluation_each_expert_keeps_its_share_by_a_threshold() -> None:
    found = model("expert_choice")
    fit(found, 10)
    calibrate(found, windows(60), 1.0)
    run = run_of(tokens(16, SEQ, seed=5), "causal")
    with torch.no_grad():
        found.decoder(run)
    for router, trace in zip(found.decoder.routers, run.traces, strict=True):
        p = router.affinity(trace.plan.scores)
        assert torch.equal(trace.plan.mask, p > -router.knob)
        loads = trace.plan.mask.float().mean((0, 1))
        assert loads.sum().item() == pytest.approx(2.0, abs=0.35)
        assert loads.max() < 0.45
