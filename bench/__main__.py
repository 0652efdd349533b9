"""Start the command line: `python -m bench` and the script `token-routing-bench`."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

OURS = Path(__file__).resolve().parent


def start() -> int:
    """Run the command line and return its exit code.

    An interrupted run ends at once. Threads that wait for a killed process would hold up the exit,
    and a second interrupt would then show a traceback.
    """
    try:
        hear_terminations()
        from bench.cli import main

        code = main()
    except KeyboardInterrupt:  # while the bench is still being imported
        code = 130
    except ImportError as error:
        code = not_installed(error)
    if code == 130:
        # Leave at once: threads that wait for a killed process would hold up the exit.
        with suppress(OSError):  # the interrupt ended the reader too
            sys.stdout.flush()
        os._exit(code)
    return code


def hear_terminations() -> None:
    """Take SIGTERM for an interrupt, unless the caller ignores it.

    Python would end without a word, and leave its workers to find out.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)


def not_installed(error: ImportError) -> int:
    """Print one line if the bench runs where it was not installed. Other errors are bugs."""
    old = sys.version_info < (3, 11)
    lacking = (error.name or "bench").partition(".")[0]
    if not old and lacking in ("bench", "routers"):
        raise error
    what = "is older than 3.11" if old else f"lacks {lacking!r}, or has too old a one"
    remedy = "Use the Python in .venv, which `make test` makes, or run pip install -e '.[corpus]'"
    print(f"error: {sys.executable} {what}. {remedy} in {OURS.parent}.", file=sys.stderr)
    return 2


def pass_over_working_directory() -> None:
    """Import from where the script does, which does not search the working directory.

    `python -m` searches it first. A folder `bench` or `routers` there would hide ours.
    """
    with suppress(OSError):  # the directory is gone
        if Path.cwd() != OURS.parent and sys.path[:1] == [str(Path.cwd())]:
            del sys.path[0]
    found = getattr(sys.modules.get("bench"), "__path__", [])
    if OURS not in [Path(folder).resolve() for folder in found]:
        for name in [name for name in sys.modules if name.partition(".")[0] == "bench"]:
            del sys.modules[name]


if __name__ == "__main__":
    pass_over_working_directory()
    sys.exit(start())
