"""Arguments that several subcommands share."""

import argparse
import os
from pathlib import Path
from typing import Any, TypeAlias

from bench.commands.official import OFFICIAL_ROOT, OWN_ROOT
from bench.commands.places import place
from bench.config.suite import MOST_SEEDS
from bench.errors import UserError, shortened

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # pyright: ignore[reportPrivateUsage]


def add_suite(parser: argparse.ArgumentParser) -> None:
    """`--suite`, `--routers`, `--plugin`, `--budget`, `--match`."""
    parser.add_argument(
        "--suite", default="quick", help="name of a suite or a YAML file (default: quick)"
    )
    parser.add_argument(
        "--routers",
        default="all",
        help="comma-separated rows or routers, each with options if wanted, as "
        "mlp_gate:width_ratio=0.5; all = the suite's roster (default)",
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=place,
        metavar="FILE.py",
        help="also load routers from this file, or from each file of a folder",
    )
    parser.add_argument(
        "--budget",
        type=float,
        help="rho, the share of routed full-path cost that is paid for (default: the suite's)",
    )
    parser.add_argument(
        "--match",
        choices=("flops", "tokens"),
        help="train to equal FLOPs or to equal tokens (default: the suite's)",
    )


def add_assignments(parser: argparse.ArgumentParser) -> None:
    """`--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="replace a field of the suite, e.g. train.batch_size=8",
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    """`--results`, `--official`: which tree of records is read."""
    trees = parser.add_mutually_exclusive_group()
    trees.add_argument(
        "--results",
        type=place,
        default=OWN_ROOT,
        metavar="DIR",
        help="tree of records (default: runs)",
    )
    trees.add_argument(
        "--official",
        dest="results",
        action="store_const",
        const=OFFICIAL_ROOT,
        help="read the official records in results/",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """`--workers`."""
    parser.add_argument(
        "--workers",
        type=_workers,
        default=default_workers(),
        help="processes side by side, 0 for none (default: one a core)",
    )


def _workers(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"it is {text!r}; give 0 to run in this process, or a number of processes"
        )
    return int(text)


def natural(text: str) -> int:
    """A whole number of 0 or more, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"it is {text!r}; give a whole number, 0 or more")
    return int(text)


def seconds(text: str) -> float:
    """A time of 0 or more, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"it is {text!r}; give a number of seconds, 0 or more")
    return value


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of the suite that the command line replaces."""
    found = {
        name: getattr(arguments, name, None) for name in ("budget", "match", "device", "dtype")
    }
    return {name: value for name, value in found.items() if value is not None}


def parse_seeds(text: str) -> list[int]:
    """`3` means seeds 0, 1, 2; `0,2,5` means these, `7,` seed 7 alone.

    Raises:
        UserError: not numbers, negative, none, or more than anyone could run.
    """
    try:
        seeds = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        seeds = []
    if "," not in text and seeds:
        if seeds[0] > MOST_SEEDS:
            raise UserError(
                f"--seeds is {shortened(text)}: give at most {MOST_SEEDS}, or a comma after it for this seed alone."
            )
        seeds = list(range(seeds[0]))
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(
            f"--seeds is {text!r}: give a number of seeds above 0, or different seeds separated by commas."
        )
    return seeds


def default_workers() -> int:
    """Return one process per core that this process may use, and no more than its container's."""
    if count := getattr(os, "process_cpu_count", None):  # Python 3.13
        cores = count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, round(quota)))


def cpu_quota(cgroups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the cores' worth of time that a container may use; None without a limit.

    Args:
        cgroups: where the system shows them: `cpu.max` in version 2, two files in version 1.
    """
    try:
        limit, period = (cgroups / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        limit, period = (
            _word(cgroups / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")
        )
    try:
        return int(limit) / int(period) if int(limit) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return None


def _word(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
