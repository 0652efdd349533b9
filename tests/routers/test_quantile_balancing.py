"""Quantile balancing in training: even loads without a loss."""

import torch

from bench.routing.balance_loss import load_shares
from tests.routers.asking import built
from tests.world import fit, model, run_of, tokens


def test_it_has_no_loss_and_balances_while_it_trains() -> None:
    assert built("quantile_balancing").aux_losses == {}
    most = dict[str, float]()
    for name, options in (("quantile_balancing", {}), ("top2_moe", {"balance": "none"})):
        found = model(name, options)
        fit(found, 40)
        run = run_of(tokens(8, 24), "causal")
        with torch.no_grad():
            found.decoder(run)
        loads = [load_shares(trace.plan.mask).max().item() for trace in run.traces]
        most[name] = max(loads)
    assert most["quantile_balancing"] < 0.25
    assert most["quantile_balancing"] < most["top2_moe"]
