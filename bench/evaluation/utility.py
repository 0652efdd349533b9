"""Measure the rank correlation of a trained router's scores with oracle utility."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import History, autocast, make_pass
from bench.data import Windows
from bench.evaluation.evaluate import window_tensors
from bench.model.assemble import Model
from bench.rng import generator
from bench.routing.contract import Policy
from bench.training.utility import Oracle, random_flips, request_of


@torch.no_grad()
def utility_correlation(
    model: Model,
    windows: Windows,
    batch_size: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    policy: Policy | None = None,
) -> dict[int, float]:
    """Return the Spearman correlation of score and oracle utility over tokens, for each site.

    The evaluation is causal, at the present knobs.

    Args:
        model: a trained model. The cost is booked as evaluation.
        windows: the windows. A share of their tokens is flipped once at each site.
        batch_size: windows per pass.
        seed: seed of the cell; it fixes the flipped tokens.
        dtype: precision of matrix products.
        policy: how layers after a fork are run: "on_policy" as in evaluation, None as for the
            router's own labels.

    Returns:
        Routed site -> correlation, for routers with utility options or needs whose plans have
        scores that differ. Sites inside a block are left out.
    """
    # Utility is of whole sequences, and a site inside a block sees a part of each.
    sites = [
        i
        for i, router in enumerate(model.decoder.routers)
        if router.paths.base is not None
        and (router.oracle or "utility" in router.needs)
        and not model.ledger.sites[i].inside
    ]
    if not sites:
        return {}
    found = _scores_and_utilities(model, windows, sites, batch_size, seed, dtype, policy)
    pairs = {
        site: torch.cat(parts, dim=1).double().cpu().numpy()
        for site, parts in found.items()
        if parts
    }
    # A constant row has no rank correlation.
    return {
        site: _rank_correlation(*pair) for site, pair in pairs.items() if np.ptp(pair, axis=1).all()
    }


def _scores_and_utilities(
    model: Model,
    windows: Windows,
    sites: list[int],
    batch_size: int,
    seed: int,
    dtype: torch.dtype,
    policy: Policy | None,
) -> dict[int, list[Tensor]]:
    """Return site -> scores and utilities of its flipped tokens, `[2, token]` per batch."""
    routers, ledger = model.decoder.routers, model.evaluation_ledger
    oracle, device = Oracle(model, seed, dtype), device_of(model.decoder)
    noise = generator(seed, "oracle/correlation", device)
    tokens, tags = window_tensors(windows, device)
    found: dict[int, list[Tensor]] = {site: [] for site in sites}
    for start in range(0, len(tokens), batch_size):
        batch = tokens[start : start + batch_size]
        run = make_pass(batch[:, :-1], tags[start : start + batch_size], history=History())
        with autocast(device, dtype):
            logits = model.decoder(run)
        loss = F.cross_entropy(logits.float().transpose(1, 2), batch[:, 1:], reduction="none")
        ledger.charge("oracle", "forward", ledger.active(run.counts, run.tokens.numel()))
        for site in sites:
            scores = run.traces[site].plan.scores
            if scores is None:
                continue
            flip = random_flips(run.tokens, request_of(routers[site]).flip_fraction, noise)
            utility, costs = oracle.fork(run, site, flip, batch[:, 1:], loss, policy)
            ledger.charge("oracle", "forward", sum(cost.active for cost in costs))
            # Only flipped tokens have a utility. A gate scores its upgrade only.
            found[site].append(
                torch.stack(((scores[..., 1] - scores[..., 0])[flip], utility[flip]))
            )
    return found


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(stats.spearmanr(first, second).statistic)  # type: ignore[union-attr]
