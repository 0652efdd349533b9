"""Causality, tried on the trained weights: can what stands later, or beside, change what a router
decides?

Run next to every official evaluation, at the calibrated knobs. In float32, whatever the precision
of the run: in a lower one a decision near its threshold honestly depends on how many tokens share a
product, and a probe that forgave that would forgive a leak too. Below float32 the suffix
perturbations are run once more in the run's precision, all paths in full, where products keep their
shapes and nothing has to be forgiven: a router could tell the precisions apart.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from bench.backbone.decoder import Decoder, device_of
from bench.backbone.passes import autocast
from bench.conformance.comparison import Comparison, Offence, Seen, Tokens
from bench.conformance.unchanged import state_sums
from bench.data import Windows
from bench.evaluation.evaluate import Evaluation, window_tensors
from bench.record import Causality
from bench.rng import generator

LEAK_RATE, CONFIDENCE = 0.02, 0.99
TRIALS_NEEDED = math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - LEAK_RATE))
"""Suffix perturbations that find a leak in 2 % of trials with 99 % probability: 228."""

TRIALS = 256
BASES = 32
DECODED = 8
PREFIXES = 32
TIES_ALLOWED = 0.01
"""Share of decisions that may turn out to be ties; more, and nothing is proven."""
AGREEMENT = 0.9
"""Share of decisions that an official evaluation below float32 must share with this one."""

Text = Int[Tensor, "batch seq_and_target"]


@torch.no_grad()
def prove(
    decoder: Decoder,
    windows: Windows,
    evaluation: Evaluation,
    seed: int,
    batch_size: int,
    dtype: torch.dtype,
) -> Causality:
    """Try to catch the trained, calibrated model looking ahead or beside.

    The sequences are windows spliced together, which no router can have met before, and in one
    check the windows of the official evaluation themselves, whose plans and losses must come out
    again.

    Args:
        decoder: the model, knobs at B.
        windows: the validation windows that were evaluated.
        evaluation: the official evaluation of them, plans kept.
        seed: of the cell; fixes which sequences, cuts and perturbations are tried.
        batch_size: sequences at a time.
        dtype: precision of the official evaluation.
    """
    prover = Comparison(decoder, generator(seed, "causality"), batch_size)
    tokens, tags = window_tensors(windows, device_of(decoder))
    before = state_sums(decoder)
    try:
        _official(prover, tokens, tags, evaluation, dtype)
        spliced, row_tags = _splices(prover, tokens, tags, BASES)
        base = prover.look(spliced[:, :-1], row_tags, spliced[:, 1:])
        _batches(prover, spliced, row_tags, base)
        whole = _suffixes(prover, tokens, tags)
        _decoding(prover, spliced, row_tags, base)
        if whole < TRIALS_NEEDED:
            raise Offence(
                f"Ties: only {whole} of {TRIALS} trials were free of them; {TRIALS_NEEDED} are needed."
            )
        decisions = base.nats.numel() * len(base.masks)
        if len(prover.ties) > TIES_ALLOWED * decisions:
            raise Offence(
                f"Ties: {len(prover.ties)} of {decisions} decisions turn by rounding; {TIES_ALLOWED:.0%} may."
            )
        if dtype is not torch.float32:
            with autocast(tokens.device, dtype):
                _suffixes(prover, tokens, tags, in_full=True)
        if state_sums(decoder) != before:
            raise Offence("State: a parameter or buffer changed during evaluation.")
    except Offence as offence:
        return Causality(passed=False, trials=TRIALS, detail=str(offence))
    detail = (
        f"{whole} suffix perturbations find a leak in {LEAK_RATE:.0%} of trials with {1 - (1 - LEAK_RATE) ** whole:.1%} probability; "
        f"{len(prover.ties)} of {decisions} decisions were ties and left out"
    )
    return Causality(passed=True, trials=whole, detail=detail)


def _official(
    prover: Comparison, tokens: Text, tags: Tokens, evaluation: Evaluation, dtype: torch.dtype
) -> None:
    """Some windows of the official evaluation, in other company.

    The same plans and losses must come out.
    """
    rows = _draw(prover, len(tokens), BASES).to(tokens.device)
    chosen = tokens[rows]
    run = (chosen[:, :-1], tags[rows], chosen[:, 1:])
    if dtype is not torch.float32:
        with autocast(tokens.device, dtype):
            seen = prover.look(*run)
        same = [
            float((seen.masks[site].cpu() == mask[rows.cpu()]).all(-1).float().mean())
            for site, mask in evaluation.masks.items()
        ]
        if min(same) < AGREEMENT:
            raise Offence(
                f"Official evaluation: only {min(same):.1%} of the decisions at some site came out again."
            )
        return
    masks = [evaluation.masks[site].to(tokens.device) for site in range(len(evaluation.masks))]
    scores = [
        evaluation.scores[site].to(tokens.device) if site in evaluation.scores else None
        for site in range(len(masks))
    ]
    official = Seen(torch.from_numpy(evaluation.nats).float().to(tokens.device), masks, [], scores)
    prover.check("Official evaluation", rows, *run, official)


def _splices(prover: Comparison, tokens: Text, tags: Tokens, count: int) -> tuple[Tensor, Tensor]:
    """Sequences of `seq + 1` that begin as one window and go on as another, each turned round by
    some tokens.
    """
    length, device = tokens.shape[1], tokens.device
    heads, tails = (_draw(prover, len(tokens), count).to(device) for _ in range(2))
    head, tail = (
        _turned(tokens[rows], _draw(prover, length, count).to(device)) for rows in (heads, tails)
    )
    cut = torch.randint(1, length, (count, 1), generator=prover.noise).to(device)
    return torch.where(torch.arange(length, device=device) < cut, head, tail), tags[heads]


def _batches(prover: Comparison, spliced: Text, tags: Tokens, base: Seen) -> None:
    """The same again, in another order, a few at a time, and alone."""
    every = torch.arange(BASES, device=spliced.device)
    shuffled = torch.randperm(BASES, generator=prover.noise).to(spliced.device)
    for name, rows, size in (
        ("Determinism", every, BASES),
        ("Batch order", shuffled, BASES),
        ("Batch size 5", shuffled, 5),
        ("Batch size 1", shuffled[:4], 1),
    ):
        for part in rows.split(size):
            prover.check(name, part, spliced[part, :-1], tags[part], spliced[part, 1:], base)


def _suffixes(prover: Comparison, tokens: Text, window_tags: Tokens, in_full: bool = False) -> int:
    """Replace what follows a cut, the last target included; decisions and losses up to the cut must
    stay.

    Each trial has a sequence of its own, since a leak that depends on rare openings would be missed
    together by all trials that share one. What it is replaced by is text too, from any window,
    turned round by any number of tokens, since the same goes for endings.
    """
    seq, device = tokens.shape[1] - 1, tokens.device
    original, tags = _splices(prover, tokens, window_tags, TRIALS)
    others, turns, cuts = (
        _draw(prover, limit, TRIALS).to(device) for limit in (len(tokens), seq + 1, seq)
    )
    index, cut = torch.arange(seq + 1, device=device), cuts.unsqueeze(1)
    suffix = _turned(tokens[others], turns)
    suffix = torch.where(
        (index == cut + 1) & (suffix == original),
        (suffix + 1) % prover.decoder.config.vocab_size,
        suffix,
    )
    # Targets are the original ones: whether they were seen shows in the loss up to the cut.
    perturbed = torch.where(index > cut, suffix, original)
    rows = BASES + torch.arange(TRIALS, device=device)
    texts = (original[:, :-1], perturbed[:, :-1])
    name = f"Suffix perturbation{' in the precision of the run' if in_full else ''}"
    return prover.check_change(name, rows, *texts, tags, original[:, 1:], cuts + 1, in_full)


def _turned(text: Text, turns: Int[Tensor, " batch"]) -> Text:
    """Each sequence turned round by some tokens."""
    length = text.shape[1]
    return text.gather(1, (torch.arange(length, device=text.device) + turns.unsqueeze(1)) % length)


def _decoding(prover: Comparison, spliced: Text, tags: Tokens, base: Seen) -> None:
    """Token by token: each prefix, computed anew, must decide as the whole sequence does."""
    rows = torch.arange(DECODED, device=spliced.device)
    for length in _lengths(prover, spliced.shape[1] - 1):
        prover.check(
            "Decoding",
            rows,
            spliced[rows, :length],
            tags[rows, :length],
            spliced[rows, 1 : length + 1],
            base,
        )


def _lengths(prover: Comparison, seq: int) -> Iterator[int]:
    """All short prefixes, where thresholds and windows begin, and a draw of longer ones."""
    short = min(seq, PREFIXES // 2)
    yield from range(1, short + 1)
    yield from (
        (short + 1 + _draw(prover, seq - short, PREFIXES - short)).tolist() if seq > short else ()
    )


def _draw(prover: Comparison, limit: int, count: int) -> Int[Tensor, " count"]:
    """`count` numbers below `limit`, in a random order, each as often as any other."""
    rounds = [torch.randperm(limit, generator=prover.noise) for _ in range(-(-count // limit))]
    return torch.cat(rounds)[:count]
