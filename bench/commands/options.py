"""Declare and parse the arguments that several subcommands share."""

# pyright: reportPrivateUsage=false
import argparse
from typing import Any, TypeAlias

from bench.commands.official import OFFICIAL_ROOT, OWN_ROOT
from bench.commands.places import place
from bench.errors import UserError, shortened
from bench.executors.executor import EXECUTORS

# argparse has no public name for the type that `add_subparsers` returns.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_suite(parser: argparse.ArgumentParser) -> None:
    """Declare `--suite`, `--routers`, `--plugin`, `--budget` and `--match`."""
    parser.add_argument(
        "--suite", default="quick", help="name of a suite or a YAML file (default: quick)"
    )
    parser.add_argument(
        "--routers",
        default="all",
        help="comma-separated rows or routers, each with options if wanted, as "
        "mlp_gate:width_ratio=0.5; all = the suite's roster (default), also beside others",
    )
    add_plugin(parser)
    parser.add_argument(
        "--budget",
        type=float,
        help="rho, the share of the routed full-path cost to pay for (default: the suite's)",
    )
    parser.add_argument(
        "--match",
        choices=("flops", "tokens"),
        help="train rows for equal FLOPs or on equal tokens (default: the suite's)",
    )


def add_records(parser: argparse.ArgumentParser) -> None:
    """Declare the options that name one row's records: `--budget`, `--match`, tree, `--plugin`."""
    parser.add_argument("--budget", type=float, help="rho of the records, if there are several")
    parser.add_argument(
        "--match", choices=("flops", "tokens"), help="match of the records, if there are both"
    )
    add_results(parser)
    add_plugin(parser)


def add_plugin(parser: argparse.ArgumentParser) -> None:
    """Declare `--plugin`."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=place,
        metavar="FILE.py",
        help="also load routers from this file, or from each file of a folder",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Declare `--device` and `--dtype`."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the suite's)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "auto"),
        help="precision of matrix products; auto takes bfloat16 where the device has instructions "
        "for it (default: the suite's)",
    )


def add_assignments(parser: argparse.ArgumentParser) -> None:
    """Declare `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="replace a field of the suite, e.g. train.batch_size=8",
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    """Declare `--results` and `--official`, which choose the tree of records to read."""
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
    """Declare `--workers`."""
    parser.add_argument(
        "--workers",
        type=_workers,
        help="cells at once, or 0 to run in this process (default: one per core, or per GPU)",
    )


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Declare `--workers`, `--executor` and `--cluster`."""
    add_workers(parser)
    parser.add_argument(
        "--executor",
        choices=EXECUTORS,
        default=EXECUTORS[0],
        help="run cells on this machine, on a Ray cluster, or as Slurm jobs (default: local)",
    )
    parser.add_argument(
        "--cluster",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field for ray.init or for submitit, e.g. slurm_partition=gpu",
    )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Declare `--dry-run`."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing; list the cells, kept or to run, with minutes, memory and disk",
    )


def cluster_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `--cluster`, with values as YAML reads them.

    Raises:
        UserError: a field without a value.
    """
    from bench.config.read_yaml import read_value

    found: dict[str, Any] = {}
    for text in arguments.cluster:
        name, sign, _ = text.partition("=")
        if not (name and sign):
            raise UserError(f"--cluster is {text!r}; give FIELD=VALUE, as slurm_partition=gpu.")
        found[name] = read_value(text, "--cluster")
    return found


def _workers(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"it is {text!r}; give 0 to run in this process, or a number of processes"
        )
    return int(text)


def natural(text: str) -> int:
    """Parse a whole number of 0 or more, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"it is {text!r}; give a whole number, 0 or more")
    return int(text)


def amount(text: str, kind: str = "number") -> float:
    """Parse a number of 0 or more, for argparse. `kind` names it in the message."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"it is {text!r}; give a {kind}, 0 or more")
    return value


def seconds(text: str) -> float:
    """Parse a time of 0 or more, for argparse."""
    return amount(text, "number of seconds")


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the suite that the command line replaces."""
    # Subcommands declare only some of these; a value of None leaves the suite's own.
    found = {
        name: getattr(arguments, name, None)
        for name in ("budget", "match", "device", "dtype", "backbone")
    }
    given = {name: value for name, value in found.items() if value is not None}
    for assignment in getattr(arguments, "set", ()):
        # The field would be set twice, and the option would lose.
        if (name := assignment.partition("=")[0]) in given:
            raise UserError(
                f"--{name} is {given[name]!r}, and --set {shortened(assignment)} assigns the same "
                "field. Give one of them."
            )
    return given


def parse_seeds(text: str) -> list[int]:
    """Parse seeds: `3` means seeds 0, 1, 2; `0,2,5` means these; `7,` means seed 7 alone.

    Raises:
        UserError: no seeds, or seeds that are no numbers, negative, repeated or too many.
    """
    from bench.config.suite import MOST_SEEDS

    try:
        seeds = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        seeds = []
    # A single number without a comma is a count, which may be absurdly large.
    if "," not in text and seeds:
        if seeds[0] > MOST_SEEDS:
            raise UserError(
                f"--seeds is {shortened(text)}: give at most {MOST_SEEDS}, or a comma after it for "
                "this seed alone."
            )
        seeds = list(range(seeds[0]))
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(
            f"--seeds is {text!r}: give a number of seeds above 0, or different seeds separated by "
            "commas."
        )
    return seeds


def name_of_suite(text: str) -> str:
    """Return the name of a suite that is given by name or by its YAML file, for its records.

    Raises:
        UserError: the file is missing, or is no suite.
    """
    from bench.config.read_suite import load_suite

    return load_suite(text).name if text.endswith((".yaml", ".yml")) else text
