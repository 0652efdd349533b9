"""The record of one cell: the only thing that passes from running to judging.

Nothing here knows torch: the statistics and the board read records anywhere the JSON lies.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.config.row import Role, RowConfig

SCHEMA_VERSION = 2

RULES_VERSION = 1
"""Raised whenever the numerics of a run change.

Records of other versions are never mixed in a board.
"""

Status = Literal["ok", "off_budget", "invalid", "diverged", "failed"]


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants"
    )


class CellId(_Part):
    """Which cell this is: the row's name, the plugin behind it, and the conditions it was run
    under.
    """

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
        description="rho, the share of the routed full-path cost that is paid for"
    )


class Provenance(_Part):
    """What made the record: enough to run it again."""

    command: str
    commit: str
    dirty: bool
    started: str = Field(description="UTC, ISO 8601")
    device: str = Field(description="device class, e.g. cpu or cuda:NVIDIA H100")
    processor: str
    threads: int
    dtype: str
    versions: dict[str, str]
    rules_version: int = RULES_VERSION
    config: dict[str, Any] = Field(description="the canonical suite configuration")
    config_hash: str
    router_hash: str = Field(
        description="of the source of a router from outside, of the numerics of one of ours"
    )
    data_hash: str


class SpendPoint(_Part):
    """One causal evaluation on the validation split, at one knob setting."""

    target: float = Field(description="spend asked of calibration, as a multiple of B")
    spend: float = Field(
        description="active FLOPs a token on the validation split, as a multiple of B"
    )
    loss: float = Field(description="headline loss there, nats a byte")


class BudgetAudit(_Part):
    """What was promised and what was spent.

    FLOPs are per token, of a forward pass of the whole model.
    """

    target_flops: float = Field(description="B")
    capacity: float | None = Field(description="solved share of tokens upgraded from the base path")
    expert_width: int | None = Field(description="solved hidden width of one expert")
    routed_layers: tuple[int, ...]
    calibration_spend: float | None = Field(
        description="on the calibration split, as a multiple of B"
    )
    validation_spend: float = Field(
        description="the calibrated point on the validation split, same unit"
    )
    tolerance: float
    points: tuple[SpendPoint, ...] = Field(
        description="the knob sweep on the validation split, in order of spend"
    )
    headline: Literal["interpolated", "single"] = Field(
        description="how the loss at B was read off the points"
    )


class Flops(_Part):
    """FLOPs per token forward, and totals of training by component and phase."""

    active: float = Field(description="at the headline: B when interpolated, else what was spent")
    executed: float = Field(
        description="with full-square attention and padding, as the counter sees it"
    )
    dense: float = Field(description="of the dense model, every routed site on its full path")
    training: dict[str, float] = Field(description="'component/phase' -> total FLOPs charged")
    training_total: float
    training_budget: float
    optimizer: float = Field(description="shown, never charged")
    evaluation: float = Field(description="shown, never charged")
    pretraining: float = Field(
        default=0.0,
        description="of the frozen backbone that all routers of the seed share; shown, never charged",
    )


class Training(_Part):
    """What training took, and how large the model is."""

    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    peak_memory_mb: float | None = Field(
        description="of this cell alone; none where the system cannot tell it"
    )
    parameters_total: int
    parameters_active: float = Field(description="mean number of parameters a token meets")


class Speed(_Part):
    """How fast the trained model is where it was run.

    Wall-clock, so no two runs agree to the last bit.
    """

    forward_us_per_token: float = Field(
        description="median time of a causal forward pass, microseconds a token"
    )
    tokens: int = Field(description="tokens in the batch that was timed")
    repeats: int = Field(description="passes that were timed, after a warm-up")
    beside: int | None = Field(
        default=None,
        description="other workers of the run; none in records from before it was kept",
    )


class CurvePoint(_Part):
    """A causal probe on a fixed small part of the validation split during training."""

    step: int
    tokens: int
    flops: float
    seconds: float
    train_loss: float = Field(
        description="mean since the last probe, training-time selection, nats a token"
    )
    loss: float = Field(description="causal, nats a byte, calibrated at that moment")


class LayerMonitor(_Part):
    """How one routed layer routes at the headline setting, on the validation split, from its plans
    alone.
    """

    layer: int
    paths: tuple[str, ...]
    load: tuple[float, ...] = Field(description="share of tokens on each path")
    load_by_domain: dict[str, tuple[float, ...]]
    load_by_position: tuple[tuple[float, ...], ...] = Field(
        description="16 equal bins of position x path"
    )
    load_by_frequency: tuple[tuple[float, ...], ...] = Field(
        description="10 equal-mass bins of token frequency x path"
    )
    entropy: float | None = Field(
        description="of softmax(scores) over paths, nats; none where scores are not given"
    )
    churn: float | None = Field(
        description="share of tokens whose path set changed since the previous probe"
    )
    domain_information: float = Field(description="mutual information of path set and domain, nats")
    margin: float | None = Field(
        default=None, description="mean difference of the two largest values of softmax(scores)"
    )
    max_logit: float | None = Field(default=None, description="largest score of any token and path")
    dropped: float | None = Field(
        default=None, description="share of tokens that took no path at all"
    )
    saturation: tuple[float, ...] = Field(
        default=(),
        description="for each probe but the last, share of the last probe's choices that it had made (arXiv:2409.02060)",
    )
    router_gradient: tuple[float, ...] = Field(
        default=(),
        description="L2 norm of the router's gradient, unclipped, in the step before each probe; empty without parameters",
    )
    paths_gradient: tuple[float, ...] = Field(
        default=(), description="the same of all the parameters that the paths are made of"
    )
    utility_correlation: float | None = Field(
        default=None,
        description="rank correlation of score and oracle utility over tokens, the oracle's policy being the row's own",
    )
    on_policy_correlation: float | None = Field(
        default=None, description="the same with later layers routed as in use, for every row alike"
    )
    latent_variance: float | None = Field(
        default=None, description="of predicted latents of length 1; 0 where they have collapsed"
    )
    latent_rank: float | None = Field(
        default=None, description="effective rank of predicted latents, 1 to their size"
    )


class SupervisionMonitor(_Part):
    """What one routed layer made of labels, on windows of the training split in causal evaluation
    at the headline setting.
    """

    layer: int
    documents: int = Field(description="training documents with labels")
    supervised: float | None = Field(
        description="share of their tokens that took the path of the label; none where none was seen"
    )
    unsupervised: float | None = Field(description="the same of the other training documents")


class Passage(_Part):
    """A passage of validation text with the path each token took, for the report."""

    domain: str
    tokens: tuple[str, ...]
    choices: dict[str, tuple[int, ...]] = Field(
        description="layer -> index of the chosen path set per token"
    )
    legend: dict[str, tuple[str, ...]] = Field(description="layer -> name of each path set")


class RightPaths(_Part):
    """How routing compares with the right paths, for data that tell them.

    A site at a time, in the order of `monitors`.
    """

    accuracy: tuple[float | None, ...] = Field(
        description="share of tokens with a right path that take it, experts matched to domains one to one; none where paths do not fit"
    )
    chance: tuple[float | None, ...] = Field(
        description="the same of choices with the same loads that ignore the token"
    )
    best_loss: float = Field(
        description="least loss at the budget if only full paths, or right experts, hold the tables, nats a token"
    )


class Causality(_Part):
    """What was tried to catch the trained router looking ahead, and what came of it."""

    passed: bool
    trials: int
    detail: str = Field(description="the first offence, or the power of the probe")


class CheckOutcome(_Part):
    """What one check of a router from outside found."""

    router: str
    check: str
    status: Literal["passed", "failed", "waived", "exempt", "expected_failure", "not_run"]
    reason: str = ""


class Record(_Part):
    """One cell, whole. `status` says whether it may be ranked, `reason` why not."""

    schema_version: int = SCHEMA_VERSION
    key: str = Field(description="content key: same key, same experiment")
    status: Status
    reason: str = ""
    cell: CellId
    row: RowConfig = Field(description="the row as its suite declared it")
    checks: tuple[CheckOutcome, ...] = Field(
        default=(), description="what `bench check` found, for a router from outside the package"
    )
    migrated: str = Field(default="", description="script that gave the record its present form")
    provenance: Provenance
    loss: float | None = Field(
        default=None, description="headline, nats a byte: unweighted mean over headline domains"
    )
    calibrated_loss: float | None = Field(
        default=None, description="at the calibrated knob, not interpolated"
    )
    domain_loss: dict[str, float] = Field(
        default_factory=dict, description="at the headline, nats a byte, all domains"
    )
    headline_domains: tuple[str, ...] = ()
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
        default=(), description="for routers that were told some right paths"
    )
    truth: RightPaths | None = None
    auxiliary: dict[str, float] = Field(
        default_factory=dict, description="last mean of each auxiliary loss"
    )
    passage: Passage | None = None
