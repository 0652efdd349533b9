"""Turn records into tidy pandas frames: one row an observation, one column a variable.

Figures are drawn from these frames, and `bench.load_records` gives them to a notebook.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board import measures
from bench.board.text import BITS, whole
from bench.errors import unknown
from bench.record import Record, read_records

if TYPE_CHECKING:
    import pandas as pd

Observation = dict[str, Any]


def load_records(path: str | Path, table: str = "runs") -> "pd.DataFrame":
    """Load every record below a folder as one tidy frame.

    Each table has the columns `suite`, `row`, `router`, `family`, `role`, `match`, `budget`, `seed`
    and `router_seed`. Losses are in bits per byte.

    Args:
        path: a tree of records, such as `results` or `runs`, or any folder in it.
        table: the observations wanted:
            "runs", one row a record: status, loss, FLOPs, parameters, speed and provenance;
            "curves", one row a probe in training: step, tokens, flops, seconds, loss;
            "domains", one row a domain: loss at the headline;
            "spend", one row a point of the knob sweep: target, spend (multiples of B), loss;
            "loads", one row a routed layer and path: share of tokens;
            "monitors", one row a routed layer: entropy, churn, dropped and the other monitors.

    Raises:
        UserError: there is no such table, or a record was edited.

    Example:
        >>> runs = bench.load_records("results")
        >>> runs[runs.status == "ok"].groupby(["suite", "row"]).loss.mean()
    """
    return tidy((record for _, record in read_records(Path(path))), table)


def tidy(records: Iterable[Record], table: str) -> "pd.DataFrame":
    """Lay records out as one of the tables of `load_records`."""
    import pandas as pd

    if table not in _READERS:
        raise unknown("table of records", table, list(_READERS))
    # Names and reasons come from plugins and may hold lone surrogates, which no file can store.
    rows = ({**_cell(record), **found} for record in records for found in _READERS[table](record))
    return pd.DataFrame(
        {name: whole(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    )


def _cell(record: Record) -> Observation:
    """Name the cell of a record: the columns that every table has."""
    cell = record.cell
    return {
        "suite": cell.suite,
        "row": cell.row,
        "router": record.row.router,
        "family": cell.family,
        "role": cell.role,
        "match": cell.match,
        "budget": cell.budget,
        "seed": cell.seed,
        "router_seed": record.row.router_seed,
    }


def _runs(record: Record) -> Iterator[Observation]:
    made = record.provenance
    yield {
        "status": record.status,
        "loss": _bits(record.loss),
        "calibrated_loss": _bits(record.calibrated_loss),
        "control": record.cell.control,
        "spend": measures.validation_spend(record),
        "inference_flops": measures.active_flops(record),
        "share_of_dense": measures.active_share(record),
        "executed_share": measures.executed_share(record),
        "training_flops": measures.training_flops(record),
        **{name: measures.from_training(name)(record) for name in _TRAINING},
        "latency_us_per_token": measures.latency(record),
        # None: the record stopped before the causality check.
        "causal": record.causality.passed if record.causality else None,
        "commit": made.commit,
        "processor": made.processor,
        "torch": made.versions.get("torch", ""),
        "rules_version": made.rules_version,
        "key": record.key,
    }


_TRAINING = (
    "steps",
    "tokens",
    "seconds",
    "tokens_per_second",
    "peak_memory_mb",
    "parameters_total",
    "parameters_active",
)


def _curves(record: Record) -> Iterator[Observation]:
    for probe, point in enumerate(record.curve):
        yield {
            "probe": probe,
            "step": point.step,
            "tokens": point.tokens,
            "flops": point.flops,
            "seconds": point.seconds,
            "loss": BITS * point.loss,
            "train_loss": BITS * point.train_loss,
        }


def _domains(record: Record) -> Iterator[Observation]:
    for domain, loss in record.domain_loss.items():
        # Domains outside the headline are measured too, but do not count in `loss`.
        headline = domain in record.headline_domains
        yield {"domain": domain, "headline": headline, "loss": BITS * loss}


def _spend(record: Record) -> Iterator[Observation]:
    for point in record.budget.points if record.budget else ():
        yield {"target": point.target, "spend": point.spend, "loss": BITS * point.loss}


def _loads(record: Record) -> Iterator[Observation]:
    for layer in record.monitors:
        for index, (path, share) in enumerate(zip(layer.paths, layer.load, strict=True)):
            yield {"layer": layer.layer, "path": path, "index": index, "load": share}


def _monitors(record: Record) -> Iterator[Observation]:
    for layer in record.monitors:
        # Only the scalars: the load of each path has a table of its own.
        values = layer.model_dump(exclude={"paths"})
        yield {
            name: value
            for name, value in values.items()
            if value is None or isinstance(value, int | float)
        }


def _bits(loss: float | None) -> float | None:
    return None if loss is None else BITS * loss


_READERS: dict[str, Callable[[Record], Iterator[Observation]]] = {
    "runs": _runs,
    "curves": _curves,
    "domains": _domains,
    "spend": _spend,
    "loads": _loads,
    "monitors": _monitors,
}


def resampled(curves: "pd.DataFrame", axis: str, points: int = 0) -> "pd.DataFrame":
    """Put the curves of one row's seeds on one grid over `axis`, linear between probes.

    The grid covers the range that all seeds cover. The curve of a seed is the mean over its router
    seeds. A run with fewer than two finite probes is left out.

    Args:
        curves: the table "curves" of one row.
        axis: "flops", "tokens" or "seconds".
        points: places on the grid; by default as many as a seed has probes, at most 40.

    Returns:
        Columns `row`, `seed`, `x` and `loss` (bits per byte); empty without a curve.
    """
    import numpy as np
    import pandas as pd

    columns = ["row", "seed", "x", "loss"]
    if curves.empty:
        return pd.DataFrame(columns=columns)
    # A diverged run has probes without a loss, one on another processor has no times;
    # interpolation would spread them.
    finite = curves[np.isfinite(curves["loss"]) & np.isfinite(curves[axis])]
    cells = finite.groupby(["seed", "router_seed"])
    runs = [(seed, part) for (seed, _), part in cells if len(part) > 1]
    if not runs:
        return pd.DataFrame(columns=columns)
    # The range that all seeds cover: outside it the mean would change its seeds.
    start = max(part[axis].iloc[0] for _, part in runs)
    end = min(part[axis].iloc[-1] for _, part in runs)
    places = points or min(40, max(len(part) for _, part in runs))
    grid = np.linspace(start, max(start, end), places)
    row = curves["row"].iloc[0]
    found: list[pd.DataFrame] = []
    for seed in dict.fromkeys(seed for seed, _ in runs):
        # Router seeds of a seed count once, as in the headline loss.
        own = [np.interp(grid, part[axis], part["loss"]) for of, part in runs if of == seed]
        found.append(
            pd.DataFrame({"row": row, "seed": seed, "x": grid, "loss": np.mean(own, axis=0)})
        )
    return pd.concat(found, ignore_index=True)
