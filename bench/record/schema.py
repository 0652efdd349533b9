"""Define the record of one cell, the only link between running and judging.

Imports no torch, so that statistics and board can read records anywhere.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.config.row import Role, RowConfig

SCHEMA_VERSION = 2

RULES_VERSION = 1
"""Raise it when the numerics of all runs change. A board takes records of one version only."""

Status = Literal["ok", "off_budget", "invalid", "diverged", "failed"]


class _Part(BaseModel):
    # A diverged run has infinite losses and NaN: they must survive the file.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants"
    )


class CellId(_Part):
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


class Provenance(_Part):
    """Origin of the record, enough to run it again."""

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
    # Not `SuiteConfig`: a record outlives the schema of its suite.
    config: dict[str, Any] = Field(description="the canonical suite configuration")
    config_hash: str
    router_hash: str = Field(
        description="hash of the numerics of a shipped router, or of the source of another"
    )
    data_hash: str


class SpendPoint(_Part):
    """One causal evaluation on the validation split, at one knob setting."""

    target: float = Field(description="target spend of the calibration, as a multiple of B")
    spend: float = Field(
        description="active FLOPs per token on the validation split, as a multiple of B"
    )
    loss: float = Field(description="headline loss at this spend, nats per byte")


class BudgetAudit(_Part):
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


class Flops(_Part):
    """FLOPs per token forward, and totals of training by component and phase."""

    active: float = Field(description="active FLOPs at the headline: B if interpolated, else spend")
    executed: float = Field(
        description="executed FLOPs, with full-square attention and padding, as the counter counts"
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


class Training(_Part):
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


class Speed(_Part):
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


class CurvePoint(_Part):
    """A causal probe on a fixed small part of the validation split during training."""

    step: int
    tokens: int
    flops: float
    seconds: float
    train_loss: float = Field(
        description="mean since the last probe, with the selection of training, nats per token"
    )
    loss: float = Field(description="causal loss after calibration at that moment, nats per byte")


class LayerMonitor(_Part):
    """Routing of one layer at the headline setting, on the validation split, from its plans."""

    layer: int
    paths: tuple[str, ...]
    load: tuple[float, ...] = Field(description="share of tokens on each path")
    trained_load: tuple[float, ...] = Field(
        default=(),
        description="the same at the end of training; none where that runs more than was chosen",
    )
    load_by_domain: dict[str, tuple[float, ...]]
    load_by_position: tuple[tuple[float, ...], ...] = Field(
        description="16 equal bins of position x path"
    )
    load_by_frequency: tuple[tuple[float, ...], ...] = Field(
        description="10 equal-mass bins of token frequency x path"
    )
    entropy: float | None = Field(
        description="entropy of softmax(scores) over paths, nats; none without scores"
    )
    churn: float | None = Field(
        description="share of tokens whose path set changed since the previous probe"
    )
    domain_information: float = Field(description="mutual information of path set and domain, nats")
    # Older records lack the fields with a default.
    margin: float | None = Field(
        default=None, description="mean difference of the two largest values of softmax(scores)"
    )
    max_logit: float | None = Field(default=None, description="largest score of any token and path")
    dropped: float | None = Field(
        default=None, description="share of tokens that took no path at all"
    )
    always: tuple[str, ...] = Field(default=(), description="paths that every token takes")
    several: tuple[float, ...] = Field(
        default=(),
        description="share of tokens that took more than one expert besides those, at each probe "
        "of training; none where all tokens take equally many",
    )
    saturation: tuple[float, ...] = Field(
        default=(),
        description="for each probe but the last, share of the last probe's choices that it had "
        "made already (arXiv:2409.02060)",
    )
    router_gradient: tuple[float, ...] = Field(
        default=(),
        description="L2 norm of the router's gradient, unclipped, in the step before each probe; "
        "empty without parameters",
    )
    paths_gradient: tuple[float, ...] = Field(
        default=(),
        description="L2 norm of the gradient of the paths, in the step before each probe",
    )
    utility_correlation: float | None = Field(
        default=None,
        description="rank correlation of score and oracle utility over tokens; the oracle uses the "
        "row's own policy",
    )
    on_policy_correlation: float | None = Field(
        default=None, description="the same with later layers routed as in evaluation, for all rows"
    )
    latent_variance: float | None = Field(
        default=None, description="variance of predicted latents of length 1; 0 if collapsed"
    )
    latent_rank: float | None = Field(
        default=None, description="effective rank of predicted latents, 1 to their size"
    )

    co_activation: float | None = Field(
        default=None,
        description="share of an expert's tokens that also take its most frequent partner, mean "
        "over experts by load; none where tokens take one expert",
    )

    @property
    def chosen_load(self) -> tuple[float, ...]:
        """The load of the paths that a token may take or not."""
        loads = zip(self.paths, self.load, strict=True)
        return tuple(load for name, load in loads if name not in self.always)


class SupervisionMonitor(_Part):
    """Agreement of one routed layer with labels, on the training split, in causal evaluation."""

    layer: int
    documents: int = Field(description="training documents with labels")
    supervised: float | None = Field(
        description="share of their tokens on the path of the label; none without any"
    )
    unsupervised: float | None = Field(description="the same for the other training documents")


class Recall(_Part):
    """Loss on tokens that the context has shown before, and on the rest, validation split."""

    order: int = Field(description="length in tokens of the n-gram that stood earlier")
    share: float = Field(description="share of tokens that end such an n-gram")
    recalled: float | None = Field(description="their loss, nats per token")
    rest: float | None = Field(description="loss of the other tokens, nats per token")


class OtherRoutes(_Part):
    """Loss of the trained model on other routes of equal cost, nats per token.

    In a sampled route each token takes the plan of another token of its sequence.
    """

    samples: int
    own: float = Field(description="loss on the router's own route")
    sampled: float = Field(description="mean loss over the sampled routes")
    regret: float = Field(
        description="mean over sequences of the own loss minus the loss of the best sampled route; "
        "0 if the own route is best everywhere"
    )
    fragile: float = Field(
        description="share of tokens whose loss half of the sampled routes raise by over 0.1 nats"
    )
    second: float | None = Field(
        description="loss if each token's best expert is replaced by the best that it did not "
        "choose; none for other paths"
    )


class CausalChoice(_Part):
    """The causal choice of a router with a base, compared with its choice in training.

    On windows of the validation split. The model runs with the choice of training, and both are
    made on its inputs.
    """

    loss: float = Field(description="loss with the causal choice at the budget, nats per token")
    topk_loss: float = Field(description="loss with the choice of training, nats per token")
    accuracy: tuple[float, ...] = Field(
        description="for each site, share of tokens with the same choice, at the calibrated knob"
    )
    own_accuracy: tuple[float, ...] = Field(
        description="the same at knob 0, the own threshold of the router's mechanism"
    )
    own_spend: float = Field(description="spend at knob 0, as a multiple of B")


class Passage(_Part):
    """A passage of validation text with the path each token took, for the report."""

    domain: str
    tokens: tuple[str, ...]
    choices: dict[str, tuple[int, ...]] = Field(
        description="layer -> index of the chosen path set per token"
    )
    legend: dict[str, tuple[str, ...]] = Field(description="layer -> name of each path set")


class RightPaths(_Part):
    """Comparison of routing with the right paths, per site, in the order of `monitors`."""

    accuracy: tuple[float | None, ...] = Field(
        description="share of tokens with a right path that take it, experts matched to domains "
        "one to one; none if the paths do not fit"
    )
    chance: tuple[float | None, ...] = Field(
        description="the same for choices with the same loads that ignore the token"
    )
    best_loss: float = Field(
        description="smallest loss at the budget if only full paths, or right experts, hold the "
        "tables, nats per token"
    )


class Causality(_Part):
    """Result of the causality proof of the trained router."""

    passed: bool
    trials: int
    detail: str = Field(description="the first offence, or the power of the trials")


class CheckOutcome(_Part):
    """Result of one check of a router from outside."""

    router: str
    check: str
    status: Literal["passed", "failed", "waived", "exempt", "expected_failure", "not_run"]
    reason: str = ""


class Record(_Part):
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
