"""Define the file of one `bench speed` run, and read and write such files.

Times compare within one file only: its rows alternated in one process.
"""

import json
from collections.abc import Container
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import UserError
from bench.files import write_atomically

SPEED = "speed"
"""Folder of a tree for these files."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Work(_Part):
    """The cost of one kind of work of a row, such as a training step."""

    milliseconds: float = Field(description="median time of one call")
    relative: float = Field(
        description="median over rounds of the time divided by the time of dense"
    )
    active: float = Field(description="active FLOPs per token, divided by those of dense")
    executed: float = Field(
        description="executed FLOPs per token, divided by those of dense; without the optimiser"
    )
    optimizer: float = Field(
        default=0.0,
        description="FLOPs of the optimiser in a training step, divided by the executed FLOPs of "
        "dense",
    )


class Memory(_Part):
    """Peak memory of training steps, measured in a process of its own."""

    tensors_mb: float = Field(
        description="most memory of tensors at one time, MiB: weights, optimisers, activations, "
        "gradients"
    )
    process_mb: float | None = Field(
        description="largest resident memory of the process, MiB, with code and text; None where "
        "the system does not say"
    )


class RowSpeed(_Part):
    """The speed of one row."""

    row: str
    works: dict[str, Work] = Field(description="kind of work, such as `step` -> its cost")
    parts: dict[str, float] = Field(
        description="part of a training step -> its share of the time; they add up to 1"
    )
    memory: Memory | None = Field(default=None, description="None unless asked for")


class DecodeSpeed(_Part):
    """Decoding of one row at one batch size, token by token after a prompt."""

    row: str
    batch: int = Field(description="number of sequences")
    tokens_per_second: float = Field(
        description="decoded tokens of all sequences per second, median over repeats"
    )
    spread: float = Field(
        description="half the range of the middle half of the repeats, relative to the median"
    )
    flops: float = Field(
        description="active FLOPs per decoded token, a mean over steps, routers as they ran"
    )
    cache_bytes: float = Field(
        description="bytes of keys and values per sequence after the last step"
    )
    reserved_bytes: float = Field(description="the same in memory, with padding and room to grow")
    router_bytes: float = Field(
        description="bytes of the inputs that routers read again, per sequence"
    )


class Yardstick(_Part):
    """A figure of the same machine in the same process, to compare the rows with."""

    name: str
    value: float
    unit: str


class SpeedRun(_Part):
    """One run: its conditions, its rows and its yardsticks."""

    suite: str
    backbone: str
    batch_size: int = Field(description="sequences per step")
    seq_len: int
    dtype: str
    device: str
    compiled: bool
    processor: str
    threads: int
    versions: dict[str, str]
    command: str
    commit: str
    dirty: bool
    started: str = Field(description="UTC, ISO 8601")
    clock: str = Field(description="the clock that was read")
    rounds: int = Field(description="timed calls of each work of each row")
    reference: str = Field(description="the row that others are compared with")
    rows: tuple[RowSpeed, ...]
    yardsticks: tuple[Yardstick, ...]
    decoding: tuple[DecodeSpeed, ...] = Field(default=(), description="empty unless asked for")

    @property
    def name(self) -> str:
        """Name of the file; runs under other conditions have other names."""
        size = (self.backbone, self.batch_size)
        return name_of(self.suite, *size, self.device, self.dtype, self.compiled)


def name_of(
    suite: str, backbone: str, batch_size: int, device: str, dtype: str, compiled: bool
) -> str:
    """Return the name of a file, by the conditions of its run."""
    kind, last = device.partition(":")[0], ["compiled"] * compiled
    return "-".join([suite, backbone, f"b{batch_size}", kind, dtype, *last])


def require_rows_kept(name: str, rows: Container[str], root: Path) -> None:
    """Raise a `UserError` if the file of that name in a tree has rows that a new one would lack.

    Args:
        name: name of the file.
        rows: names of the rows of the new file.
        root: the tree.
    """
    path = root / SPEED / f"{name}.json"
    lost = [one.row for one in _read(path).rows if one.row not in rows] if path.is_file() else []
    if lost:
        raise UserError(
            f"{path} has rows that this run would remove: {', '.join(lost)}. Add them "
            "to --routers, or write to another tree: --out."
        )


def write_speed(run: SpeedRun, root: Path) -> Path:
    """Write a run into a tree, over one under the same conditions, and return its place."""
    path = root / SPEED / f"{run.name}.json"
    write_atomically(path, json.dumps(run.model_dump(), indent=1) + "\n")
    return path


def read_speeds(root: Path) -> list[SpeedRun]:
    """Return the runs in a tree, in the order of their names.

    Raises:
        UserError: a file is not of this form.
    """
    return [_read(path) for path in sorted((root / SPEED).glob("*.json"))]


def _read(path: Path) -> SpeedRun:
    try:
        return SpeedRun.model_validate_json(path.read_bytes())
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise UserError(
            f"{path} is no file of `bench speed`: {said}. Delete it and run the command again."
        ) from None
