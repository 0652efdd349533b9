"""Show the cost of a grid of cells before it runs: for `bench plan` and `--dry-run`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.commands.official import OFFICIAL_ROOT, OWN_ROOT
from bench.commands.progress import in_words

if TYPE_CHECKING:
    from bench.runner.cells import Cell
    from bench.runner.prediction import Grid
    from bench.runner.rates import Measured, Rates

QUANTITIES = ("seconds", "memory")


def rates_here(device: str, dtype: str) -> "Rates":
    """Return the rates of a device of this machine, from your records and the official ones."""
    import torch

    from bench.runner.provenance import machine_of, processor
    from bench.runner.rates import rates_for, read_measured

    name = machine_of(torch.device(device), dtype)["device"]
    return rates_for(name, dtype, list(read_measured(OWN_ROOT, OFFICIAL_ROOT)), processor())


def ordered(cells: Sequence["Cell"], store: Path, workers: int) -> list["Cell"]:
    """Return the cells in the order in which they begin, by the records of their own store."""
    from bench.runner.prediction import longest_first, works_of
    from bench.runner.rates import Rates, read_measured

    # Assumed speeds do not change the order, so any device will do.
    suites = {cell.suite.name for cell in cells}
    rates = Rates([one for one in read_measured(store) if one.work.suite in suites])
    seconds = {digest: rates.seconds(work) for digest, work in works_of(cells).items()}
    return longest_first(cells, seconds, workers)


def dry_run(cells: Sequence["Cell"], store: Path, workers: int | None) -> list[str]:
    """Return a line for each cell, kept or to run, and the sum of a run that trains nothing."""
    from bench.runner.forecast import expect
    from bench.runner.prediction import Grid, works_of
    from bench.runner.slots import cores

    _, kept = expect(cells, store)
    missing = [cell for cell in cells if cell.digest not in kept]
    suite = cells[0].suite
    # Without a number, a GPU runs one cell and a processor one on each core.
    count = workers or (cores() if workers is None and suite.device == "cpu" else 1)
    works = works_of(missing, look_up_plugins=True)
    grid = Grid(missing, works, rates_here(suite.device, suite.dtype), count)
    lines: list[str] = []
    for cell in cells:
        status = "kept" if cell.digest in kept else "to run"
        seconds = grid.seconds.get(cell.digest)
        time = f"{in_words(seconds):>8}" if seconds is not None else ""
        lines.append(f"{status:8}{cell!s:32}{time}".rstrip())
    said = f"{len(cells)} cells: {len(kept)} kept, {len(missing)} to run"
    return [*lines, said, *grid_lines(grid)] if missing else [*lines, said]


def predicted(cells: Sequence["Cell"], machine: str | None, workers: int | None) -> list[str]:
    """Return lines on the cost of a grid, with the error of such predictions.

    Args:
        cells: all cells of the grid.
        machine: device to predict for; None for the suite's own device on this machine.
        workers: cells at once; None for the cores or the one GPU of this machine.

    Raises:
        UserError: nothing is known of the device.
    """
    from bench.runner.prediction import Grid, longest_first, works_of
    from bench.runner.provenance import processor
    from bench.runner.rates import rates_for, read_measured
    from bench.runner.slots import cores

    suite, measured = cells[0].suite, list(read_measured(OWN_ROOT, OFFICIAL_ROOT))
    if machine is None:
        rates = rates_here(suite.device, suite.dtype)
    else:
        rates = rates_for(machine, suite.dtype, measured, processor())
    # On a GPU one cell runs at a time, unless --workers says more.
    count = workers or (cores() if workers is None and suite.device == "cpu" else 1)
    # Sizes first: the time of a cell follows from its work and the rates.
    works = works_of(cells, look_up_plugins=True)
    seconds = {digest: rates.seconds(work) for digest, work in works.items()}
    grid = Grid(longest_first(cells, seconds, count), works, rates, count)
    return [*grid_lines(grid), *error_lines(rates.measured or measured)]


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


def error_lines(measured: Sequence["Measured"]) -> list[str]:
    """Return a line on the error of predictions for each suite and processor with records."""
    from bench.runner.rates import leave_one_out

    groups: dict[tuple[str, str], list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.work.suite, one.processor), []).append(one)
    lines: list[str] = []
    for (suite, processor), records in sorted(groups.items()):
        # Each row is predicted from all others, so this is the error for a new row.
        found = {quantity: leave_one_out(records, quantity) for quantity in QUANTITIES}
        said = [
            f"{quantity} {error.typical:.0%} (at most {error.largest:.0%}, {error.worst})"
            for quantity, error in found.items()
            if error is not None
        ]
        if said:
            lines.append(
                f"error     {suite} on {processor}, each row predicted from the "
                f"{len(records)} records without it: {', '.join(said)}"
            )
    return lines or ["error     unknown: no suite has records of enough rows"]


def _bytes(size: float) -> str:
    """Return a size in the unit that suits it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
