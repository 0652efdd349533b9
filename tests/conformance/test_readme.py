"""The documents name the checks that there are."""

import re
from pathlib import Path

from bench.conformance import CHECKS

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_table_of_checks_is_complete() -> None:
    table = re.findall(r"^\|.*\|$", (ROOT / "routers/README.md").read_text("utf-8"), re.MULTILINE)
    named = re.findall(r"[a-z0-9]+(?:_[a-z0-9]+)+|\bcausal\b|\bdeterministic\b", "\n".join(table))
    names = [check.name for check in CHECKS]
    assert sorted(name for name in named if name in names) == sorted(names)
    assert f"{len(CHECKS)} named checks" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")
