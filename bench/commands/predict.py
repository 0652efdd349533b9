"""Show the cost of a grid of cells before it runs: for `bench plan` and `--dry-run`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.commands.official import OFFICIAL_ROOT, OWN_ROOT
from bench.commands.progress import in_words
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.config.suite import SuiteConfig
    from bench.planning.prediction import Grid
    from bench.planning.rates import Measured, Rates
    from bench.runner.cells import Cell

QUANTITIES = {"seconds": "training seconds", "memory": "memory"}


def rates_here(device: str, dtype: str) -> "Rates":
    """Return the rates of a device of this machine, from your records and the official ones."""
    import torch

    from bench.runner.provenance import machine_of

    return _rates(machine_of(torch.device(device), dtype)["device"], dtype)


def rates_on(machine: str | None, suite: "SuiteConfig") -> "Rates":
    """Return the rates of a machine: of this one if it is None.

    Raises:
        UserError: nothing is known of the machine.
    """
    if machine is None:
        return rates_here(suite.device, suite.dtype)
    return _rates(machine, suite.dtype)


def _rates(name: str, dtype: str) -> "Rates":
    from bench.planning.rates import rates_for, read_measured
    from bench.runner.provenance import processor

    return rates_for(name, dtype, read_measured(OWN_ROOT, OFFICIAL_ROOT), processor())


def ordered(cells: Sequence["Cell"], store: Path, workers: int) -> list["Cell"]:
    """Return the cells in the order in which they begin, by the records of their own store."""
    from bench.planning.prediction import longest_first, works_of
    from bench.planning.rates import Rates, read_measured

    # Assumed speeds do not change the order, so any device will do.
    suites = {cell.suite.name for cell in cells}
    rates = Rates([one for one in read_measured(store) if one.work.suite in suites])
    seconds = {digest: rates.seconds(work) for digest, work in works_of(cells).items()}
    return longest_first(cells, seconds, workers)


def dry_run(
    cells: Sequence["Cell"], store: Path, workers: int, keep_weights: bool = False
) -> list[str]:
    """Return a line for each cell, kept or to run, and the sum of a run that trains nothing.

    Args:
        cells: all cells, in the order in which they begin.
        store: tree whose store holds the records.
        workers: workers of the run's executor; 0 counts as one.
        keep_weights: whether the run keeps weights. A cell with a record and no weights is to run.
    """
    from bench.planning.forecast import expect
    from bench.planning.prediction import Grid, works_of

    _, kept = expect(cells, store, keep_weights)
    missing = [cell for cell in cells if cell.digest not in kept]
    suite = cells[0].suite
    works = works_of(missing, look_up_plugins=True)
    rates = rates_here(suite.device, suite.dtype)
    grid = Grid(missing, works, rates, max(1, workers), keep_weights)
    lines: list[str] = []
    # A run reports the cells with a record first.
    for cell in [*(cell for cell in cells if cell.digest in kept), *missing]:
        status = "kept" if cell.digest in kept else "to run"
        seconds = grid.seconds.get(cell.digest)
        time = f"{in_words(seconds):>8}" if seconds is not None else ""
        lines.append(f"{status:8}{cell!s:32}{time}".rstrip())
    said = f"{len(cells)} cells: {len(kept)} kept, {len(missing)} to run"
    return [*lines, said, *grid_lines(grid)] if missing else [*lines, said]


def predicted(
    cells: Sequence["Cell"], rates: "Rates", machine: str | None, workers: int | None
) -> list[str]:
    """Return lines on the cost of a grid, with the error of such predictions.

    Args:
        cells: all cells of the grid.
        rates: of the machine.
        machine: device to predict for; None for the suite's own device on this machine.
        workers: cells at once. None: all cores or GPUs of this machine, and 1 for another machine.
    """
    from bench.planning.prediction import Grid, longest_first, works_of
    from bench.planning.rates import read_measured

    suite = cells[0].suite
    count = _cells_at_once(machine or suite.device, workers)
    # Sizes first: the time of a cell follows from its work and the rates.
    works = works_of(cells, look_up_plugins=True)
    seconds = {digest: rates.seconds(work) for digest, work in works.items()}
    grid = Grid(longest_first(cells, seconds, count), works, rates, count)
    if rates.measured:
        return [*grid_lines(grid), *error_lines(rates.measured)]
    # The records of other devices show how well rates fit, and no more.
    device = f"{machine or suite.device} in {suite.dtype}"
    note = f"; there are no records of {device}, so its error is unknown"
    measured = list(read_measured(OWN_ROOT, OFFICIAL_ROOT))
    return [*grid_lines(grid), *error_lines(measured, note)]


def _cells_at_once(device: str, workers: int | None) -> int:
    """Return `workers`, or without it the number that the executor of a run would choose."""
    from bench.commands.official import DEVICES
    from bench.executors.pool import local_executor

    if workers is not None:
        return max(1, workers)
    # A device of the table of peaks is elsewhere, and a plan knows no number of them.
    if device.partition(":")[0] not in DEVICES:
        return 1
    try:
        with local_executor(None, device) as executor:
            return executor.workers
    except UserError:  # a plan for a GPU needs none
        return 1


def grid_lines(grid: "Grid") -> list[str]:
    """Return lines with the FLOPs, time, memory and disk of a grid."""
    backbones = len(grid.backbones)
    pretraining = (
        f", and {grid.pretraining:.3g} for {backbones} frozen backbones" if backbones else ""
    )
    longest = in_words(grid.longest * 3600)
    # At equal FLOPs they are part of the budget.
    in_tokens = any(cell.suite.match == "tokens" for cell in grid.cells)
    labels = "; labels and auxiliary losses come on top" if in_tokens else ""
    return [
        f"time      about {in_words(grid.hours * 3600)} for {grid.workers} at once; "
        f"the longest cell {longest} ({grid.rates.basis})",
        f"training  {grid.flops:.3g} FLOPs{pretraining}{labels}",
        f"memory    about {_bytes(grid.memory)} for the largest cell",
        f"disk      at most {_bytes(grid.disk)}, with the checkpoints of running cells",
    ]


def error_lines(measured: Sequence["Measured"], note: str = "") -> list[str]:
    """Return a line on the error of predictions for each suite and processor with records.

    Args:
        measured: the records.
        note: end of each line.
    """
    from bench.planning.prediction_error import leave_one_out

    groups: dict[tuple[str, str], list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.work.suite, one.processor), []).append(one)
    lines: list[str] = []
    for (suite, processor), records in sorted(groups.items()):
        # Each row is predicted from all others, so this is the error for a new row.
        found = {label: leave_one_out(records, name) for name, label in QUANTITIES.items()}
        said = [
            f"{quantity} {error.typical:.0%} (at most {error.largest:.0%}, {error.worst})"
            for quantity, error in found.items()
            if error is not None
        ]
        if said:
            lines.append(
                f"error     {suite} on {processor}, each row predicted from the "
                f"{len(records)} records without it: {', '.join(said)}{note}"
            )
    return lines or ["error     unknown: no suite has records of enough rows"]


def _bytes(size: float) -> str:
    """Return a size in the unit that suits it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
