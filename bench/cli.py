"""The command line: `python -m bench run | list | plan | leaderboard | report | ...`.

Anything a user can mend ends in one line on stderr and exit code 2.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from bench import commands
from bench.errors import UserError


class _Parser(argparse.ArgumentParser):
    """Argument errors follow the rule of one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See `{self.prog} --help`.")


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand; each module of `bench.commands` adds its own."""
    parser = _Parser(
        prog="python -m bench",
        description="Compare token routers in one decoder at one FLOPs budget.",
    )
    subparsers = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", parser_class=_Parser
    )
    for command in commands.ALL:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done, 1 a check or a cell failed, 2 bad input, 130 interrupted.
    """
    try:
        arguments = build_parser().parse_args(argv)
        return arguments.run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("interrupted; finished cells are kept, the same command resumes", file=sys.stderr)
        return 130
