"""Causality, tried on the trained weights: can what stands later, or beside, change what a router decides?

Run next to every official evaluation, at the calibrated knobs. All of it in float32, whatever the precision of the run: in a
lower one a decision near its threshold honestly depends on how many tokens share a product, and a probe that forgave
that would forgive a leak too.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.backbone.decoder import Decoder
from bench.backbone.merge import merge_by_token
from bench.contract import LayerTrace, RouterInput
from bench.data import Windows
from bench.evaluate import Evaluation, autocast, device_of, make_pass, window_tensors
from bench.record import Causality
from bench.rng import generator

LEAK_RATE, CONFIDENCE = 0.02, 0.99
TRIALS_NEEDED = math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - LEAK_RATE))
"""Suffix perturbations that find a leak in 2 % of trials with 99 % probability: 228."""

TRIALS = 256
BASES = 32
DECODED = 8
PREFIXES = 32
TIE = 1e-4
"""A decision that noise of this size on the router's input can turn is a tie; rounding is a hundred times smaller."""
TIE_DRAWS = 16
TOLERANCE = 1e-4
"""Largest relative difference of weights and absolute one of losses (nats) that is put down to rounding."""
AGREEMENT = 0.9
"""Share of decisions that an official evaluation below float32 must share with this one."""

Tokens = Int[Tensor, "batch seq"]
Text = Int[Tensor, "batch seq_and_target"]


@dataclass
class _Seen:
    """What one forward pass decided, every site laid out by position.

    Attributes:
        nats: loss of each token.
        masks: a routed site -> the executed paths.
        weights: a routed site -> weight of each executed path, 0 elsewhere; none where they were not kept.
        scores: a routed site -> scores, None where the plan has none.
        inputs: a routed site -> what its router saw.
    """

    nats: Float[Tensor, "batch seq"]
    masks: list[Bool[Tensor, "batch seq path"]]
    weights: list[Float[Tensor, "batch seq path"]]
    scores: list[Float[Tensor, "batch seq path"] | None]
    inputs: list[RouterInput] = field(default_factory=list[RouterInput])

    def rows(self, index: Tensor, length: int) -> "_Seen":
        """Some sequences, the first `length` positions."""

        def cut(data: list[Tensor]) -> list[Tensor]:
            return [tensor[index, :length] for tensor in data]

        scores = [None if tensor is None else tensor[index, :length] for tensor in self.scores]
        return _Seen(self.nats[index, :length], cut(self.masks), cut(self.weights), scores)


class _Offence(Exception):
    """A rule that was broken; the text names where."""


class _Prover:
    """The model under test, and how many decisions had to be left out as ties."""

    def __init__(self, decoder: Decoder, seed: int, batch_size: int) -> None:
        self.decoder, self.batch_size = decoder, batch_size
        self.noise = generator(seed, "causality")
        self.compared = self.ties = 0

    def look(self, tokens: Tokens, tags: Tokens, targets: Tokens) -> _Seen:
        """Run sequences and collect decisions and the losses of `targets`, for others to be held against."""
        parts = [self._look(*part) for part in zip(*(t.split(self.batch_size) for t in (tokens, tags, targets)), strict=True)]

        def joined(found: list[list[Tensor]]) -> list[Tensor]:
            return [torch.cat(site) for site in zip(*found, strict=True)]

        scores = [None if None in site else torch.cat(site) for site in zip(*(part.scores for part in parts), strict=True)]
        nats = torch.cat([part.nats for part in parts])
        return _Seen(nats, joined([part.masks for part in parts]), joined([part.weights for part in parts]), scores)

    def check(self, name: str, rows: Tensor, tokens: Tokens, tags: Tokens, targets: Tokens, base: _Seen, upto: Tensor | None = None) -> int:
        """Run sequences that came from `rows` of the base and hold them against it, up to a position each.

        Returns:
            How many sequences agreed with nothing left out.
        """
        limits = torch.full_like(rows, tokens.shape[1]) if upto is None else upto
        whole = 0
        for row, limit, *part in zip(*(t.split(self.batch_size) for t in (rows, limits, tokens, tags, targets)), strict=True):
            whole += self._compare(name, row, base.rows(row, tokens.shape[1]), self._look(*part), limit)
        return whole

    def _look(self, tokens: Tokens, tags: Tokens, targets: Tokens) -> _Seen:
        run = make_pass(tokens, tags)
        log_p = self.decoder(run).float().log_softmax(-1)
        if not bool(((log_p.exp().sum(-1) - 1).abs() < 1e-3).all()):
            raise _Offence("Predictions: the probabilities of some next token do not add up to 1.")
        nats = F.nll_loss(log_p.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        seq = tokens.shape[1]
        weights = [_weights(t) for t in run.traces]
        return _Seen(
            nats,
            [_by_position(t.plan.mask, t, seq) for t in run.traces],
            [_by_position(weight, t, seq) for weight, t in zip(weights, run.traces, strict=True)],
            [None if t.plan.scores is None else _by_position(t.plan.scores.float(), t, seq) for t in run.traces],
            [t.inputs for t in run.traces],
        )

    def _compare(self, name: str, rows: Int[Tensor, " batch"], base: _Seen, seen: _Seen, upto: Int[Tensor, " batch"]) -> int:
        """Hold what was seen against the base, for the first `upto` positions of each sequence.

        A tie leaves out what follows it in its sequence, since its consequences are honest.

        Returns:
            How many sequences agreed with nothing left out.

        Raises:
            _Offence: a decision, weight or loss differs.
        """
        clean = torch.arange(base.nats.shape[1], device=rows.device) < upto.unsqueeze(1)
        whole = torch.ones(len(rows), dtype=torch.bool, device=rows.device)

        def hold(differs: Bool[Tensor, "batch seq"], what: str) -> None:
            if differs.any():
                row, position = differs.nonzero()[0].tolist()
                raise _Offence(f"{name}: {what} differs at sequence {int(rows[row])}, position {position}.")

        for site, (expected, found) in enumerate(zip(base.masks, seen.masks, strict=True)):
            layer = f"layer {self.decoder.routers[site].spec.layer}"
            differs = (expected != found).any(-1) & clean
            if differs.any():
                tie = differs & self._tied(site, base, seen, differs)
                hold(differs & ~tie, f"the plan of {layer}")
                self.ties += int(tie.sum())
                whole &= ~tie.any(1)
                clean &= tie.cumsum(1) == 0
            self.compared += int(clean.sum())
            if base.weights:
                close = torch.isclose(base.weights[site], seen.weights[site], rtol=TOLERANCE, atol=TOLERANCE)
                hold(~close.all(-1) & clean, f"a weight of {layer}")
        hold(~((base.nats - seen.nats).abs() <= TOLERANCE) & clean, "the loss")
        return int(whole.sum())

    def _tied(self, site: int, base: _Seen, seen: _Seen, differs: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
        """Which of the differing decisions noise of size TIE on the router's own input turns, the scores being unmoved."""
        before, after = base.scores[site], seen.scores[site]
        moved = torch.zeros_like(differs)
        if before is not None and after is not None:
            moved = ~torch.isclose(before, after, rtol=TIE, atol=TIE, equal_nan=True).all(-1)
        inputs, router = seen.inputs[site], self.decoder.routers[site]
        here = differs.gather(1, inputs.positions).unsqueeze(-1)
        plan, turned = router(inputs).mask, torch.zeros_like(inputs.positions, dtype=torch.bool)
        for _ in range(TIE_DRAWS):
            noise = torch.randn(inputs.hidden.shape, generator=self.noise).to(inputs.hidden)
            turned |= (router(replace(inputs, hidden=inputs.hidden + TIE * noise * here)).mask != plan).any(-1)
        return torch.zeros_like(differs).scatter(1, inputs.positions, turned) & ~moved


def _weights(trace: LayerTrace) -> Float[Tensor, "batch seq path"]:
    """What each path counts for in a token's update: merging weights, weights, or 1 where it ran."""
    plan = trace.plan
    if plan.merge is not None and trace.paths.segment is not None:
        return merge_by_token(plan, trace.paths.segment).float()
    return plan.mask.float() if plan.weight is None else plan.weight.float().where(plan.mask, 0)


def _by_position(data: Tensor, trace: LayerTrace, seq: int) -> Tensor:
    """Lay out what a site says of the tokens it was given by their positions; 0 where it was given none."""
    positions = trace.inputs.positions.unsqueeze(-1).expand(data.shape)
    return data.new_zeros(data.shape[0], seq, data.shape[2]).scatter(1, positions, data)


@torch.no_grad()
def prove(decoder: Decoder, windows: Windows, evaluation: Evaluation, seed: int, batch_size: int, dtype: torch.dtype) -> Causality:
    """Try to catch the trained, calibrated model looking ahead or beside.

    The sequences are windows spliced together, which no router can have met before, and in one check the windows of the
    official evaluation themselves, whose plans and losses must come out again.

    Args:
        decoder: the model, knobs at B.
        windows: the validation windows that were evaluated.
        evaluation: the official evaluation of them, plans kept.
        seed: of the cell; fixes which sequences, cuts and perturbations are tried.
        batch_size: sequences at a time.
        dtype: precision of the official evaluation.
    """
    prover = _Prover(decoder, seed, batch_size)
    tokens, tags = window_tensors(windows, device_of(decoder))
    before = _state(decoder)
    try:
        _official(prover, tokens, tags, evaluation, dtype)
        spliced, row_tags = _splices(prover, tokens, tags)
        base = prover.look(spliced[:, :-1], row_tags, spliced[:, 1:])
        _batches(prover, spliced, row_tags, base)
        whole = _suffixes(prover, spliced, row_tags, base)
        _decoding(prover, spliced, row_tags, base)
        if whole < TRIALS_NEEDED:
            raise _Offence(f"Ties: only {whole} of {TRIALS} trials were free of them; {TRIALS_NEEDED} are needed.")
        if _state(decoder) != before:
            raise _Offence("State: a parameter or buffer changed during evaluation.")
    except _Offence as offence:
        return Causality(passed=False, trials=TRIALS, detail=str(offence))
    detail = (
        f"{whole} suffix perturbations find a leak in {LEAK_RATE:.0%} of trials with {1 - (1 - LEAK_RATE) ** whole:.1%} probability; "
        f"{prover.ties} ties left out of {prover.compared} decisions"
    )
    return Causality(passed=True, trials=whole, detail=detail)


def _official(prover: _Prover, tokens: Text, tags: Tokens, evaluation: Evaluation, dtype: torch.dtype) -> None:
    """Some windows of the official evaluation, in other company: the same plans and losses must come out."""
    rows = _draw(prover, len(tokens), BASES).to(tokens.device)
    chosen = tokens[rows]
    run = (chosen[:, :-1], tags[rows], chosen[:, 1:])
    if dtype is not torch.float32:
        with autocast(tokens.device, dtype):
            seen = prover.look(*run)
        same = [float((seen.masks[site].cpu() == mask[rows.cpu()]).all(-1).float().mean()) for site, mask in evaluation.masks.items()]
        if min(same) < AGREEMENT:
            raise _Offence(f"Official evaluation: only {min(same):.1%} of the decisions at some site came out again.")
        return
    masks = [evaluation.masks[site].to(tokens.device) for site in range(len(evaluation.masks))]
    scores = [evaluation.scores[site].to(tokens.device) if site in evaluation.scores else None for site in range(len(masks))]
    official = _Seen(torch.from_numpy(evaluation.nats).float().to(tokens.device), masks, [], scores)
    prover.check("Official evaluation", rows, *run, official)


def _splices(prover: _Prover, tokens: Text, tags: Tokens) -> tuple[Tensor, Tensor]:
    """Sequences of `seq + 1` that begin as one window and go on as another."""
    heads, tails = (_draw(prover, len(tokens), BASES).to(tokens.device) for _ in range(2))
    cut = torch.randint(1, tokens.shape[1], (BASES, 1), generator=prover.noise).to(tokens.device)
    index = torch.arange(tokens.shape[1], device=tokens.device)
    return torch.where(index < cut, tokens[heads], tokens[tails]), tags[heads]


def _batches(prover: _Prover, spliced: Text, tags: Tokens, base: _Seen) -> None:
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


def _suffixes(prover: _Prover, spliced: Text, tags: Tokens, base: _Seen) -> int:
    """Replace what follows a cut, the last target included; decisions and losses up to the cut must stay."""
    seq, device = spliced.shape[1] - 1, spliced.device
    rows, others, cuts = (_draw(prover, limit, TRIALS).to(device) for limit in (BASES, BASES, seq))
    original, suffix, cut = spliced[rows], spliced[others], cuts.unsqueeze(1)
    index = torch.arange(seq + 1, device=device)
    suffix = torch.where((index == cut + 1) & (suffix == original), (suffix + 1) % prover.decoder.config.vocab_size, suffix)
    # Targets are the original ones: whether they were seen shows in the loss up to the cut.
    perturbed = torch.where(index > cut, suffix, original)
    return prover.check("Suffix perturbation", rows, perturbed[:, :-1], tags[rows], original[:, 1:], base, cuts + 1)


def _decoding(prover: _Prover, spliced: Text, tags: Tokens, base: _Seen) -> None:
    """Token by token: each prefix, computed anew, must decide as the whole sequence does."""
    rows = torch.arange(DECODED, device=spliced.device)
    for length in _lengths(prover, spliced.shape[1] - 1):
        prover.check("Decoding", rows, spliced[rows, :length], tags[rows, :length], spliced[rows, 1 : length + 1], base)


def _lengths(prover: _Prover, seq: int) -> Iterator[int]:
    """All short prefixes, where thresholds and windows begin, and a draw of longer ones."""
    short = min(seq, PREFIXES // 2)
    yield from range(1, short + 1)
    yield from (short + 1 + _draw(prover, seq - short, PREFIXES - short)).tolist() if seq > short else ()


def _draw(prover: _Prover, limit: int, count: int) -> Int[Tensor, " count"]:
    """`count` numbers below `limit`, in a random order, each as often as any other."""
    rounds = [torch.randperm(limit, generator=prover.noise) for _ in range(-(-count // limit))]
    return torch.cat(rounds)[:count]


def _state(decoder: Decoder) -> list[tuple[float, float]]:
    """Two sums of every parameter and buffer: enough to see one move."""
    tensors = (*decoder.parameters(), *decoder.buffers())
    return [(float(t.double().sum()), float(t.double().square().sum())) for t in tensors]
