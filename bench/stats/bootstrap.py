"""Compute intervals for the loss of each domain, over seeds and validation documents at once.

Every seed is evaluated on the same documents, so the two are crossed and not nested. Seeds and
documents are resampled independently, each document with all its seeds: the pigeonhole bootstrap
(Owen 2007, Annals of Applied Statistics 1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.errors import UserError
from bench.stats.paired import Floats

Documents = Mapping[int, Mapping[str, tuple[str, float, float]]]
"""Seed -> document -> (domain, nats, bytes)."""

MEASURED_COVERAGE = {2: 0.50, 3: 0.75, 5: 0.84, 10: 0.90, 20: 0.93}
"""Seeds -> simulated coverage of a nominal 95 % interval if seeds are the only noise."""


@dataclass(frozen=True)
class DomainInterval:
    """Loss of one domain, or difference of two rows there, nats per byte.

    Attributes:
        domain: name of the domain.
        mean: mean loss over the seeds; each is the nats over the bytes of all its documents.
        low: lower end of the percentile interval.
        high: upper end of the percentile interval.
        seeds: number of seeds. With one seed the interval is over documents alone.
        documents: number of documents.
        coverage: smallest coverage of such an interval in simulation (`MEASURED_COVERAGE`); NaN
            for one seed. State it wherever the interval is shown.
    """

    domain: str
    mean: float
    low: float
    high: float
    seeds: int
    documents: int
    coverage: float


def hierarchical_bootstrap(
    documents: Documents,
    against: Documents | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[DomainInterval, ...]:
    """Return percentile intervals of every domain, in order of name, deterministic in `seed`.

    Args:
        documents: documents of one row. Documents that some seed lacks are left out.
        against: documents of a second row, for intervals of the difference first - second at the
            common seeds.
        level: nominal coverage.
        resamples: number of bootstrap replicates.
        seed: seed of the resampling.

    Raises:
        UserError: no common seeds or documents.
    """
    seeds = sorted(documents.keys() & against.keys() if against is not None else documents.keys())
    rows = [documents] if against is None else [documents, against]
    by_domain = _common_documents(rows, seeds)
    rng = np.random.default_rng(seed)
    picked_seeds = _picks(rng, len(seeds), resamples) / len(seeds)
    ends = (1.0 - level) / 2.0, (1.0 + level) / 2.0
    intervals: list[DomainInterval] = []
    for domain, names in sorted(by_domain.items()):
        # Sizes of documents are the same for every seed; a difference takes the second row off.
        size = np.array([documents[seeds[0]][name][2] for name in names])
        nats = _nats(documents, seeds, names)
        if against is not None:
            nats = nats - _nats(against, seeds, names)
        picked = _picks(rng, len(names), resamples)
        # Nats over bytes of the picked documents, then the mean over the picked seeds.
        replicates = ((picked @ nats.T) * picked_seeds).sum(1) / (picked @ size)
        # The ends are percentiles of the replicates, for each domain alone.
        low, high = map(float, np.quantile(replicates, ends))
        mean = float(np.sum(nats) / len(seeds) / size.sum())
        counts = len(seeds), len(names)
        intervals.append(DomainInterval(domain, mean, low, high, *counts, _coverage(len(seeds))))
    return tuple(intervals)


def _picks(rng: np.random.Generator, count: int, resamples: int) -> Floats:
    """Draw `count` of `count` things with replacement: how often each, `[resample, thing]`."""
    return rng.multinomial(count, np.full(count, 1.0 / count), size=resamples).astype(np.float64)


def _common_documents(rows: list[Documents], seeds: list[int]) -> dict[str, list[str]]:
    """Return domain -> the documents that all rows have at all seeds.

    Raises:
        UserError: no seeds or documents.
    """
    common = set[str]()
    if seeds:
        common = set[str].intersection(*(set(row[seed]) for row in rows for seed in seeds))
    if not common:
        raise UserError(
            f"{len(seeds)} common seeds share {len(common)} documents; a bootstrap needs one of "
            "each at least. Evaluate on the same split."
        )
    by_domain: dict[str, list[str]] = {}
    for name in sorted(common):
        by_domain.setdefault(rows[0][seeds[0]][name][0], []).append(name)
    return by_domain


def _nats(row: Documents, seeds: list[int], names: list[str]) -> Floats:
    """Return the nats of each document, `[seed, document]`."""
    return np.array([[row[seed][name][1] for name in names] for seed in seeds])


def _coverage(seeds: int) -> float:
    # Take the next smaller number of seeds that was simulated.
    known = [n for n in MEASURED_COVERAGE if n <= seeds]
    return MEASURED_COVERAGE[max(known)] if known else math.nan
