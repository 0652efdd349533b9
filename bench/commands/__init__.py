"""Hold one module per subcommand: `add_parser` declares its arguments, `run` does the work.

A command imports its own module alone, so that `--help` and small commands are fast.
"""

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "train routers and render the board"),
    "list": ("listing", "list routers, suites and studies"),
    "plan": ("plan", "show budget and solved sizes without running"),
    "check": ("check", "check that a router keeps the rules"),
    "leaderboard": ("leaderboard", "render leaderboard.md from records"),
    "report": ("report", "render report.html from records"),
    "study": ("study", "test claims: run a grid, judge it, write its page"),
    "power": ("power", "seeds still needed for each comparison"),
    "reproduce": ("reproduce", "run a row again from its records and compare"),
    "sample": ("sample", "continue a prompt with kept weights"),
    "speed": ("speed", "time rows against the dense model"),
}
"""Name of a subcommand -> its module, and its line in `--help`."""
