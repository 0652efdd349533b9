"""`bench plan`: show budget, solved sizes, costs and training FLOPs, without a run."""

import argparse
from typing import TYPE_CHECKING

from tabulate import tabulate

from bench.commands.options import (
    Subparsers,
    add_assignments,
    add_suite,
    add_workers,
    overrides,
)
from bench.commands.predict import predicted, rates_on
from bench.config.read_suite import load_suite
from bench.config.suite import SuiteConfig
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data import Corpus, DataConfig
    from bench.runner.cells import Cell


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("plan", description=__doc__)
    add_suite(parser)
    add_assignments(parser)
    add_workers(parser)
    parser.add_argument(
        "--device",
        dest="machine",
        help="device to predict for: cpu, or h100, a100, ... (default: the suite's, here)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a line per row and the cost of the grid. Return 1 if a row cannot be built."""
    from bench.data import check_windows
    from bench.executors.isolation import in_fresh_process
    from bench.planning.prediction import text_of
    from bench.runner.cells import plan_cells
    from bench.runner.controls import with_controls
    from bench.runner.plugins import plugin_files
    from bench.runner.preflight import check_suite
    from bench.runner.rows import parse_rows, unmet

    suite = load_suite(arguments.suite, overrides(arguments), arguments.set)
    check_suite(suite)
    # An unknown machine is found before a long text is read and rows are sized.
    rates = rates_on(arguments.machine, suite)
    plugins = plugin_files(suite, arguments.plugin)
    parsed = parse_rows(suite, arguments.routers, plugins)
    corpus = text_of(suite.data.at(0), said=lambda line: print(line, flush=True))
    print(f"{_card(corpus, suite.data)}\n")
    if len(corpus.train.tokens):
        check_windows(corpus, suite)
    reasons = unmet(suite, corpus, parsed)
    suite, parsed, said = with_controls(suite, parsed.without(reasons))
    planned = plan_cells(suite, parsed.rows, range(suite.seeds), plugins, parsed.outside)
    cells = [cell for cell in planned if (cell.seed, cell.replica) == (0, 0)]
    table: list[tuple[object, ...]] = []
    impossible: list[str] = []
    # One row that cannot be built does not hide the others.
    for cell in cells:
        try:
            table.append(in_fresh_process(size_of, cell) if cell.outside else size_of(cell))
        except UserError as error:
            impossible.append(f"impossible  {cell.row.name}: {error}")
    print("\n".join(_summary(suite, len(planned))))
    headers = ("row", "role", "layers", "solved", "router share of B", "parameters", "active")
    print(tabulate(table, headers=headers))
    skipped = [f"skipped  {name}: {reason}" for name, reason in reasons.items()]
    for line in (*skipped, *said, *impossible):
        print(line)
    print()
    print("\n".join(predicted(planned, rates, arguments.machine, arguments.workers)))
    return int(bool(impossible))


def _card(corpus: "Corpus", config: "DataConfig") -> str:
    """Return the card of a text, or a line if it is not read."""
    from bench.data import corpus_card

    if len(corpus.train.tokens):
        return corpus_card(corpus, config)
    return (
        f"{config.path}: the text is not read; a vocabulary of {corpus.vocab_size:,} ids and one "
        "domain are taken as declared"
    )


def size_of(cell: "Cell") -> tuple[object, ...]:
    """Build the model of a cell and return its line.

    Raises:
        UserError: no size of the router meets the budget, or its cost cannot be counted.
    """
    from bench.model.assemble import assemble
    from bench.planning.prediction import text_of
    from bench.runner.resolve import resolve

    # Sizes do not depend on the seed.
    model = assemble(resolve(cell, text_of(cell.data)).blueprint(), seed=0)
    solution, bracket = model.solution, cell.row.role == "bracket"
    solved = [f"expert width {solution.expert_width}"] * bool(solution.expert_width)
    if model.decoder.routers[-1].paths.base is not None:
        solved.append(f"capacity {solution.capacity:.4f}")
    return (
        cell.row.name,
        cell.row.role,
        ", ".join(map(str, solution.layers)),
        "-" if bracket else ", ".join(solved),
        f"{model.evaluation_ledger.routers / solution.target:.2%}",
        f"{sum(p.numel() for p in model.decoder.parameters()):,}",
        "-" if bracket else f"{model.active_parameters():,.0f}",
    )


def _summary(suite: SuiteConfig, num_cells: int) -> list[str]:
    """Return lines on the budget, on the cells, and on the planted task if the suite has one."""
    from bench.data.optimum import best_loss, best_loss_at, hard_share
    from bench.flops.budget import dense_costs
    from bench.planning.prediction import text_of
    from bench.runner.frozen import training_budget
    from bench.runner.resolve import decoder_of

    config = decoder_of(suite, text_of(suite.data.at(0)).vocab_size)
    # B lies between the costs of the dense and of the cheap model.
    costs = dense_costs(config, suite.routed_layers, suite.seq_len)
    target, training = costs.at(suite.budget), training_budget(suite, config)
    lines = [
        f"{suite.name}: B = {target:,.0f} FLOPs a token, {target / costs.full:.1%} of dense; "
        f"training {training:.3g} FLOPs",
        f"{num_cells} cells at {suite.seeds} seeds",
    ]
    if (task := suite.data.planted) is None:
        return lines
    least = best_loss_at(task, suite.budget, len(suite.routed_layers))
    return [
        *lines,
        f"planted task: {task.table_entries:,} facts, on which {hard_share(task):.1%} of the "
        "tokens rest",
        f"best loss {best_loss(task):.4f} nats a token; {least:.4f} at this budget, "
        f"{best_loss(task, 0.0):.4f} by guessing",
    ]
