"""Check that a decision depends on its token and earlier ones only.

The proof of `bench.conformance.causality_proof` runs on a trained, calibrated model.
"""

import torch

from bench.conformance.check import Exempt, demand, rule
from bench.conformance.life import content_digest
from bench.conformance.subject import Subject
from bench.decoding.decode import Decoding
from bench.evaluation.evaluate import evaluate
from bench.record import Causality

_TAG_TRIALS = 64
_PROMPT = 4
"""Tokens of a prompt; the rest of a sequence is decoded."""
_AGREES = 1e-3
_MOST_ROUNDED = 0.25
"""Share of sequences in which rounding may change a decision near a threshold."""


def _hold(subject: Subject, proof: Causality, *trials: str) -> None:
    """Fail if the proof stopped at one of these trials. Other trials belong to other checks."""
    demand(proof.passed or not proof.detail.startswith(trials), "no difference", proof.detail)
    if not proof.passed:
        raise Exempt(f"not reached, since the proof stopped at: {proof.detail}")


@rule(
    "In causal selection compare each score with a threshold; a top-k, mean or norm over the "
    "sequence sees the future."
)
def causal(subject: Subject) -> None:
    """Later tokens change neither the path nor the prediction of a token.

    Suffix trials show it, and decoding token by token.
    """
    _hold(subject, subject.proof, "Suffix trial", "Decoding")


@rule(
    "Reduce over the sequence's own dimension at most, never over the batch; batch statistics "
    "belong in `after_step`."
)
def batch_invariant(subject: Subject) -> None:
    """A sequence gets the same plan in any batch, in any order, and alone."""
    _hold(subject, subject.proof, "Batch")


@rule(
    "Evaluation has no generator: use bench.routing.hash_noise for randomness; update buffers in "
    "`after_step` only, which runs in training."
)
def evaluation_is_stationary(subject: Subject) -> None:
    """Evaluating twice gives the same plans and losses, and changes no parameter or buffer."""
    model, windows = subject.trained, subject.windows(8)
    # Two evaluations in a row would also show a counter that only the second one reads.
    before = content_digest(model.decoder.state_dict())
    first, second = (evaluate(model, windows, batch_size=8, keep=True) for _ in range(2))
    demand(
        content_digest(model.decoder.state_dict()) == before,
        "parameters and buffers as they were",
        "a change",
    )
    demand(
        content_digest(first.masks) == content_digest(second.masks),
        "the same plans twice",
        "other plans",
    )
    demand(
        content_digest(first.nats) == content_digest(second.nats),
        "the same losses twice",
        "other losses",
    )
    _hold(subject, subject.proof, "Official evaluation", "State", "Predictions")


@rule("Use the tag of the token itself; a later tag shows the future.")
def tags_are_causal(subject: Subject) -> None:
    """Later domain tags change no decision for a token."""
    if not any("tags" in router.needs for router in subject.trained.decoder.routers):
        raise Exempt("the router does not ask for tags")
    tokens, tags = subject.batch(_TAG_TRIALS)
    # Each sequence has its own cut; all tags from there on are replaced by the next domain.
    cut = 1 + torch.arange(_TAG_TRIALS).unsqueeze(1) % (tokens.shape[1] - 1)
    later = torch.arange(tokens.shape[1]) >= cut
    other = torch.where(later, (tags + 1) % int(tags.max() + 1), tags)
    with torch.no_grad():
        traces, changed = (
            subject.run(subject.trained, tokens, each, "causal", reference=True)[1]
            for each in (tags, other)
        )
    for before, after in zip(traces, changed, strict=True):
        leaks = ((before.plan.mask != after.plan.mask).any(-1) & ~later).nonzero().tolist()
        demand(
            not leaks,
            f"the same plan up to the change in layer {before.layer}",
            f"others at (sequence, position) {leaks[:1]}",
        )


@rule(
    "Leave `pointwise` at False if a choice reads other tokens than its own; decoding then asks "
    "about the whole prefix.",
    waivable=True,
)
def decodes_alike(subject: Subject) -> None:
    """Decoding token by token with caches gives the logits of the pass over the whole text."""
    decoder = subject.trained.decoder
    tokens, tags = subject.batch(8, "decoding")
    with torch.no_grad():
        expected, _ = subject.run(subject.trained, tokens, tags, "causal")
    decoding = Decoding(decoder, tokens[:, :_PROMPT], tags[:, :_PROMPT])
    columns = range(_PROMPT, tokens.shape[1])
    steps = [decoding.step(tokens[:, place], tags[:, place]) for place in columns]
    close = torch.isclose(torch.stack(steps, 1), expected[:, _PROMPT:], rtol=_AGREES, atol=_AGREES)
    differs = ~close.flatten(1).all(1)
    seen = f"other logits in {int(differs.sum())} of {len(tokens)} sequences"
    demand(float(differs.float().mean()) <= _MOST_ROUNDED, "the same logits", seen)
