"""Ranks against one process: draws, rows and sums."""

from collections.abc import Generator
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from bench import ranks
from bench.ranks import World
from tests.ranks import on_ranks

BATCH, SEQ, SIZE = 6, 5, 3


@pytest.fixture(params=range(SIZE))
def rank(request: pytest.FixtureRequest) -> Generator[int]:
    """Stand in for a rank that works on its rows."""
    with patch.object(World, "here", World(request.param, SIZE, sliced=True)):
        yield request.param


def draws(batch: int) -> list[Tensor]:
    """Draw in all the ways of torch, for sequences, for tokens, and once for all."""
    noise = torch.Generator().manual_seed(3)
    return [
        torch.rand(7, generator=noise),
        torch.randperm(9, generator=noise),
        torch.rand(batch, SEQ, 3, generator=noise),
        torch.randn(batch, SEQ, generator=noise),
        torch.rand(batch * SEQ, 4, generator=noise),
        torch.empty(batch, SEQ, 4).uniform_(0.9, 1.1, generator=noise),
        torch.empty(batch, 4).exponential_(generator=noise),
        torch.bernoulli(torch.full((batch, SEQ), 0.3), generator=noise),
        torch.multinomial(torch.ones(batch, 9), 3, generator=noise),
        torch.randint(9, (batch, SEQ), generator=noise),
        torch.normal(0.0, 1.0, (batch, SEQ), generator=noise),
    ]


def test_a_rank_draws_its_rows_of_the_draw_of_one_process(rank: int) -> None:
    whole = draws(BATCH)
    with ranks.drawing(BATCH // SIZE, SEQ):
        own = draws(BATCH // SIZE)
    for ours, theirs in zip(own[:2], whole[:2], strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(own[2:], whole[2:], strict=True):
        assert torch.equal(ours, theirs.chunk(SIZE)[rank])


def test_rows_of_all_ranks_are_the_batch() -> None:
    batch = torch.arange(BATCH)
    found: list[Tensor] = []
    for rank in range(SIZE):
        with patch.object(World, "here", World(rank, SIZE, sliced=True)):
            found.append(ranks.rows(batch))
    assert torch.equal(torch.cat(found), batch)


def test_one_process_gets_its_own_values_back() -> None:
    values = torch.rand(3, 2)
    with ranks.slicing():
        for function in (ranks.rows, ranks.gather, ranks.gather_parts, ranks.mean):
            assert function(values) is values
        assert (ranks.total(1.5), ranks.largest(3)) == (1.5, 3)
    assert ranks.from_first("a") == "a"
    assert [ranks.all_agree(good) for good in (True, False)] == [True, False]


def gathered() -> dict[str, object]:
    """Gather on a rank, with a loss of the whole batch."""
    here, batch = ranks.world(), torch.arange(4.0).view(4, 1)
    same = [ranks.gather(batch) is batch, ranks.total(2.0)]
    with ranks.slicing():
        own = ranks.rows(batch).clone().requires_grad_()
        (ranks.gather(own).square().sum()).backward()
        assert own.grad is not None
        return {
            "same": same,
            "gradient": own.grad / here.size,
            "flags": ranks.gather(torch.tensor([[here.rank == 1]])),
            "parts": ranks.gather_parts(torch.full((here.rank * 2, 1), here.rank)),
            "none": ranks.gather_parts(torch.zeros(0, 2)),
            "numbers": (ranks.total(here.rank + 0.5), ranks.largest(here.rank)),
            "mean": ranks.mean(torch.tensor(float(here.rank))),
            "first": ranks.from_first(f"rank {here.rank}"),
            "agreed": (ranks.all_agree(True), ranks.all_agree(here.rank == 0)),
        }


def test_what_is_gathered_is_the_same_on_all_ranks() -> None:
    for rank, found in enumerate(on_ranks(gathered)):
        assert found["same"] == [True, 2.0], "outside of `slicing` all ranks do the same"
        assert torch.equal(found["gradient"], 2 * torch.arange(4.0).view(4, 1).chunk(2)[rank])
        assert found["flags"].tolist() == [[False], [True]]
        assert found["parts"].tolist() == [[1], [1]] and found["none"].shape == (0, 2)
        assert found["numbers"] == (2.0, 1) and found["mean"] == 0.5
        assert found["first"] == "rank 0" and found["agreed"] == (True, False)
