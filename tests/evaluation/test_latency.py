"""The clock is read around causal passes of a batch spread over the windows."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from bench.evaluation.latency import WINDOWS, measure_speed
from tests.world import SEQ_LEN, model, windows


@pytest.mark.parametrize("count", [5, WINDOWS, 61])
def test_the_batch_is_spread_over_the_windows_and_passed_causally(count: int) -> None:
    found, text, seen = model("mlp_gate"), windows(count), list[Any]()
    found.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    before = found.evaluation_ledger.total, [p.clone() for p in found.decoder.state_dict().values()]
    speed = measure_speed(found, text)
    rows = min(count, WINDOWS)
    assert speed.tokens == rows * SEQ_LEN
    assert speed.repeats > 0
    assert speed.forward_us_per_token > 0
    assert {run.selection for run in seen} == {"causal"}
    assert all(run.generator is None and not run.traces[0].plan.mask.requires_grad for run in seen)
    first = seen[0].tokens
    every = torch.from_numpy(text.tokens[:, :-1])
    assert torch.equal(first[0], every[0]) and torch.equal(first[-1], every[-1])
    places = [int((every == row).all(1).nonzero()[0]) for row in first]
    assert len(first) == rows == len(set(places))
    assert max(b - a for a, b in pairwise(places)) <= count / rows + 1
    assert found.evaluation_ledger.total == before[0]
    assert all(
        torch.equal(a, b)
        for a, b in zip(before[1], found.decoder.state_dict().values(), strict=True)
    )
