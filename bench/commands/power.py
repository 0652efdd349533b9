"""`bench power`: show detectable differences, the seeds still needed, and their cost."""

import argparse
from math import isfinite
from typing import TYPE_CHECKING, Literal

from tabulate import tabulate

from bench.commands.options import Subparsers, add_results, name_of_suite
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.board import Board
    from bench.stats import CellCost, Need, Plan

Effect = float | Literal["margin", "observed"]


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("power", description=__doc__)
    parser.add_argument("--suite", help="only this suite, by name or YAML file (default: all)")
    add_results(parser)
    parser.add_argument(
        "--effect",
        default="margin",
        help="difference to find: margin (default), observed, or nats per byte",
    )
    parser.add_argument("--power", type=float, default=0.8, help="wanted power (default: 0.8)")
    parser.add_argument(
        "--all-pairs", action="store_true", help="also the secondary family, every pair of rows"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a line per comparison, and the stages in which seeds may be added."""
    from bench.board import build_board

    effect = _effect(arguments.effect)
    suite = arguments.suite and name_of_suite(arguments.suite)
    boards = build_board(arguments.results, suite)
    # One board of a single row does not hide the others.
    alone = [
        f"The board {board.title!r} has fewer than two ranked rows: there is nothing to compare. "
        "Run more routers."
        for board in boards
        if not _comparable(board)
    ]
    if len(alone) == len(boards):
        raise UserError(" ".join(alone))
    for board in filter(_comparable, boards):
        _print_needs(board, effect, arguments)
    for line in alone:
        print(line)
    return 0


def _comparable(board: "Board") -> bool:
    return board.judgement.plan is not None and len(board.ranked) > 1


def _print_needs(board: "Board", effect: Effect, arguments: argparse.Namespace) -> None:
    """Print the table of one board, and the levels of its looks."""
    from bench.stats import power

    plan = board.judgement.plan
    assert plan is not None
    # Brackets and informed rows are not ranked, so they need no further seeds.
    losses = {row.name: row.losses for row in board.ranked}
    needs = power(losses, plan, _costs(board), effect, arguments.power)
    shown = [need for need in needs if arguments.all_pairs or need.family == "primary"]
    print(
        f"{board.title}: power {arguments.power:g}, family-wise level {plan.alpha:g}, "
        f"{len(board.seeds)} seeds"
    )
    headers = (
        "row",
        "against",
        "SD",
        "detectable",
        "to find",
        "seeds",
        "up to",
        "missing",
        "FLOPs",
        "hours",
    )
    print(
        tabulate(
            [_line(need) for need in shown],
            headers=headers,
            floatfmt=".4f",
            disable_numparse=[8, 9],
        )
    )
    _print_looks(plan, len(board.seeds))


def _print_looks(plan: "Plan", num_seeds: int) -> None:
    """Print the level of each look, declared or suggested."""
    from bench.stats import stages

    # Without declared looks, suggest the present number of seeds and twice as many.
    looks = plan.looks or (num_seeds, 2 * num_seeds)
    levels = ", ".join(
        f"{stage.seeds} seeds at {stage.level:.4f}" for stage in stages(looks, plan.alpha)
    )
    print(
        "Columns are for one look at the full level; a board at an early look, whose level is "
        "lower, finds larger differences only."
    )
    print(
        "Seeds beyond those declared count only in declared looks; comparison.looks: "
        f"{list(looks)} would test at {levels}."
    )


def _effect(text: str) -> Effect:
    # Two words name differences that the board knows.
    if text == "margin":
        return "margin"
    if text == "observed":
        return "observed"
    try:
        return float(text)
    except ValueError:
        raise UserError(
            f"--effect is {text!r}: give margin, observed, or a number of nats a byte."
        ) from None


def _costs(board: "Board") -> "dict[str, CellCost]":
    """Return the mean training FLOPs and hours of one seed of each row, with all router seeds."""
    from bench.stats import CellCost

    found: dict[str, CellCost] = {}
    for row in board.ranked:
        flops = row.mean(lambda record: record.flops.training_total if record.flops else None)
        seconds = row.mean(lambda record: record.training.seconds if record.training else None)
        if flops is not None and seconds is not None:
            # Each router seed is a cell of its own.
            cells = len(row.router_seeds)
            found[row.name] = CellCost(cells * flops, cells * seconds / 3600)
    return found


def _line(need: "Need") -> tuple[object, ...]:
    flops = "-" if need.flops is None else f"{need.flops:.3g}"
    hours = "-" if need.hours is None else f"{need.hours:.2f}"
    return (
        need.row,
        need.control,
        *(number if isfinite(number) else "-" for number in (need.sd, need.detectable)),
        need.effect,
        need.say(need.seeds),
        need.say(need.seeds_upper),
        need.missing,
        flops,
        hours,
    )
