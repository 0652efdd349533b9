"""Compare two rows of a board that the suite does not declare as a comparison.

    python benchmarks/pair.py results quick hash dense_memory

The difference is row minus other row, in bits per byte. The first interval and the verdict hold for
all pairs of the board together, like the tiers. The second interval is for this pair alone.
"""

import math
import sys
from pathlib import Path

from bench.board import build_board
from bench.stats import Outcome, judge_board


def compare(root: Path, suite: str, row: str, other: str) -> Outcome:
    """Return the outcome of a pair, from the family of all pairs; its first row may be `other`."""
    (board,) = build_board(root, suite)
    plan = board.judgement.plan
    assert plan is not None
    verdicts = judge_board({each.name: each.losses for each in board.ranked}, plan)
    found = verdicts.find(row, other, "secondary") or verdicts.find(other, row, "secondary")
    assert found is not None, f"{row} or {other} is no ranked row of {suite}"
    return found


def main() -> None:
    """Print difference, intervals, verdict and p of one pair."""
    found = compare(Path(sys.argv[1]), *sys.argv[2:5])
    # Nats to bits; the sign turns if the pair is stored the other way round.
    scale = (1 if found.row == sys.argv[3] else -1) / math.log(2)
    print(f"{sys.argv[3]} - {sys.argv[4]}: {scale * found.difference:+.4f}, {found.n} seeds")
    for name, interval in (("all pairs", found.interval), ("alone", found.plain_interval)):
        low, high = sorted(scale * end for end in interval)
        print(f"  95 % interval, {name}: [{low:+.4f}, {high:+.4f}]")
    print(f"  verdict: {found.verdict}, winner {found.winner}, p {found.p_adjusted:.3f}")


if __name__ == "__main__":
    main()
