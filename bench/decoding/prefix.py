"""Hold the inputs that a router has seen, for routers that read more than the new token.

Such a router is asked about the whole prefix at each step, and the last column of its plan is used.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.backbone.passes import ask
from bench.decoding.cache import Ragged, Rows
from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan

Updates = dict[str, tuple[Int[Tensor, " _token"] | None, Float[Tensor, "_token d_model"]]]
FIELDS = ("hidden", "tokens", "positions", "tags", "truth", "attention", "stream")
"""Inputs of a router with one entry per token."""


class Prefix:
    """The inputs of one router over the prefix, and its trace there.

    Args:
        trace: trace of the prompt.

    Attributes:
        trace: trace of the prefix, for the routers of later layers. Inside a block it stays the
            trace of the prompt, which nobody reads.
    """

    def __init__(self, trace: LayerTrace) -> None:
        self.trace, inputs = trace, trace.inputs
        self.inside = inputs.valid is not None
        batch, seq = inputs.tokens.shape
        lengths = torch.full((batch,), seq) if inputs.valid is None else inputs.valid.sum(1)
        found = {name: getattr(inputs, name) for name in FIELDS}
        self.columns = {
            name: Ragged(value, lengths) for name, value in found.items() if value is not None
        }

    def plan(
        self, router: Router, inputs: RouterInput, rows: Rows, previous: LayerTrace | None
    ) -> RoutingPlan:
        """Return the plan of the new tokens.

        Args:
            router: the router.
            inputs: its inputs of the new tokens, `[row, 1]`.
            rows: the sequences of the new tokens.
            previous: trace of the prefix in the routed site before.
        """
        for name, columns in self.columns.items():
            columns.append(rows, getattr(inputs, name)[:, 0])
        tokens = self.columns["tokens"]
        valid = None
        if self.inside:
            real = tokens.real(rows)
            valid = torch.ones_like(tokens.of(rows), dtype=torch.bool) if real is None else real
        seen = {name: columns.of(rows) for name, columns in self.columns.items()}
        whole = replace(inputs, **seen, previous=previous, valid=valid)
        plan = ask(router, whole)
        if not self.inside:
            self.trace = replace(self.trace, inputs=whole, plan=plan)
        return last_column(plan, tokens.lengths[rows] - 1, router.paths.segment)

    def follow(self, update: Float[Tensor, "batch 1 d_model"], path_updates: Updates) -> None:
        """Add the updates of the new tokens to the trace."""
        self.trace = replace(
            self.trace,
            path_updates=_joined(self.trace.path_updates, path_updates, self.trace.update.shape[1]),
            update=torch.cat((self.trace.update, update), dim=1),
        )

    @property
    def size(self) -> int:
        """Return the bytes of the kept inputs."""
        return sum(columns.size for columns in self.columns.values())


def last_column(plan: RoutingPlan, at: Int[Tensor, " batch"], segment: int | None) -> RoutingPlan:
    """Return the plan of one token of each sequence.

    Args:
        plan: plan of the whole sequences.
        at: index of the token in its sequence.
        segment: tokens that share a merged expert, or None.
    """
    at = at.to(plan.mask.device)
    # Sequences may have different lengths: each has its own index of the token.
    rows = torch.arange(len(at), device=at.device)

    def column(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[rows, at].unsqueeze(1)

    merge = plan.merge
    # A merged expert belongs to a segment of tokens, not to one token.
    if merge is not None and segment is not None:
        merge = merge[rows, at // segment].unsqueeze(1)
    return RoutingPlan(
        plan.mask[rows, at].unsqueeze(1),
        column(plan.weight),
        column(plan.scores),
        merge=merge,
        choice=column(plan.choice),
        weighs=plan.weighs,
    )


def _joined(before: Updates, after: Updates, length: int) -> Updates:
    """Return the paths' updates of a prefix of `length` tokens and one new token per sequence."""
    found: Updates = {}
    for name in {**before, **after}:
        parts: list[tuple[Tensor, Tensor]] = []
        if name in before:
            index, output = before[name]
            index = torch.arange(len(output), device=output.device) if index is None else index
            # A flat index is sequence * length + place, and each sequence is longer by one now.
            parts.append((index + index // length, output))
        if name in after:
            index, output = after[name]
            index = torch.arange(len(output), device=output.device) if index is None else index
            parts.append((index * (length + 1) + length, output))
        places, order = torch.cat([place for place, _ in parts]).sort()
        found[name] = places, torch.cat([output for _, output in parts])[order]
    return found
