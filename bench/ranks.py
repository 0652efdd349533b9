"""Share one cell among ranks: processes that train it together, each on rows of every batch.

Every rank knows the whole batch and takes its own slice. Numbers of the whole batch come together
here. Outside of `slicing`, and in one process, each function returns its argument unchanged: then
all ranks do the same work on the same data.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PATIENCE = timedelta(hours=24)
"""Time that a rank waits for the others. torchrun ends all of them when one dies."""

Value = TypeVar("Value")


@dataclass
class World:
    """The place of this process among the ranks of a run.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        sliced: whether this rank now works on its own rows of a batch.
    """

    rank: int = 0
    size: int = 1
    sliced: bool = False

    here: ClassVar["World"]

    @property
    def leads(self) -> bool:
        """Whether this process writes records, checkpoints and text."""
        return self.rank == 0


World.here = World()


def world() -> World:
    """Return the place of this process."""
    return World.here


@contextmanager
def joined(rank: int, size: int, **options: Any) -> Generator[World]:
    """Join the other ranks inside the block.

    Args:
        rank: number of this process.
        size: number of processes.
        options: arguments of `torch.distributed.init_process_group`; by default its environment.
    """
    if size == 1:
        yield World.here
        return
    # Numbers on the CPU go by gloo, also where tensors of a GPU go by NCCL.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=size, timeout=PATIENCE, **options)
    World.here = World(rank, size)
    try:
        yield World.here
    finally:
        World.here = World()
        dist.destroy_process_group()


@contextmanager
def slicing() -> Generator[None]:
    """Let this rank work on its own rows of a batch inside the block."""
    here = world()
    before, here.sliced = here.sliced, here.size > 1
    try:
        yield
    finally:
        here.sliced = before


def rows(values: Tensor) -> Tensor:
    """Return this rank's rows of a tensor of the whole batch."""
    here = world()
    if not here.sliced:
        return values
    return values.chunk(here.size)[here.rank]


def gather(values: Tensor) -> Tensor:
    """Return the rows of all ranks, in order. The gradient reaches this rank's own rows.

    Every rank computes the same loss from the result, and gradients are averaged over ranks. So
    the gradient of a rank's own rows is multiplied by the number of ranks.
    """
    return _Gather.apply(values) if world().sliced else values  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        # As bytes, because gloo does not know all types.
        here, own = world(), values.contiguous()
        found = own.new_empty(here.size * own.shape[0], *own.shape[1:])
        if own.numel():
            parts = found.view(-1).view(torch.uint8).chunk(here.size)
            dist.all_gather(list(parts), own.view(-1).view(torch.uint8))
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        here = world()
        return gradients[0].chunk(here.size)[here.rank] * here.size


def gather_parts(values: Tensor) -> Tensor:
    """Return the rows of all ranks, in order, if ranks have different numbers of them."""
    here = world()
    if not here.sliced:
        return values
    sizes = gather(torch.tensor([len(values)])).tolist()
    padding = values.new_zeros(max(sizes) - len(values), *values.shape[1:])
    parts = gather(torch.cat((values, padding))).chunk(here.size) if max(sizes) else [values]
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=False)])


def total(value: float) -> float:
    """Return the sum of a number over ranks."""
    return _reduced(value, sum)


def largest(value: int) -> int:
    """Return the largest of a number over ranks."""
    return int(_reduced(value, max))


def _reduced(value: float, reduce: Callable[[list[float]], float]) -> float:
    if not world().sliced:
        return value
    # Every rank adds in the same order, so that all go on with the same bits.
    return reduce(gather(torch.tensor([value], dtype=torch.float64)).tolist())


def mean(value: Tensor) -> Tensor:
    """Return the mean of a number over ranks, without gradient."""
    return gather(value.detach().view(1)).mean() if world().sliced else value


def from_first(value: Value) -> Value:
    """Return rank 0's value, which may be any object that can be pickled."""
    if world().size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def all_agree(good: bool) -> bool:
    """Return whether a condition holds on all ranks. No rank goes on before all have answered."""
    if world().size == 1:
        return good
    flag = torch.tensor(good, dtype=torch.int32)
    dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag)


def drawing(batch: int, seq: int) -> Any:
    """Return a context in which random numbers are drawn for the whole batch.

    Each rank gets its own rows of the draw of one process. A draw from a given generator is cut if
    its first axis is the batch, or all tokens of the batch. Any other draw is the same on all
    ranks, as it is for all sequences in one process.

    Args:
        batch: number of sequences of this rank.
        seq: tokens per sequence.
    """
    return _Drawing({batch, batch * seq}) if world().sliced else nullcontext()


class _Drawing(TorchDispatchMode):
    def __init__(self, lengths: set[int]) -> None:
        super().__init__()
        self.lengths = lengths

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is None:
            return func(*args, **kwargs)
        here = world()
        length = next((found for found in map(_length, args) if found is not None), None)
        if length not in self.lengths:
            return func(*args, **kwargs)
        # The copies of the other ranks' rows only make room: their values move no draw.
        whole = func(*(_repeated(value, here.size, length) for value in args), **kwargs)
        own = whole.chunk(here.size)[here.rank]
        # A draw in place goes into the tensor that was given.
        return args[0].copy_(own) if func.name().partition(".")[0].endswith("_") else own.clone()


def _length(value: Any) -> int | None:
    """Return the first axis of a shape or a tensor; None for other arguments."""
    shape = value.shape if isinstance(value, Tensor) else value
    return int(shape[0]) if isinstance(shape, (list, tuple)) and len(shape) else None


def _repeated(value: Any, times: int, length: int) -> Any:
    """Return a shape or a tensor with its first axis `times` as long."""
    if _length(value) != length:
        return value
    if isinstance(value, Tensor):
        return torch.cat([value] * times)
    return [times * length, *value[1:]]
