"""`bench plan`: what a run would do, without doing it.

Budget, solved sizes, cost of each router, training tokens.
"""

import argparse

from tabulate import tabulate

from bench.commands.options import Subparsers, add_assignments, add_suite, overrides
from bench.config.load import load_suite


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser(
        "plan", help="show budget and solved sizes without running", description=__doc__
    )
    add_suite(parser)
    add_assignments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a line a row."""
    from bench.data import load_corpus
    from bench.data.optimum import best_loss, best_loss_at, hard_share
    from bench.flops.budget import training_target
    from bench.model.assemble import assemble
    from bench.runner.cells import parse_rows, plan_cells
    from bench.runner.execute import blueprint

    suite = load_suite(arguments.suite, overrides(arguments), arguments.set)
    corpus = load_corpus(suite.data.at(0))
    table: list[tuple[object, ...]] = []
    target = dense = spend = 0.0
    for cell in plan_cells(
        suite, parse_rows(suite, arguments.routers, arguments.plugin), [0], arguments.plugin
    ):
        model = assemble(blueprint(cell, corpus), seed=0)
        solution = model.solution
        target, dense = solution.target, solution.dense
        a_token = training_target(
            model.decoder.config,
            suite.routed_layers,
            suite.seq_len,
            suite.budget,
            suite.regime == "controller",
        )
        spend = a_token * suite.train.reference_tokens
        total = sum(p.numel() for p in model.decoder.parameters())
        shape = (
            f"capacity {solution.capacity:.4f}"
            if solution.expert_width == 0
            else f"expert width {solution.expert_width}"
        )
        bracket = cell.row.role == "bracket"
        overhead = model.evaluation_ledger.routers / target
        layers = ", ".join(map(str, solution.layers))
        table.append(
            (
                cell.row.name,
                cell.row.role,
                layers,
                "-" if bracket else shape,
                f"{overhead:.2%}",
                f"{total:,}",
                "-" if bracket else f"{model.active_parameters():,.0f}",
            )
        )
    print(
        f"{suite.name}: B = {target:,.0f} FLOPs a token, {target / dense:.1%} of dense; training {spend:.3g} FLOPs"
    )
    if (task := suite.data.planted) is not None:
        least = best_loss_at(task, suite.budget, len(suite.routed_layers))
        print(
            f"planted task: {task.table_entries:,} facts, on which {hard_share(task):.1%} of the tokens rest"
        )
        print(
            f"best loss {best_loss(task):.4f} nats a token; {least:.4f} at this budget, {best_loss(task, 0.0):.4f} by guessing"
        )
    headers = ("row", "role", "layers", "solved", "router share of B", "parameters", "active")
    print(tabulate(table, headers=headers))
    return 0
