"""Causal evaluation: batch size changes nothing, calibration spends the budget, FLOPs follow the
plans.
"""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from bench.data import Windows
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.model.assemble import Model
from tests.world import CONFIG, ROWS, SEQ_LEN, model, row_id, run_of, trained_like, windows

every_router = pytest.mark.parametrize(("name", "options"), ROWS, ids=row_id)


def trained(name: str, options: Mapping[str, object]) -> Model:
    found = model(name, options)
    trained_like(found.decoder)
    return found


@every_router
def test_batch_size_and_order_change_nothing(name: str, options: Mapping[str, object]) -> None:
    found, text = trained(name, options), windows(7, domains=1)
    calibrate(
        found, windows(60, seed=2), 1.0
    )  # not on `text`: a threshold may lie on a score to the last bit
    whole = evaluate(found, text, 7, keep=True)
    for batch_size in (1, 3):
        parts = evaluate(found, text, batch_size, keep=True)
        np.testing.assert_allclose(parts.nats, whole.nats, rtol=1e-4, atol=1e-5)
        assert parts.active == pytest.approx(whole.active, rel=1e-12)
        assert all(torch.equal(parts.masks[site], whole.masks[site]) for site in whole.masks)
    turned = Windows(text.tokens[::-1].copy(), text.tags, text.documents)
    np.testing.assert_allclose(
        evaluate(found, turned, 7).nats[::-1], whole.nats, rtol=1e-4, atol=1e-5
    )


@every_router
def test_losses_are_those_of_the_next_token(name: str, options: Mapping[str, object]) -> None:
    found, text = trained(name, options), windows(3)
    ids = torch.from_numpy(text.tokens)
    with torch.no_grad():
        log_p = found.decoder(run_of(ids[:, :-1], "causal")).log_softmax(-1)
    nats = evaluate(found, text, 2).nats
    for window in range(3):
        for place in range(SEQ_LEN):
            assert nats[window, place] == pytest.approx(
                -log_p[window, place, ids[window, place + 1]].item(), rel=1e-4, abs=1e-5
            )


@every_router
def test_active_flops_are_counted_off_the_plans_by_hand(
    name: str, options: Mapping[str, object]
) -> None:
    found, text = trained(name, options), windows(6)
    result = evaluate(found, text, 4, keep=True)
    ledger, d = found.evaluation_ledger, CONFIG.d_model
    attention, pair = 8 * d * d, 4 * d
    full, cheap, expert = (
        6 * d * CONFIG.ffn_width,
        4 * d * CONFIG.cheap_rank,
        6 * d * found.solution.expert_width,
    )
    costs = {"full": full, "cheap": cheap, "skip": 0, "block": attention + full}
    mean_pairs = (SEQ_LEN + 1) / 2
    blocks = len(result.masks) if "block" in found.decoder.routers[0].paths.names else 0
    routed_ffns = len(result.masks) - blocks
    plain = CONFIG.num_layers - blocks
    total = (
        2 * d * CONFIG.vocab_size
        + plain * (attention + pair * mean_pairs)
        + (plain - routed_ffns) * full
        + ledger.routers
    )
    for site, mask in result.masks.items():
        paths = found.decoder.routers[site].paths
        if (
            paths.segment is not None
            # averaging all experts, two operations a parameter and segment, over the tokens of a
            # sequence
        ):
            total += len(paths.names) * expert * math.ceil(SEQ_LEN / paths.segment) / SEQ_LEN
        for path, name_of_path in enumerate(paths.names):
            taken = mask[..., path].sum(1).double()
            pairs = (
                (taken * (taken + 1) / 2).sum() * pair
                if name_of_path == "block"
                else torch.zeros(())
            )
            total += (
                float(taken.sum() * costs.get(name_of_path, expert) + pairs) / mask[..., 0].numel()
            )
    assert result.active == pytest.approx(total, rel=1e-9)
    assert result.executed >= result.active
    assert ledger.spent["evaluation/forward"] == pytest.approx(
        total * mask.shape[0] * SEQ_LEN, rel=1e-9
    )
