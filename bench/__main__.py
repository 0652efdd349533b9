"""`python -m bench` and the script `token-routing-bench`."""

import os
import sys
from contextlib import suppress


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
        with suppress(OSError):  # the interrupt ended the reader too
            sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(start())
