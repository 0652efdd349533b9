"""Jobs, the places of their records, and plugins that do harm."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.executors.pool import InProcess, Pool
from bench.record import store_path
from bench.routing.load_routers import find, load_file
from bench.runner.cells import Cell
from bench.runner.plugins import checks_path
from bench.runner.resolve import resolve
from bench.runner.resume_cell import CellResult, Job
from bench.runner.schedule import run_cells
from tests import world

PLUGINS = """
import os
import signal
from bench.routing import FFN_GATE, Router
from bench.routing.registry import register
from bench.routing.capacity import gate_plan


class Base(Router):
    paths = FFN_GATE

    def forward(self, inputs):
        if inputs.hidden.requires_grad and inputs.progress > 0:
            self.harm()
        return gate_plan(inputs.positions % 2 == 0, None)

    def harm(self):
        pass


@register("harmless", family="tests")
class Harmless(Base):
    pass


@register("killed", family="tests")
class Killed(Base):
    def harm(self):
        os.kill(os.getpid(), signal.SIGKILL)


@register("greedy", family="tests")
class Greedy(Base):
    def harm(self):
        raise MemoryError("tried to allocate\\n1 EiB")

"""


def from_plugin(text: Path, plugin: Path, *routers: str) -> list[Cell]:
    return [
        replace(world.cell(text, router), plugin_files=(plugin,), outside=True)
        for router in routers
    ]


def admit(root: Path, *cells: Cell) -> None:
    """Leave word that the checks of these plugins found nothing, so that they need not run."""
    for cell in cells:
        (file,) = cell.plugin_files
        load_file(file)
        path = checks_path(find(cell.row.router), cell.row.options, root)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[]", encoding="utf-8")


def job(root: Path, command: str = "c", **changes: Any) -> Job:
    return Job(root, root, command, **changes)


def place(cell: Cell, root: Path) -> Path:
    """Where the reference to the cell's record lies."""
    return resolve(cell).place(root)


def kept(cell: Cell, root: Path) -> Path:
    """Where the record itself lies."""
    return store_path(root, resolve(cell).key)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def run_here(
    cells: Sequence[Cell], job: Job, workers: int, *said: Any, **more: Any
) -> list[CellResult]:
    """Run cells on this machine, whatever its cores; `said` get results and starts."""
    with Pool(workers) if workers else InProcess() as executor:
        return run_cells(cells, job, executor, *said, **more)
