"""Run a command on several ranks: the processes that torchrun starts, which share each cell."""

import argparse
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from bench.config.suite import SuiteConfig
from bench.errors import UserError
from bench.files import console

if TYPE_CHECKING:
    from bench.executors.executor import ExecutorName

Value = TypeVar("Value")
KINDS = ("ddp", "fsdp")


@dataclass(frozen=True)
class Launch:
    """The environment that torchrun gives a process.

    Attributes:
        rank: number of this process.
        size: number of processes.
        local: number of this process on its machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def read(cls) -> "Launch":
        """Read the environment; one process without torchrun."""
        # Other launchers set some of these, so all are asked for.
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        if any(name not in os.environ for name in names):
            return cls()
        return cls(*(int(os.environ[name]) for name in names[:3]))

    @contextmanager
    def joined(self) -> Generator[None]:
        """Join the other ranks inside the block."""
        if self.size == 1:
            yield
            return
        import torch

        from bench.ranks import joined

        if count := torch.cuda.device_count():
            torch.cuda.set_device(self.local % count)
        with joined(self.rank, self.size):
            yield

    def console(self) -> Console:
        """Return the console of rank 0, and a silent console for the others."""
        return Console(quiet=True, force_terminal=False) if self.rank else console()

    def agreed(self, value: Value) -> Value:
        """Return rank 0's value, where ranks may have read the disk at different times."""
        if self.size == 1:
            return value
        from bench.ranks import from_first

        return from_first(value)

    def executor(
        self, name: "ExecutorName", workers: int | None
    ) -> tuple["ExecutorName", int | None]:
        """Return the executor and the number of workers: ranks share a cell in their own processes.

        Raises:
            UserError: ranks are asked for on a cluster's workers.
        """
        if self.size == 1:
            return name, workers
        if name != "local":
            raise UserError(
                f"--executor is {name!r}, and torchrun has started {self.size} ranks, which share "
                "each cell themselves. Leave out one of the two."
            )
        return name, 0

    def overrides(self, given: str | None, suite: SuiteConfig) -> dict[str, Any]:
        """Return the fields of the suite that this launch fixes.

        Args:
            given: value of `--parallel`, or None.
            suite: the suite without them.

        Raises:
            UserError: ranks are asked for without torchrun, or there are more of them than GPUs.
        """
        kind = given or suite.parallel
        if self.size == 1:
            if given or suite.ranks > 1:
                raise UserError(
                    f"{'--parallel' if given else 'ranks'} is {given or suite.ranks!r}, and this is"
                    " one process. Start it by torchrun --nproc-per-node N -m bench run ..."
                )
            return {"parallel": "none"} if kind != "none" else {}
        self._require_devices(suite)
        return {"parallel": "ddp" if kind == "none" else kind, "ranks": self.size}

    def _require_devices(self, suite: SuiteConfig) -> None:
        import torch

        from bench.ranks import all_agree

        count = torch.cuda.device_count()
        # Rank 0 alone prints errors, and it has a GPU if there is any.
        if suite.device == "cuda" and not all_agree(self.local < count):
            raise UserError(
                f"A machine has fewer GPUs than ranks; that of rank 0 has {count}, for {self.size} "
                "ranks in all. Start at most one rank per GPU: --nproc-per-node."
            )


def add_parallel(parser: argparse.ArgumentParser) -> None:
    """Declare `--parallel`."""
    parser.add_argument(
        "--parallel",
        choices=KINDS,
        help="under torchrun, share each cell among all ranks: a copy of the model on each, or "
        "shards of its weights (default: ddp)",
    )
