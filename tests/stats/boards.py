"""Made boards of losses, with the plan that compares every row."""

from typing import Any

import numpy as np

from bench.stats import Comparison, Plan, Verdicts, all_pairs

CONTROLS = ("random", "dense_matched")


def board(
    rows: int, seeds: int, sd: float = 0.01, shift: float = 0.0, stream: int = 0
) -> dict[str, dict[int, float]]:
    """Two controls and routers; `shift` moves every second router.

    Seeds share an effect five times the noise.
    """
    rng = np.random.default_rng(stream)
    names = [*CONTROLS, *(f"router{i}" for i in range(rows - 2))]
    common = rng.normal(2.0, 5 * sd, seeds)
    return {
        n: {
            s: float(common[s] + rng.normal(0, sd) + shift * (i >= 2 and i % 2 == 0))
            for s in range(seeds)
        }
        for i, n in enumerate(names)
    }


def plan_of(losses: dict[str, dict[int, float]], **options: Any) -> Plan:
    rows = list(losses)
    primary = tuple(Comparison(row, control) for row in rows[2:] for control in CONTROLS)
    chosen: dict[str, Any] = {"comparisons": primary + all_pairs(rows), "margin": 0.01} | options
    return Plan(**chosen)


def verdicts_of(found: Verdicts, family: str = "primary") -> dict[tuple[str, str], str]:
    return {(o.row, o.control): o.verdict for o in found.outcomes if o.family == family}
