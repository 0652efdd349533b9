"""Start the command line: `python -m bench`."""

import os
import sys

if __name__ == "__main__":
    try:
        from bench.cli import main

        code = main()
    except KeyboardInterrupt:  # while the bench is still being imported
        code = 130
    if code == 130:
        # Leave at once: threads that wait for a killed process would hold up the exit.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)
