"""What a model decided in one company, held against what it decided in another.

Decisions near their threshold honestly turn by rounding, which depends on how many tokens share a
product. Such ties are told apart by noise on the router's own input, a hundred times larger than
rounding, and are left out and counted. Where the company stays and only what follows changes,
nothing has to be rounded otherwise, and a tie is no excuse.
"""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.backbone.decoder import Decoder
from bench.backbone.merge import merge_by_token
from bench.backbone.passes import ask, make_pass
from bench.routing.contract import LayerTrace, RouterInput

TIE = 1e-4
"""A decision that noise of this size on the router's input can turn is a tie."""
TIE_DRAWS = 16
TOLERANCE = 1e-4
"""Largest relative difference of weights and absolute one of losses (nats) that is put down to
rounding.
"""

Tokens = Int[Tensor, "batch seq"]


@dataclass
class Seen:
    """What one forward pass decided, every site laid out by position.

    Attributes:
        nats: loss of each token.
        masks: a routed site -> the executed paths.
        weights: a routed site -> weight of each executed path, 0 elsewhere; none where they were
            not kept.
        scores: a routed site -> scores, None where the plan has none.
        inputs: a routed site -> what its router saw.
    """

    nats: Float[Tensor, "batch seq"]
    masks: list[Bool[Tensor, "batch seq path"]]
    weights: list[Float[Tensor, "batch seq path"]]
    scores: list[Float[Tensor, "batch seq path"] | None]
    inputs: list[RouterInput] = field(default_factory=list[RouterInput])

    def rows(self, index: Tensor, length: int) -> "Seen":
        """Some sequences, the first `length` positions."""

        def cut(data: list[Tensor]) -> list[Tensor]:
            return [tensor[index, :length] for tensor in data]

        scores = [None if tensor is None else tensor[index, :length] for tensor in self.scores]
        return Seen(self.nats[index, :length], cut(self.masks), cut(self.weights), scores)


class Offence(Exception):
    """A rule that was broken; the text names where."""


class Comparison:
    """The model under test, and the decisions that were left out as ties.

    (site, sequence, position).
    """

    def __init__(self, decoder: Decoder, noise: torch.Generator, batch_size: int) -> None:
        self.decoder, self.noise, self.batch_size = decoder, noise, batch_size
        self.ties: set[tuple[int, int, int]] = set()

    def look(self, tokens: Tokens, tags: Tokens, targets: Tokens) -> Seen:
        """Run sequences and collect decisions and the losses of `targets`, for others to be held
        against.
        """
        parts = [
            self._look(*part)
            for part in zip(
                *(t.split(self.batch_size) for t in (tokens, tags, targets)), strict=True
            )
        ]

        def joined(found: list[list[Tensor]]) -> list[Tensor]:
            return [torch.cat(site) for site in zip(*found, strict=True)]

        scores = [
            None if None in site else torch.cat(site)
            for site in zip(*(part.scores for part in parts), strict=True)
        ]
        nats = torch.cat([part.nats for part in parts])
        return Seen(
            nats,
            joined([part.masks for part in parts]),
            joined([part.weights for part in parts]),
            scores,
        )

    def check(
        self, name: str, rows: Tensor, tokens: Tokens, tags: Tokens, targets: Tokens, base: Seen
    ) -> int:
        """Run sequences that came from `rows` of the base and hold them against it.

        Returns:
            How many sequences agreed with nothing left out.
        """
        whole = 0
        for row, *part in zip(
            *(t.split(self.batch_size) for t in (rows, tokens, tags, targets)), strict=True
        ):
            whole += self._compare(
                name,
                row,
                base.rows(row, tokens.shape[1]),
                self._look(*part),
                torch.full_like(row, tokens.shape[1]),
            )
        return whole

    def check_change(
        self,
        name: str,
        rows: Tensor,
        before: Tokens,
        after: Tokens,
        tags: Tokens,
        targets: Tokens,
        upto: Tensor,
        in_full: bool = False,
    ) -> int:
        """Hold sequences against themselves with other text from a position on, `upto` it, in
        batches of the same make-up.

        What is a tie elsewhere has no excuse here: with every path run on every token, both texts
        make products of the same shapes, and what precedes the change comes out bit for bit.
        Batches with ties are run like that, before and after.

        Args:
            name: of the trial, for the offence.
            rows: numbers of the sequences, likewise.
            before: the sequences.
            after: the sequences with other text.
            tags: of both.
            targets: of both.
            upto: number of positions of each that must agree.
            in_full: run every path on every token at once, not only where there are ties.

        Returns:
            How many sequences agreed with nothing left out.
        """
        whole = 0
        for row, limit, old, new, *rest in zip(
            *(t.split(self.batch_size) for t in (rows, upto, before, after, tags, targets)),
            strict=True,
        ):
            clean = self._change(name, row, limit, (old, new), rest, in_full)
            if clean < len(row):
                self._change(name, row, limit, (old, new), rest, in_full=True)
            whole += clean
        return whole

    def _change(
        self,
        name: str,
        rows: Tensor,
        upto: Tensor,
        texts: tuple[Tokens, Tokens],
        rest: list[Tensor],
        in_full: bool,
    ) -> int:
        """One batch of `check_change`; `rest` are tags and targets."""
        one, two = (self._look(text, *rest, reference=in_full) for text in texts)
        said = f"{name}, all paths run in full" if in_full else name
        return self._compare(said, rows, one, two, upto, forgive=not in_full)

    def _look(self, tokens: Tokens, tags: Tokens, targets: Tokens, reference: bool = False) -> Seen:
        run = make_pass(tokens, tags, reference=reference)
        log_p = self.decoder(run).float().log_softmax(-1)
        if not bool(((log_p.exp().sum(-1) - 1).abs() < 1e-3).all()):
            raise Offence(
                "Predictions: some next token has no probability; a logit is NaN or infinite."
            )
        nats = F.nll_loss(log_p.flatten(0, 1), targets.flatten(), reduction="none").view(
            targets.shape
        )
        seq = tokens.shape[1]
        weights = [_weights(t) for t in run.traces]
        return Seen(
            nats,
            [by_position(t.plan.mask, t, seq) for t in run.traces],
            [by_position(weight, t, seq) for weight, t in zip(weights, run.traces, strict=True)],
            [
                None if t.plan.scores is None else by_position(t.plan.scores.float(), t, seq)
                for t in run.traces
            ],
            [t.inputs for t in run.traces],
        )

    def _compare(
        self,
        name: str,
        rows: Int[Tensor, " batch"],
        base: Seen,
        seen: Seen,
        upto: Int[Tensor, " batch"],
        forgive: bool = True,
    ) -> int:
        """Hold what was seen against the base, for the first `upto` positions of each sequence;
        ties are left out if `forgive`.

        A tie leaves out what follows it in its sequence, since its consequences are honest.

        Returns:
            How many sequences agreed with nothing left out.

        Raises:
            Offence: a decision, weight or loss differs.
        """
        clean = torch.arange(base.nats.shape[1], device=rows.device) < upto.unsqueeze(1)
        whole = torch.ones(len(rows), dtype=torch.bool, device=rows.device)

        def hold(differs: Bool[Tensor, "batch seq"], what: str) -> None:
            if differs.any():
                row, position = differs.nonzero()[0].tolist()
                raise Offence(
                    f"{name}: {what} differs at sequence {int(rows[row])}, position {position}."
                )

        for site, (expected, found) in enumerate(zip(base.masks, seen.masks, strict=True)):
            layer = f"layer {self.decoder.routers[site].spec.layer}"
            differs = (expected != found).any(-1) & clean
            if differs.any():
                tie = (
                    differs & self._tied(site, base, seen, differs)
                    if forgive
                    else torch.zeros_like(differs)
                )
                hold(differs & ~tie, f"the plan of {layer}")
                self.ties |= {
                    (site, int(rows[row]), position) for row, position in tie.nonzero().tolist()
                }
                whole &= ~tie.any(1)
                clean &= tie.cumsum(1) == 0
            if base.weights:
                close = torch.isclose(
                    base.weights[site], seen.weights[site], rtol=TOLERANCE, atol=TOLERANCE
                )
                hold(~close.all(-1) & clean, f"a weight of {layer}")
        hold(~((base.nats - seen.nats).abs() <= TOLERANCE) & clean, "the loss")
        return int(whole.sum())

    def _tied(
        self, site: int, base: Seen, seen: Seen, differs: Bool[Tensor, "batch seq"]
    ) -> Bool[Tensor, "batch seq"]:
        """Which of the differing decisions noise of size TIE on the router's own input turns, the
        scores being unmoved.

        A router that gives no scores has no ties: nothing would tell rounding from what it must not
        see.
        """
        before, after = base.scores[site], seen.scores[site]
        if before is None or after is None:
            return torch.zeros_like(differs)
        moved = ~torch.isclose(before, after, rtol=TIE, atol=TIE, equal_nan=True).all(-1)
        inputs, router = seen.inputs[site], self.decoder.routers[site]
        here = differs.gather(1, inputs.positions).unsqueeze(-1)
        plan, turned = (
            ask(router, inputs).mask,
            torch.zeros_like(inputs.positions, dtype=torch.bool),
        )
        if not torch.equal(ask(router, inputs).mask, plan):
            raise Offence(
                f"Determinism: asked the same twice, the router of layer {router.spec.layer} plans differently."
            )
        for _ in range(TIE_DRAWS):
            noise = torch.randn(inputs.hidden.shape, generator=self.noise).to(inputs.hidden)
            turned |= (
                ask(router, replace(inputs, hidden=inputs.hidden + TIE * noise * here)).mask != plan
            ).any(-1)
        return torch.zeros_like(differs).scatter(1, inputs.positions, turned) & ~moved


def _weights(trace: LayerTrace) -> Float[Tensor, "batch seq path"]:
    """What each path counts for in a token's update.

    Merging weights, weights, or 1 where it ran.
    """
    plan = trace.plan
    if plan.merge is not None and trace.paths.segment is not None:
        return merge_by_token(plan, trace.paths.segment).float()
    return plan.mask.float() if plan.weight is None else plan.weight.float().where(plan.mask, 0)


def by_position(data: Tensor, trace: LayerTrace, seq: int) -> Tensor:
    """Lay out what a site says of the tokens it was given by their positions.

    0 where it was given none.
    """
    positions = trace.inputs.positions.unsqueeze(-1).expand(data.shape)
    return data.new_zeros(data.shape[0], seq, data.shape[2]).scatter(1, positions, data)
