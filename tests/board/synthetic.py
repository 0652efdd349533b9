"""Make synthetic records: boards of any size, like real ones, on request with hostile names."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.config.row import Role, RowConfig
from bench.record import (
    BudgetAudit,
    Causality,
    CellId,
    CurvePoint,
    Flops,
    LayerMonitor,
    Passage,
    Provenance,
    Record,
    Speed,
    SpendPoint,
    Training,
    record_path,
    write_record,
)

DOMAINS = ("code", "mathematics", "speech", "reference", "locale")
CONFIG: dict[str, Any] = {
    "name": "quick",
    "purpose": "Which routing family makes best use of half the FLOPs of a small decoder?",
    "budget": 0.5,
    "comparison": {"margin": 0.01, "alpha": 0.05, "looks": []},
    "thresholds": [2.4, 2.2],
    "seeds": 3,
}
DENSE_FLOPS = 1.23e6
WORDS = (
    "the ",
    "def ",
    "return ",
    "of ",
    "x_",
    "1",
    " = ",
    "nation",
    "(",
    ")",
    "\n",
    "and ",
    "λ",
    "self",
    ".",
    "sum",
)


@dataclass(frozen=True)
class Kind:
    """One row to make: its true mean loss (nats a byte) and its kind of row."""

    row: str
    loss: float
    role: Role = "ranked"
    family: str = "gate"
    paper: str = "arXiv:2404.02258"
    control: str | None = "random@ffn"
    paths: tuple[str, ...] = ("cheap", "full")
    share: float = 0.62


QUICK = (
    Kind("dense_matched", 2.07, "control", "control", "", None, ("full",)),
    Kind("mlp_gate", 2.081, family="gate", paper="arXiv:2604.17228"),
    Kind("mlp_gate@twin", 2.082, "twin", "gate", "arXiv:2604.17228"),
    Kind("mod", 2.11, family="depth", control="random@block", paths=("skip", "block")),
    Kind(
        "top2_moe",
        2.05,
        family="expert",
        paper="arXiv:2006.16668",
        control="random@experts",
        paths=tuple(f"expert{i}" for i in range(4)),
    ),
    Kind(
        "adaptive_moe",
        2.04,
        family="expert",
        paper="arXiv:2310.07188",
        control="random@experts",
        paths=tuple(f"expert{i}" for i in range(4)),
    ),
    Kind("hash", 2.13, family="heuristic", paper="arXiv:2106.04426"),
    Kind("random@ffn", 2.17, "control", "control", ""),
    Kind("random@block", 2.19, "control", "control", "", None, ("skip", "block")),
    Kind(
        "random@experts",
        2.12,
        "control",
        "control",
        "",
        None,
        tuple(f"expert{i}" for i in range(4)),
    ),
    Kind("dense", 2.04, "bracket", "bracket", "", None, ("full",), 1.0),
    Kind("cheap", 2.18, "bracket", "bracket", "", None, ("cheap",), 0.25),
    Kind("tag", 2.09, "informed", "heuristic", "", None),
)


def record(
    kind: Kind,
    seed: int,
    *,
    match: str = "flops",
    budget: float = 0.5,
    spread: float = 0.004,
    **changes: Any,
) -> Record:
    """One record of `kind`: paired by seed, so that rows of a seed share most of its noise.

    `changes` replace top-level fields; those of the cell and the provenance are dictionaries merged
    into it.
    """
    shared = np.random.default_rng(seed).normal(0, 0.03)
    draw = np.random.default_rng([seed, *kind.row.encode(errors="surrogatepass"), *match.encode()])
    loss = kind.loss + shared + float(draw.normal(0, spread))
    share = kind.share * (budget / 0.5 if kind.role not in ("bracket",) else 1)
    cell: dict[str, Any] = {
        "suite": "quick", "row": kind.row, "family": kind.family, "paper": kind.paper,
        "role": kind.role, "control": kind.control,
        "site": "block" if "block" in kind.paths else "ffn",
        "seed": seed, "match": "tokens" if kind.role == "bracket" else match, "budget": budget,
        **changes.pop("cell", {}),
    }  # fmt: skip
    made: dict[str, Any] = {
        "command": "python -m bench run --suite quick --seeds 3",
        "commit": "0123456789abcdef0123", "dirty": False,
        "started": f"2026-11-22T10:{seed:02d}:00Z",
        "device": "cpu", "processor": "AVX-512", "threads": 1, "dtype": "float32",
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "config": CONFIG, "config_hash": "c0ffee",
        "router_hash": f"hash-{kind.row[:8]}", "data_hash": "da7a",
        **changes.pop("provenance", {}),
    }  # fmt: skip
    fields: dict[str, Any] = {
        "key": f"{kind.row}-{seed}-{match}", "status": "ok",
        "loss": loss, "calibrated_loss": loss + 0.001,
        "domain_loss": {
            name: loss + 0.2 * math.sin(index + 1) + float(draw.normal(0, 0.01))
            for index, name in enumerate(DOMAINS)
        },
        "headline_domains": DOMAINS[:3],
        "documents": {
            f"{name}/{index}": (name, loss * 900, 1000.0) for name in DOMAINS for index in range(4)
        },
        "budget": _audit(loss, kind, draw), "flops": _flops(share),
        "training": _training(share, draw),
        "speed": Speed(
            forward_us_per_token=20 * share * float(draw.uniform(0.97, 1.03)),
            tokens=2048, repeats=12,
        ),
        "causality": Causality(
            passed=True, trials=256,
            detail="a leak in 2 % of trials is found with 99 % probability",
        ),
        "curve": _curve(loss, share, draw),
        "monitors": tuple(_monitor(layer, kind, draw) for layer in (1, 2, 3)),
        "auxiliary": {"load_balance": 1.02}, "passage": _passage(kind, draw), **changes,
    }  # fmt: skip
    fields.setdefault("row", row_of(kind))
    return Record(cell=CellId(**cell), provenance=Provenance(**made), **fields)


def row_of(kind: Kind, **changes: Any) -> RowConfig:
    """The row as a suite declares it; signs that no suite takes are replaced."""
    name = re.sub(r"[^A-Za-z0-9_.@+=-]", "_", kind.row) or "_"
    declared: dict[str, Any] = {
        "name": name,
        "router": name.split("@")[0] or "_",
        "role": kind.role,
    }
    declared["router_seed"] = int(kind.role == "twin")
    return RowConfig.model_validate({**declared, **changes})


def swept(row: str, factor: float, loss: float = 2.1) -> Record:
    """A record of a declared sweep of learning rates, of a row of the suite at one factor."""
    rows = [{"name": row, "router": row, "role": "ranked", "lr_scale": 1.0}]
    sweep = {"rows": rows, "sensitivity": {"lr_scales": [0.5, 2.0], "seed": 90}}
    kind = Kind(f"{row}@lr{factor:g}", loss)
    made = {"config": {**CONFIG, **sweep}}
    return record(kind, 90, spread=0, row=row_of(kind, lr_scale=factor), provenance=made)


def failed(kind: Kind, seed: int) -> Record:
    """A record of a cell that failed before it had a loss."""
    nothing = dict.fromkeys(("loss", "flops", "training", "causality"))
    return record(kind, seed, status="failed", reason="x", budget=0.5, **nothing)


def records(
    kinds: Sequence[Kind] = QUICK, seeds: Sequence[int] = (0, 1, 2), **changes: Any
) -> list[Record]:
    """Every kind with every seed."""
    return [record(kind, seed, **dict(changes)) for kind in kinds for seed in seeds]


def replicas(kind: Kind, seed: int, losses: Mapping[int, float], **changes: Any) -> list[Record]:
    """One seed's records, a loss for each router seed."""
    return [
        record(kind, seed, row=row_of(kind, router_seed=own), loss=loss, **dict(changes))
        for own, loss in losses.items()
    ]


def write(root: Path, made: Sequence[Record]) -> None:
    """Write records below `root`, where the bench would.

    Names that no path can hold get a number for a folder.
    """
    names = {row: index for index, row in enumerate(dict.fromkeys(one.cell.row for one in made))}
    for one in made:
        safe = one.cell.model_copy(update={"row": f"row{names[one.cell.row]}"})
        write_record(one, record_path(root, safe))


def many(rows: int) -> list[Kind]:
    """`rows` ranked rows in six families, besides the controls and brackets."""
    families = ("gate", "depth", "expert", "heuristic", "supervised", "null")
    controls = [kind for kind in QUICK if kind.role in ("control", "bracket")]
    return controls + [
        Kind(f"router_{index:03d}", 2.0 + 0.2 * index / rows, family=families[index % 6])
        for index in range(rows)
    ]


def _audit(loss: float, kind: Kind, draw: np.random.Generator) -> BudgetAudit:
    points = tuple(
        SpendPoint(target=at, spend=at + float(draw.normal(0, 0.003)), loss=loss + 0.3 * (1 - at))
        for at in (0.9, 0.95, 1, 1.05, 1.1)
    )
    single = kind.role in ("control", "bracket")
    return BudgetAudit(
        target_flops=0.62 * DENSE_FLOPS,
        capacity=0.47,
        expert_width=None,
        routed_layers=(1, 2, 3),
        calibration_spend=1.0,
        validation_spend=1 + float(draw.normal(0, 0.003)),
        tolerance=0.01,
        points=points[2:3] if single else points,
        headline="single" if single else "interpolated",
    )


def _flops(share: float) -> Flops:
    parts = {
        "backbone/forward": 3e11,
        "paths/forward": 2e11,
        "router/forward": 1e10,
        "backbone/backward": 6e11,
        "paths/backward": 4e11,
    }
    total = sum(parts.values())
    return Flops(
        active=share * DENSE_FLOPS,
        executed=share * DENSE_FLOPS * 1.136,
        dense=DENSE_FLOPS,
        training=parts,
        training_total=total,
        training_budget=total,
        optimizer=3e10,
        evaluation=9e10,
    )


def _training(share: float, draw: np.random.Generator) -> Training:
    speed = 17_500 / (0.4 + 0.6 * share) * float(draw.uniform(0.97, 1.03))
    return Training(
        steps=500,
        tokens=int(1e6 / share),
        seconds=1e6 / share / speed,
        tokens_per_second=speed,
        peak_memory_mb=410 + 90 * share,
        parameters_total=412_672,
        parameters_active=412_672 * share,
    )


def _curve(loss: float, share: float, draw: np.random.Generator) -> tuple[CurvePoint, ...]:
    points: list[CurvePoint] = []
    for index in range(1, 26):
        done = index / 25
        value = loss + 3.2 * (1 - done) ** 2 * math.exp(-3 * done) + float(draw.normal(0, 0.004))
        points.append(
            CurvePoint(
                step=20 * index,
                tokens=int(1e6 / share * done),
                flops=1.51e12 * done,
                seconds=60 * done,
                train_loss=value,
                loss=value,
            )
        )
    return tuple(points)


def _monitor(layer: int, kind: Kind, draw: np.random.Generator) -> LayerMonitor:
    def loads(count: int) -> tuple[tuple[float, ...], ...]:
        return tuple(
            tuple(float(x) for x in line)
            for line in draw.dirichlet(np.full(len(kind.paths), 8.0), count)
        )

    fixed = kind.family == "heuristic"
    return LayerMonitor(
        layer=layer,
        paths=kind.paths,
        load=loads(1)[0],
        load_by_domain=dict(zip(DOMAINS, loads(len(DOMAINS)), strict=True)),
        load_by_position=loads(16),
        load_by_frequency=loads(10),
        entropy=None if fixed else float(draw.uniform(0.3, 1)),
        churn=float(draw.uniform(0, 0.2)),
        domain_information=float(draw.uniform(0, 0.1)),
        margin=None if fixed else float(draw.uniform(0.1, 0.9)),
        max_logit=float(draw.uniform(1, 9)),
        dropped=0.0,
        saturation=tuple(
            1 - 0.5 * math.exp(-at / 8 - float(draw.uniform(0, 0.1))) for at in range(24)
        ),
        router_gradient=() if fixed else tuple(0.02 * math.exp(-at / 9) for at in range(25)),
        paths_gradient=tuple(0.3 * math.exp(-at / 20) for at in range(25)),
    )


def _passage(kind: Kind, draw: np.random.Generator) -> Passage:
    tokens = tuple(WORDS[index] for index in draw.integers(0, len(WORDS), 160))
    choices = {
        str(layer): tuple(int(x) for x in draw.integers(0, len(kind.paths), 160))
        for layer in (1, 2, 3)
    }
    return Passage(
        domain="code",
        tokens=tokens,
        choices=choices,
        legend={str(layer): kind.paths for layer in (1, 2, 3)},
    )
