"""Hold one module per subcommand: `add_parser` declares its arguments, `run` does the work.

Heavy imports stay inside `run`, so that `--help` is fast.
"""

from bench.commands import (
    check,
    leaderboard,
    listing,
    plan,
    power,
    report,
    reproduce,
    run,
    sample,
    speed,
    study,
)

ALL = (run, listing, plan, check, leaderboard, report, study, power, reproduce, sample, speed)
