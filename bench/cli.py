"""Run the command line: `python -m bench run | list | plan | leaderboard | report | ...`.

Every error of a user ends in one line on stderr and exit code 2.
"""

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from bench import __version__
from bench.commands import COMMANDS
from bench.errors import UserError
from bench.files import drop_stdout, lenient_streams, why

SCRIPT = "token-routing-bench"
MODULE = "python -m bench"
INTERRUPTED = "interrupted; finished cells are kept, the same command resumes"
MACHINE = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE),
        *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)
"""Errors of the operating system that come from the machine; others may be our own bugs."""
NO_TEMPORARY = "No usable temporary directory"
"""Python says this, under the number of a missing file, if every disk is full."""


class _Parser(argparse.ArgumentParser):
    """Report argument errors in one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See `{self.prog} --help`.")

    # The base class declares overloads, which say the same of these two arguments.
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Refuse unknown arguments here. The parser of all commands would name its own help."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of a command line, with the arguments of its subcommand.

    Args:
        argv: the command line. Only the module of the command that it names is imported.
    """
    # Help and errors name the command as it was started.
    parser = _Parser(
        prog=SCRIPT if Path(sys.argv[0]).stem == SCRIPT else MODULE,
        description="Compare token routers in one decoder at one FLOPs budget.",
    )
    parser.add_argument("--version", action="version", version=f"{SCRIPT} {__version__}")
    subparsers = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", parser_class=_Parser
    )
    # The command is the first word, since all options before it are without a value.
    wanted = next((word for word in argv if not word.startswith("-")), "")
    if wanted in COMMANDS:
        module, _ = COMMANDS[wanted]
        importlib.import_module(f"bench.commands.{module}").add_parser(subparsers)
        return parser
    # Help and the error of an unknown command list all of them.
    for name, (_, help_line) in COMMANDS.items():
        subparsers.add_parser(name, help=help_line)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The codes are 0 for done, 1 if a check or a cell failed, 2 for bad input, 130 if interrupted.
    """
    lenient_streams()
    try:
        return _completed(argv)
    except UserError as error:
        from bench.commands.parallel import Launch

        # Of several ranks, which all find the same mistake, one reports it.
        if not Launch.read().rank:
            print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader went away, as `head` does, and that is no error.
        drop_stdout()
        return 0
    except OSError as error:
        if error.errno not in MACHINE and NO_TEMPORARY not in str(error):
            raise
        return _stopped_by(error)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130


def _completed(argv: Sequence[str] | None) -> int:
    """Run a command and flush its output. At exit, a missing reader would give code 120."""
    try:
        given = sys.argv[1:] if argv is None else argv
        arguments = build_parser(given).parse_args(given)
        code = arguments.run(arguments)
    except SystemExit:  # --help, --version
        print(end="", flush=True)
        raise
    print(end="", flush=True)
    return code


def _stopped_by(error: OSError) -> int:
    """Print the refusal of the machine in one line, on a stream that still takes it."""
    said = f"error: {why(error)}. Mend that and run the same command; finished cells are kept."
    with suppress(OSError):
        print(said, file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # stdout goes to the full disk: at exit it would fail again
        drop_stdout()
    return 2
