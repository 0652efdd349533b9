"""Define the record of one cell, the only link between running and judging.

Imports no torch, so that statistics and board can read records anywhere.
"""

from typing import Any, Literal

from pydantic import Field

from bench.config.row import Role, RowConfig
from bench.record.monitors import (
    CausalChoice,
    LayerMonitor,
    OtherRoutes,
    Passage,
    Recall,
    RightPaths,
    SupervisionMonitor,
)
from bench.record.part import Part

SCHEMA_VERSION = 2

RULES_VERSION = 1
"""Raise it when the numerics of all runs change. A board takes records of one version only."""

Status = Literal["ok", "off_budget", "invalid", "diverged", "failed"]


class CellId(Part):
    """Identification of a cell: the row's name, its plugin, and the conditions of the run."""

    suite: str
    row: str = Field(description="name on the board; the plugin's name, or plugin@variant")
    family: str
    paper: str
    role: Role = Field(
        description="twin and control are ranked rows too; bracket and informed are not"
    )
    control: str | None = Field(description="row of `random` over the same paths, if there is one")
    site: Literal["ffn", "block"]
    seed: int
    match: Literal["flops", "tokens"]
    budget: float = Field(
        description="rho, share of the routed full-path cost that the budget pays for"
    )


class Provenance(Part):
    """Origin of the record, enough to run it again."""

    command: str
    commit: str
    dirty: bool
    started: str = Field(description="UTC, ISO 8601")
    device: str = Field(description="device class, e.g. cpu or cuda:NVIDIA H100")
    processor: str
    instructions: str = Field(
        default="",
        description="instructions of a CPU that computes in bfloat16, or none; empty in float32, "
        "on a GPU, and in records of before this field",
    )
    threads: int
    dtype: str
    versions: dict[str, str]
    rules_version: int = RULES_VERSION
    # Not `SuiteConfig`: a record outlives the schema of its suite.
    config: dict[str, Any] = Field(description="the canonical suite configuration")
    config_hash: str
    router_hash: str = Field(
        description="hash of the numerics of a shipped router, or of the source of another"
    )
    data_hash: str


class SpendPoint(Part):
    """One causal evaluation on the validation split, at one knob setting."""

    target: float = Field(description="target spend of the calibration, as a multiple of B")
    spend: float = Field(
        description="active FLOPs per token on the validation split, as a multiple of B"
    )
    loss: float = Field(description="headline loss at this spend, nats per byte")


class BudgetAudit(Part):
    """The budget and the spend. FLOPs are per token, of a forward pass of the whole model."""

    target_flops: float = Field(description="B")
    # A router with a base path has a solved capacity, one without it a solved expert width.
    own: float | None = Field(
        default=None,
        description="cost of a given capacity as a multiple of the suite's budget; B is then that "
        "cost",
    )
    capacity: float | None = Field(
        description="solved or given share of tokens upgraded from the base path"
    )
    expert_width: int | None = Field(description="solved hidden width of one expert")
    routed_layers: tuple[int, ...]
    calibration_spend: float | None = Field(
        description="spend on the calibration split, as a multiple of B"
    )
    validation_spend: float = Field(
        description="spend of the calibrated point on the validation split, as a multiple of B"
    )
    tolerance: float
    points: tuple[SpendPoint, ...] = Field(
        description="the knob sweep on the validation split, in order of spend"
    )
    headline: Literal["interpolated", "single"] = Field(
        description="source of the loss at B: interpolated between points, or a single point"
    )


class Flops(Part):
    """FLOPs per token forward, and totals of training by component and phase."""

    active: float = Field(description="active FLOPs at the headline: B if interpolated, else spend")
    executed: float = Field(
        description="executed FLOPs as the counter counts, with full-square attention and padding, "
        "but without the tokens that pad a path in bfloat16 on a CPU"
    )
    dense: float = Field(description="FLOPs of the dense model, all routed sites on the full path")
    training: dict[str, float] = Field(description="'component/phase' -> total FLOPs charged")
    training_total: float
    training_budget: float
    optimizer: float = Field(description="shown, never charged")
    evaluation: float = Field(description="shown, never charged")
    pretraining: float = Field(
        default=0.0,
        description="FLOPs of the frozen backbone that all routers of the seed share; shown, "
        "never charged",
    )


class Training(Part):
    """The cost of training, and the size of the model."""

    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    peak_memory_mb: float | None = Field(
        description="peak memory of this cell alone; none if the system has no such figure"
    )
    parameters_total: int
    parameters_active: float = Field(description="mean number of parameters that a token uses")
    curriculum: tuple[float, ...] = Field(
        default=(),
        description="for each window that a curriculum ordered, rank correlation of a sequence's "
        "complexity with its loss; windows without a difference in complexity are left out",
    )


class Speed(Part):
    """Speed of the trained model on its machine, by wall-clock time."""

    forward_us_per_token: float = Field(
        description="median time of a causal forward pass, microseconds per token"
    )
    tokens: int = Field(description="tokens in the timed batch")
    repeats: int = Field(description="number of timed passes, after a warm-up")
    beside: int | None = Field(
        default=None,
        description="number of other workers in the run; none in older records",
    )


class CurvePoint(Part):
    """A causal probe on a fixed small part of the validation split during training."""

    step: int
    tokens: int
    flops: float
    seconds: float
    train_loss: float = Field(
        description="mean since the last probe, with the selection of training, nats per token"
    )
    loss: float = Field(description="causal loss after calibration at that moment, nats per byte")


class Causality(Part):
    """Result of the causality proof of the trained router."""

    passed: bool
    trials: int
    detail: str = Field(description="the first offence, or the power of the trials")


class CheckOutcome(Part):
    """Result of one check of a router from outside."""

    router: str
    check: str
    status: Literal["passed", "failed", "waived", "exempt", "expected_failure", "not_run"]
    reason: str = ""


class Record(Part):
    """The record of one cell. `status` says whether it may be ranked, and `reason` why not."""

    schema_version: int = SCHEMA_VERSION
    key: str = Field(description="content key: same key, same experiment")
    status: Status
    reason: str = ""
    cell: CellId
    row: RowConfig = Field(description="the row as its suite declared it")
    checks: tuple[CheckOutcome, ...] = Field(
        default=(), description="results of `bench check` for a router from outside"
    )
    migrated: str = Field(default="", description="script that gave the record its present form")
    provenance: Provenance
    loss: float | None = Field(
        default=None, description="headline, nats per byte: unweighted mean over headline domains"
    )
    calibrated_loss: float | None = Field(
        default=None, description="loss at the calibrated knob, without interpolation"
    )
    domain_loss: dict[str, float] = Field(
        default_factory=dict, description="domain -> loss at the headline, nats per byte"
    )
    headline_domains: tuple[str, ...] = ()
    # By document, so that a board can resample documents for its intervals.
    documents: dict[str, tuple[str, float, float]] = Field(
        default_factory=dict,
        description="validation document -> (domain, nats, bytes) at the calibrated knob",
    )
    budget: BudgetAudit | None = None
    flops: Flops | None = None
    training: Training | None = None
    speed: Speed | None = None
    causality: Causality | None = None
    curve: tuple[CurvePoint, ...] = ()
    monitors: tuple[LayerMonitor, ...] = ()
    supervision: tuple[SupervisionMonitor, ...] = Field(
        default=(), description="for supervised routers"
    )
    truth: RightPaths | None = None
    recall: Recall | None = None
    other_routes: OtherRoutes | None = None
    causal_choice: CausalChoice | None = None
    auxiliary: dict[str, float] = Field(
        default_factory=dict, description="last mean of each auxiliary loss"
    )
    passage: Passage | None = None
