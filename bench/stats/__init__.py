"""Judge a board: from losses by row and seed, and a plan declared before the run, to verdicts.

Input and output are plain data, without records and torch. `judge_board` is the entry point.
"""

from bench.stats.align import Losses
from bench.stats.bootstrap import DomainInterval, hierarchical_bootstrap
from bench.stats.comparisons import Comparison, Family, Plan, all_pairs
from bench.stats.noise import NoiseFloor, noise_floor
from bench.stats.outcome import Outcome, Verdict
from bench.stats.pilot import CellCost, Need, power
from bench.stats.ranks import Friedman, Rank
from bench.stats.sequential import Stage, stages
from bench.stats.verdict import Verdicts, judge_board

__all__ = [
    "CellCost",
    "Comparison",
    "DomainInterval",
    "Family",
    "Friedman",
    "Losses",
    "Need",
    "NoiseFloor",
    "Outcome",
    "Plan",
    "Rank",
    "Stage",
    "Verdict",
    "Verdicts",
    "all_pairs",
    "hierarchical_bootstrap",
    "judge_board",
    "noise_floor",
    "power",
    "stages",
]
