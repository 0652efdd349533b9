"""Traces of a whole batch, put together on two ranks, against those of one process."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.backbone.passes import Pass
from bench.ranks import rows, slicing
from bench.routing.contract import LayerTrace
from bench.training.whole import whole_counts, whole_traces
from tests.ranks import on_ranks
from tests.world import model, row_id, run_of, tokens, trained_like

BATCH = 4
ROUTERS: list[tuple[str, dict[str, Any]]] = [
    ("mlp_gate", {}),
    ("mod", {}),
    ("top2_moe", {}),
    ("jepa_gate", {}),
    ("mode", {}),
]


def passed(name: str, options: dict[str, Any]) -> Pass:
    """Run a model on the rows of this rank."""
    found = model(name, options)
    run = run_of(rows(tokens(BATCH)))
    trained_like(found.decoder)(run)
    return run


def plain(value: Any) -> Any:
    """Return a trace as nested dictionaries, read field by field."""
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return None if isinstance(value, torch.Generator) else value


def sorted_tokens(found: dict[str, Any], tokens: int) -> dict[str, Tensor]:
    """Return the outputs of each path at its tokens, with 0 elsewhere."""
    full: dict[str, Tensor] = {}
    for name, (index, output) in found.items():
        place = torch.arange(tokens) if index is None else index
        full[name] = torch.zeros(tokens, output.shape[-1]).index_copy(0, place, output)
    return full


def assert_equal(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            if name == "path_updates":
                count = theirs["plan"]["mask"][..., 0].numel()
                count = max(count, BATCH * 24)
                assert_equal(sorted_tokens(ours[name], count), sorted_tokens(theirs[name], count))
            else:
                assert_equal(ours[name], theirs[name])
    elif isinstance(theirs, Tensor):
        assert torch.allclose(ours.float(), theirs.float(), atol=1e-5)
    else:
        assert ours == theirs


def gathered(name: str, options: dict[str, Any]) -> tuple[Any, list[Tensor]]:
    with slicing():
        run = passed(name, options)
        return [plain(trace) for trace in whole_traces(run)], whole_counts(run.counts)


@pytest.mark.parametrize(("name", "options"), ROUTERS, ids=row_id)
def test_the_traces_of_all_rows_are_those_of_one_process(
    name: str, options: dict[str, Any]
) -> None:
    alone = passed(name, options)
    for traces, counts in on_ranks(gathered, name, options):
        for ours, theirs in zip(traces, alone.traces, strict=True):
            assert_equal(ours, plain(theirs))
        for ours, theirs in zip(counts, alone.counts, strict=True):
            assert torch.equal(ours, theirs)


def test_one_process_keeps_its_traces() -> None:
    run = passed("mlp_gate", {})
    with slicing():
        assert whole_traces(run) is run.traces and whole_counts(run.counts) is run.counts


def copied() -> tuple[torch.Size, type]:
    with slicing():
        (trace, *_) = whole_traces(passed("mlp_gate", {}))
        part = replace(trace, inputs=replace(trace.inputs, tags=None))
        return part.inputs.hidden.shape, type(part).__mro__[2]


def test_a_router_may_copy_a_trace() -> None:
    for shape, kind in on_ranks(copied):
        assert shape[0] == BATCH and kind is LayerTrace
