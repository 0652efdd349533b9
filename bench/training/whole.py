"""Show the traces of a whole batch to losses and updates of routers, on every rank.

A rank runs the model on its own rows. Losses, labels and updates may compare all tokens of a batch:
loads of experts, quantiles, ranks. So they get the traces of all rows, and every rank computes the
same numbers as one process would. A field is gathered when it is first read.
"""

from dataclasses import fields
from typing import Any, cast

import torch
from jaxtyping import Real
from torch import Tensor

from bench.backbone.passes import Pass
from bench.flops.ledger import Counts
from bench.ranks import gather, gather_parts, world
from bench.routing.contract import LayerTrace, RouterInput, RoutingPlan

PathOutput = tuple[Tensor | None, Tensor]
"""Flat token index, or None for all tokens, and the outputs there."""


def whole_traces(run: Pass) -> list[LayerTrace]:
    """Return the traces of a pass with the rows of all ranks; those of the pass in one process."""
    if not world().sliced:
        return run.traces
    return [_Trace(trace) for trace in run.traces]


def whole_counts(counts: list[Counts]) -> list[Real[Tensor, "whole_batch _path"]]:
    """Return the counts of a pass, for each site, with the sequences of all ranks."""
    if not world().sliced or not counts:
        return counts
    # All sites go in one message.
    found = gather(torch.cat(counts, dim=1))
    return list(found.split([part.shape[1] for part in counts], dim=1))


class _Lazy:
    """Fields of another object, each gathered when it is first read.

    A field with a default is an attribute of its class, so it is gathered at once.
    """

    def __init__(self, part: Any = None, **given: Any) -> None:
        if part is None:  # a copy by `dataclasses.replace`
            super().__init__(**given)
            return
        batch = _batch(part)
        self.__dict__.update(_part=part, _rows=batch)
        for field in fields(part):
            if hasattr(type(part), field.name):
                self.__dict__[field.name] = _whole(getattr(part, field.name), batch)

    def __getattr__(self, name: str) -> Any:
        if "_part" not in self.__dict__:
            raise AttributeError(name)
        part, batch = self.__dict__["_part"], self.__dict__["_rows"]
        value = getattr(part, name)
        found = _outputs(part) if name == "path_updates" else _whole(value, batch)
        self.__dict__[name] = found
        return found


class _Trace(_Lazy, LayerTrace):
    pass


class _Inputs(_Lazy, RouterInput):
    pass


class _Plan(_Lazy, RoutingPlan):
    pass


def _batch(part: Any) -> int:
    """Return the number of this rank's sequences in a trace, its inputs or its plan."""
    if isinstance(part, LayerTrace):
        return len(part.inputs.tokens)
    return len(part.tokens if isinstance(part, RouterInput) else part.mask)


def _whole(value: Any, batch: int) -> Any:
    """Return a field for the rows of all ranks. Values that are not of the batch are the same."""
    if isinstance(value, LayerTrace):
        return _Trace(value)
    if isinstance(value, RouterInput):
        return _Inputs(value)
    if isinstance(value, RoutingPlan):
        return _Plan(value)
    if isinstance(value, dict):
        return {name: _whole(part, batch) for name, part in cast(dict[str, Any], value).items()}
    if isinstance(value, Tensor) and value.dim() and len(value) == batch:
        return gather(value)
    return value


def _outputs(trace: LayerTrace) -> dict[str, PathOutput]:
    """Return `path_updates` with the tokens of all ranks. Some ranks may not have run a path."""
    tokens, found = trace.plan.mask[..., 0].numel(), dict[str, PathOutput]()
    width, first = trace.update.shape[-1], world().rank * tokens
    for name in (*trace.paths.names, "merged"):
        index, output = trace.path_updates.get(name, (None, trace.update.new_zeros(0, width)))
        # An index counts the tokens of all ranks, in the order of their rows.
        if index is None:
            index = torch.arange(len(output), device=output.device)
        index, output = gather_parts(index + first), gather_parts(output)
        if len(output):
            found[name] = (None if len(output) == tokens * world().size else index, output)
    return found
