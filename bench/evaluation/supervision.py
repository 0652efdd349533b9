"""Measure how often tokens take the path of their label, supervised documents apart."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import History, Pass, autocast, make_pass
from bench.config.suite import EvaluationConfig
from bench.data import Split
from bench.model.assemble import Model
from bench.record import SupervisionMonitor
from bench.rng import generator
from bench.routing.contract import LayerTrace, Router
from bench.training.supervision import UNKNOWN, Supervisor
from bench.training.utility import Oracle, random_flips, request_of


@torch.no_grad()
def measure_supervision(
    model: Model,
    split: Split,
    seq_len: int,
    config: EvaluationConfig,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[SupervisionMonitor, ...]:
    """Measure how often tokens of the training split take the path of their label.

    The evaluation is causal, at the present knobs. Supervised documents and the others are counted
    apart.

    Args:
        model: a trained model. The cost is booked as evaluation.
        split: the training split.
        seq_len: tokens per window.
        config: `validation_windows` windows of supervised documents are used, and as many of the
            others.
        seed: seed of the cell; it fixes the tokens that an oracle flips.
        dtype: precision of matrix products.

    Returns:
        One monitor for each site with a supervised router.
    """
    chosen, device = Supervisor(model, len(split.document_tags)).chosen, device_of(model.decoder)
    # Site -> [unsupervised, supervised] x [right, known].
    hits = {site: torch.zeros(2, 2, dtype=torch.float64, device=device) for site in chosen}
    oracle, noise = Oracle(model, seed, dtype), generator(seed, "supervision", device)
    document_tags = torch.from_numpy(split.document_tags.astype(np.int64)).to(device)
    for positions in _places(split, chosen, seq_len + 1, config):
        tokens = torch.from_numpy(split.tokens[positions].astype(np.int64)).to(device)
        documents = torch.from_numpy(split.documents_at(positions[:, :-1])).to(device)
        run = _pass(model, tokens, document_tags[documents], oracle, noise)
        for site, told in chosen.items():
            hits[site] += _hits(model.decoder.routers[site], run.traces[site], told[documents])
    return tuple(
        SupervisionMonitor(
            layer=model.ledger.sites[site].layer,
            documents=int(chosen[site].sum()),
            supervised=_share(found[1]),
            unsupervised=_share(found[0]),
        )
        for site, found in hits.items()
    )


def _hits(
    router: Router, trace: LayerTrace, supervised: Bool[Tensor, "batch seq"]
) -> Int[Tensor, "group hit"]:
    """Count the tokens on the path of their label, and the tokens with a known label.

    Returns:
        The counts `[unsupervised, supervised] x [right, known]`.
    """
    labels = router.label(trace)
    # Unknown labels are gathered as path 0 and masked out.
    known = labels != UNKNOWN
    right = trace.plan.mask.gather(2, labels.clamp_min(0).unsqueeze(2)).squeeze(2) & known
    return torch.stack(
        [
            torch.stack(((right & inside).sum(), (known & inside).sum()))
            for inside in (~supervised, supervised)
        ]
    )


def _pass(
    model: Model,
    tokens: Int[Tensor, "batch seq_and_target"],
    tags: Int[Tensor, "batch seq"],
    oracle: Oracle,
    noise: torch.Generator,
) -> Pass:
    """Run a causal pass, with the utility of some tokens if a router needs it."""
    routers, targets = model.decoder.routers, tokens[:, 1:]
    asking = [
        site
        for site, router in enumerate(routers)
        if router.supervised and "utility" in router.needs
    ]
    run = make_pass(tokens[:, :-1], tags, history=History() if asking else None)
    with autocast(tokens.device, oracle.dtype):
        logits = model.decoder(run)
    spent = model.evaluation_ledger.active(run.counts, run.tokens.numel())
    for site in asking:
        # Labels by utility need a fork at every such site.
        flip = random_flips(run.tokens, request_of(routers[site]).flip_fraction, noise)
        losses = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
        utility, costs = oracle.fork(run, site, flip, targets, losses)
        run.traces[site].utility = utility.masked_fill(~flip, torch.nan)
        spent += sum(cost.active for cost in costs)
    model.evaluation_ledger.charge("supervision", "forward", spent)
    return run


def _places(
    split: Split, chosen: dict[int, Bool[Tensor, " document"]], size: int, config: EvaluationConfig
) -> Iterator[Int[np.ndarray, "window size"]]:
    """Yield positions of windows, evenly from the supervised documents, then from the others.

    A window belongs to the document at its middle.
    """
    if not chosen:
        return
    # All sites of a model share one router class, so the first site's documents serve for all.
    told = next(iter(chosen.values())).cpu().numpy()
    # Windows begin where training sequences may begin.
    step = math.ceil(size / split.stride) * split.stride
    grid = np.concatenate(
        [np.arange(start, stop - size + 1, step) for start, stop in split.domain_ranges]
    )
    group = told[split.documents_at(grid + size // 2)]
    for starts in (grid[group], grid[~group]):
        spread = (
            np.linspace(0, max(0, len(starts) - 1), min(config.validation_windows, len(starts)))
            .round()
            .astype(np.int64)
        )
        for first in range(0, len(spread), config.batch_size):
            yield starts[spread[first : first + config.batch_size], None] + np.arange(size)


def _share(hits: Tensor) -> float | None:
    right, known = hits.tolist()
    return right / known if known else None
