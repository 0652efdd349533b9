"""Start the command line: `python -m bench` and the script `token-routing-bench`."""

import os
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
        from bench.cli import main

        code = main()
    except KeyboardInterrupt:  # while the bench is still being imported
        code = 130
    if code == 130:
        # Leave at once: threads that wait for a killed process would hold up the exit.
        with suppress(OSError):  # the interrupt ended the reader too
            sys.stdout.flush()
        os._exit(code)
    return code


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
