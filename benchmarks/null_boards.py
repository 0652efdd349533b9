"""Simulated boards: does the rule for verdicts keep its level, and which differences does it find?

    python benchmarks/null_boards.py [--boards 10000] [--rows 13]
    [levels|alternatives|power|coverage|looks|bootstrap ...]

Each board has two controls and `rows - 2` routers, compared as the suites compare them: every
router against both controls (primary) and all pairs (secondary). docs/decisions has the figures.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from bench.stats.bootstrap import hierarchical_bootstrap
from bench.stats.comparisons import PRIMARY_SHARE, Family
from bench.stats.families import compare_board, compare_family, holm
from bench.stats.moderation import ModeratedTests, Prior, fit_prior, row_variances
from bench.stats.paired import Floats, PairedTests, Pairs, paired_t
from bench.stats.sequential import family_level

ALPHA = 0.05
LEVELS: dict[Family, float] = {
    "primary": ALPHA * PRIMARY_SHARE,
    "secondary": ALPHA * (1.0 - PRIMARY_SHARE),
}
MARGIN = 1.0
Noise = Callable[[np.random.Generator, tuple[int, int, int]], Floats]


def normal(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    return rng.standard_normal(shape)


def heavy(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    return rng.standard_t(3, shape) / np.sqrt(3.0)


def skewed(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    return rng.exponential(1.0, shape) - 1.0


def lognormal(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    return np.exp(rng.standard_normal(shape)) - np.exp(0.5)


def spread(noise: Noise) -> Noise:
    """SDs of the rows scattered log-normally by 0.7.

    A factor of 4 between the middle two thirds.
    """
    return lambda rng, shape: noise(rng, shape) * np.exp(0.7 * rng.standard_normal((*shape[:2], 1)))


def loud(noise: Noise, rows: slice, factor: float = 5.0) -> Noise:
    """Some rows `factor` times noisier; row 0 is a control, the last is a router."""

    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
        values = noise(rng, shape)
        values[:, rows] *= factor
        return values

    return draw


def clusters(noise: Noise, count: int) -> Noise:
    """Rows in `count` clusters that move together over seeds, correlation 0.92 within.

    Far fewer rows than there seem.
    """

    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
        shared = noise(rng, (shape[0], count, shape[2]))
        return 0.3 * noise(rng, shape) + shared[:, np.arange(shape[1]) % count]

    return draw


def slopes(noise: Noise) -> Noise:
    """Hard seeds are harder for some rows: each loads differently on the seed's difficulty."""

    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
        return noise(rng, shape) + 3.0 * rng.standard_normal((shape[0], 1, shape[2])) * rng.uniform(
            0.5, 1.5, (*shape[:2], 1)
        )

    return draw


REGIMES: dict[str, Noise] = {
    "normal": normal,
    "unequal variances": spread(normal),
    "two variances (1, 16)": loud(normal, slice(None, None, 2), 4.0),
    "one loud control": loud(normal, slice(0, 1)),
    "one loud router": loud(normal, slice(-1, None)),
    "t3": heavy,
    "t3, unequal variances": spread(heavy),
    "t3, one loud control": loud(heavy, slice(0, 1)),
    "2 clusters": clusters(normal, 2),
    "3 clusters": clusters(normal, 3),
    "4 clusters": clusters(normal, 4),
    "3 clusters, t3": clusters(heavy, 3),
    "2 clusters, one loud router": loud(clusters(normal, 2), slice(-1, None)),
    "unequal slopes": slopes(normal),
    "exponential": skewed,
}

BEYOND: dict[str, Noise] = {
    "exponential, unequal variances": spread(skewed),
    "log-normal, unequal variances": spread(lognormal),
}
"""Noise under which a difference of two rows is skewed, as no t or sign-flip test allows for."""


def design(rows: int) -> dict[Family, Pairs]:
    """Pairs of a board: routers against both controls and the controls against each other.

    All pairs.
    """
    primary = [(row, control) for row in range(2, rows) for control in (0, 1)] + [(1, 0)]
    return {"primary": np.array(primary), "secondary": np.array(list(combinations(range(rows), 2)))}


def batches(noise: Noise, boards: int, rows: int, seeds: int, stream: int) -> Iterator[Floats]:
    """Null boards `[board, row, seed]` with a seed effect of three SDs, a thousand at a time."""
    rng = np.random.default_rng([stream, rows, seeds])
    for start in range(0, boards, 1000):
        count = min(1000, boards - start)
        yield noise(rng, (count, rows, seeds)) + 3.0 * rng.standard_normal((count, 1, seeds))


def false_claims(noise: Noise, boards: int, rows: int, seeds: int, stream: int = 0) -> float:
    """Share of null boards on which any comparison of either family is called different."""
    wrong = 0
    for values in batches(noise, boards, rows, seeds, stream):
        tests = compare_board(values, design(rows))
        found = np.stack(
            [(tests[family].p_difference <= level).any(-1) for family, level in LEVELS.items()]
        )
        wrong += int(found.any(0).sum())
    return wrong / boards


def show(title: str, columns: Sequence[str], body: Iterable[tuple[str, Iterable[float]]]) -> None:
    """Print a markdown table of percentages, a row at a time."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, shares in body:
        print(f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |", flush=True)


def show_levels(boards: int, rows: int) -> None:
    regimes = enumerate((REGIMES | BEYOND).items())
    body = (
        (name, (false_claims(noise, boards, rows, n, k) for n in (3, 5, 10)))
        for k, (name, noise) in regimes
    )
    show(
        f"Boards with any false difference, {rows} rows, % of {boards} null boards",
        ("noise", "n = 3", "5", "10"),
        body,
    )


def _plain(values: Floats, pairs: Pairs, level: float) -> Floats:
    tests = paired_t(values[:, pairs[:, 0]] - values[:, pairs[:, 1]])
    return holm(tests.p).min(-1) <= level


def _by_variance(tests: PairedTests, variance: Floats, df: Floats) -> Floats:
    """Two-sided p values with another variance in the place of the differences' own."""
    none = Prior(np.zeros(1), np.full(1, np.nan))
    other = ModeratedTests(tests.n, tests.mean, variance, df, np.zeros_like(df), none)
    return other.outside(0.0, 0.0)


def _limma(values: Floats, pairs: Pairs, level: float) -> Floats:
    tests = paired_t(values[:, pairs[:, 0]] - values[:, pairs[:, 1]])
    df, prior = tests.n - 1.0, fit_prior(tests.variance, tests.n - 1.0)
    weight = np.minimum(prior.df, 1e6)[:, None]
    variance = (weight * prior.variance[:, None] + df * tests.variance) / (weight + df)
    total = np.minimum(weight + df, df.sum(-1, keepdims=True))
    return holm(_by_variance(tests, variance, total)).min(-1) <= level


def _pooled(values: Floats, pairs: Pairs, level: float) -> Floats:
    tests = paired_t(values[:, pairs[:, 0]] - values[:, pairs[:, 1]])
    variance, df = row_variances(values)
    pooled = np.broadcast_to(2.0 * variance.mean(-1, keepdims=True), tests.mean.shape)
    freedom = np.full(tests.mean.shape, df[0, 0] * (values.shape[1] - 1))
    return holm(_by_variance(tests, pooled, freedom)).min(-1) <= level


def _one_test(values: Floats, pairs: Pairs, level: float) -> Floats:
    rows = fit_prior(*row_variances(values))
    return holm(compare_family(values, pairs, rows).moderated.outside(0.0, 0.0)).min(-1) <= level


def _rule(values: Floats, pairs: Pairs, level: float) -> Floats:
    rows = fit_prior(*row_variances(values))
    return compare_family(values, pairs, rows).p_difference.min(-1) <= level


RULES: dict[str, Callable[[Floats, Pairs, float], Floats]] = {
    "plain t": _plain,
    "pooled": _pooled,
    "limma": _limma,
    "moderated here, alone": _one_test,
    "the rule": _rule,
}


def _wrong_by_rule(noise: Noise, boards: int, rows: int, stream: int) -> Iterator[float]:
    pairs = design(rows)["primary"]
    for decide in RULES.values():
        yield (
            sum(
                int(decide(values, pairs, ALPHA).sum())
                for values in batches(noise, boards, rows, 3, stream)
            )
            / boards
        )


def show_alternatives(boards: int, rows: int) -> None:
    """What simpler rules would do at three seeds, the primary family alone at level alpha."""
    body = (
        (name, _wrong_by_rule(noise, boards, rows, k))
        for k, (name, noise) in enumerate(REGIMES.items())
    )
    show(
        f"Primary family alone at 5 %, {rows} rows, n = 3, % of {boards} null boards",
        ("noise", *RULES),
        body,
    )


def found_share(boards: int, rows: int, seeds: int, effect: float, stream: int = 0) -> float:
    """Share of true differences found.

    Half of the routers differ from both controls by `effect` SDs of a difference.
    """
    pairs = design(rows)["primary"]
    differs = (pairs[:, 0] % 2 == 0) & (pairs[:, 0] >= 2)
    found = 0
    for values in batches(normal, boards, rows, seeds, stream):
        values[:, 2::2] += effect * np.sqrt(2.0)
        tests = compare_board(values, design(rows))["primary"]
        found += int((tests.p_difference <= LEVELS["primary"])[:, differs].sum())
    return found / (boards * int(differs.sum()))


def show_power(boards: int, rows: int) -> None:
    effects = (1.0, 1.5, 2.0, 3.0, 3.5, 4.0)
    body = (
        (str(n), (found_share(boards, rows, n, effect) for effect in effects)) for n in (3, 5, 10)
    )
    show(
        f"Found, of true differences from a control in SDs of a difference, {rows} rows, %",
        ("n", *map(str, effects)),
        body,
    )


def interval_coverage(noise: Noise, boards: int, rows: int, seeds: int) -> tuple[float, float]:
    """Return the coverage of the plain t interval, and of all simultaneous intervals at once.

    The plain interval is of one difference, the others are those of a primary family.
    """
    pairs = design(rows)["primary"]
    plain, together = 0, 0
    for values in batches(noise, boards, rows, seeds, 0):
        tests = compare_family(values, pairs, fit_prior(*row_variances(values)))
        plain += int((tests.plain.p[:, 0] > ALPHA).sum())
        together += int((np.abs(tests.plain.mean) <= tests.half_width(ALPHA)).all(-1).sum())
    return plain / boards, together / boards


def show_coverage(boards: int, rows: int) -> None:
    cases = [(name, n) for name in ("normal", "unequal variances", "t3") for n in (3, 5, 10)]
    body = (
        (f"{name}, n = {n}", interval_coverage(REGIMES[name], boards, rows, n)) for name, n in cases
    )
    show(
        "Coverage of nominal 95 % intervals, %",
        ("noise", "one plain t interval", "a family's simultaneous intervals, together"),
        body,
    )


def wrong_over_looks(
    boards: int, rows: int, looks: tuple[int, ...], stream: int = 0, *, corrected: bool = True
) -> float:
    """Share of null boards with a false difference at any look.

    Without correction, the effect of looking again and again.
    """
    pairs = design(rows)
    wrong = 0
    for values in batches(normal, boards, rows, looks[-1], stream):
        seen = np.zeros(len(values), dtype=bool)
        for k, look in enumerate(looks):
            levels: dict[Family, float] = {
                f: family_level(looks, k, a, len(pairs[f])) if corrected else a
                for f, a in LEVELS.items()
            }
            for family, tests in compare_board(values[..., :look], pairs).items():
                seen |= (tests.p_difference <= levels[family]).any(-1)
        wrong += int(seen.sum())
    return wrong / boards


def show_looks(boards: int, rows: int) -> None:
    cases = ((3, 6), (3, 6, 10), (5, 10, 15, 20))
    body = (
        (str(looks), (wrong_over_looks(boards, rows, looks, corrected=c) for c in (True, False)))
        for looks in cases
    )
    show(
        f"Boards with any false difference at any look, {rows} rows, %",
        ("looks", "alpha spending", "full alpha at each look"),
        body,
    )


def wrong_equivalence(boards: int, rows: int, seeds: int, stream: int = 0) -> float:
    """Return the share of boards with any false claim of equivalence.

    Half of the routers differ from the controls by just the margin, the others not at all.
    """
    pairs = design(rows)
    wrong = 0
    for values in batches(normal, boards, rows, seeds, stream):
        values[:, 2::2] += MARGIN
        true = np.zeros((rows,))
        true[2::2] = MARGIN
        seen = np.zeros(len(values), dtype=bool)
        for family, tests in compare_board(values, pairs).items():
            differs = true[pairs[family][:, 0]] != true[pairs[family][:, 1]]
            seen |= (tests.p_difference <= LEVELS[family])[:, ~differs].any(-1) | (
                tests.p_equivalence(MARGIN) <= LEVELS[family]
            )[:, differs].any(-1)
        wrong += int(seen.sum())
    return wrong / boards


def show_equivalence(boards: int, rows: int) -> None:
    body = ((str(n), (wrong_equivalence(boards, rows, n),)) for n in (3, 5, 10, 20))
    show(
        "Boards with any false claim, of difference or equivalence, half of the routers at the "
        "margin of 1 SD, %",
        ("n", "boards"),
        body,
    )


def bootstrap_coverage(boards: int, seeds: int, documents: int, document_sd: float) -> float:
    """Coverage of the nominal 95 % interval of a domain's loss.

    Seed SD 1, document SD `document_sd`, residual SD 0.5.
    """
    rng = np.random.default_rng([seeds, documents])
    names = [f"d{index}" for index in range(documents)]
    held = 0
    for board in range(boards):
        loss = (
            rng.normal(size=(seeds, 1))
            + document_sd * rng.normal(size=documents)
            + 0.5 * rng.normal(size=(seeds, documents))
        )
        data = {
            s: {name: ("domain", float(loss[s, d]), 1.0) for d, name in enumerate(names)}
            for s in range(seeds)
        }
        interval = hierarchical_bootstrap(data, resamples=500, seed=board)[0]
        held += interval.low <= 0.0 <= interval.high
    return held / boards


def show_bootstrap(boards: int, rows: int) -> None:
    draws = boards // 5
    cases = (2, 3, 5, 10, 20)
    body = (
        (str(seeds), (bootstrap_coverage(draws, seeds, 30, sd) for sd in (0.0, 10.0)))
        for seeds in cases
    )
    show(
        f"Coverage of the bootstrap's nominal 95 % interval, %, {draws} draws",
        ("seeds", "seeds make the noise", "documents do"),
        body,
    )


SHOWN: dict[str, Callable[[int, int], None]] = {
    "levels": show_levels,
    "alternatives": show_alternatives,
    "power": show_power,
    "coverage": show_coverage,
    "looks": show_looks,
    "equivalence": show_equivalence,
    "bootstrap": show_bootstrap,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tables", nargs="*", default=list(SHOWN), help=f"which of {', '.join(SHOWN)}; default all"
    )
    parser.add_argument("--boards", type=int, default=10_000, help="boards a cell of a table")
    parser.add_argument("--rows", type=int, default=13, help="rows a board, two of them controls")
    options = parser.parse_args()
    for table in options.tables:
        SHOWN[table](options.boards, options.rows)


if __name__ == "__main__":
    main()
