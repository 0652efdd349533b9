"""Suites: what is run and how, read from YAML, validated and frozen.

A suite fixes everything but the router: data, backbone, budget, training recipe, rows and the
comparisons that will be made. Nothing here depends on torch, so the board can read it too.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bench.config.base import Part, added
from bench.config.data import DataConfig
from bench.config.looks import ALLOWED, possible

Role = Literal["ranked", "control", "twin", "bracket", "informed"]
ROW_NAME = r"^[A-Za-z0-9_.@+=-]+$"
MOST_SEEDS = 10_000


class RouterTraining(Part):
    """How routers are trained, whatever their family."""

    lr_ratio: float = Field(
        default=1.0, gt=0, description="learning rate of routers as a multiple of `adam_lr`"
    )
    clip: float | None = Field(
        default=None, gt=0, description="largest gradient norm of each router"
    )
    losses: dict[str, float] = Field(
        default_factory=dict,
        description="weights of auxiliary losses by name, over the routers' own; any router with scores can have standard ones",
    )
    init_scale: float = added(
        1.0,
        ge=0,
        description="factor on each router's last layer as it was drawn; near 0, all paths start equal",
    )
    noise: Literal["none", "gaussian", "jitter", "noisy_top_k"] = added(
        "none",
        description="training noise: on the scores, on what the router reads, or on the scores with a learnt deviation",
    )
    noise_scale: float | None = added(
        None,
        gt=0,
        description="its size; by default 1 / paths for 'gaussian', 0.01 for 'jitter', 1 for 'noisy_top_k'",
    )
    weight_decay: float = added(0.0, ge=0, description="decoupled weight decay of routers")
    balance_bias: float = added(
        0.0,
        ge=0,
        description="step of a bias by which experts are chosen and not weighed, for balance without a loss; usual is 0.001",
    )
    expert_dropout: float = added(
        0.0,
        ge=0,
        lt=1,
        description="probability that an expert is dropped for a sequence in training",
    )
    float32: bool = added(False, description="routers compute in float32 whatever `dtype` is")

    @model_validator(mode="after")
    def _noise_has_a_size(self) -> "RouterTraining":
        if self.noise == "none" and self.noise_scale is not None:
            raise ValueError(
                f"noise_scale is {self.noise_scale:g}, but noise is 'none'; choose 'gaussian', 'jitter' or 'noisy_top_k'"
            )
        if self.noise == "jitter" and self.noise_scale is not None and self.noise_scale >= 1:
            raise ValueError(
                f"noise_scale is {self.noise_scale:g}; jitter multiplies by 1 - scale to 1 + scale, so it must be below 1"
            )
        return self


class RowConfig(Part):
    """One row of the board."""

    name: str = Field(pattern=ROW_NAME, description="the plugin's name, or plugin@variant")
    router: str = Field(
        default="", description="registered name; by default the part of `name` before '@'"
    )
    options: dict[str, Any] = Field(default_factory=dict)
    role: Role = "ranked"
    control: str = Field(
        default="", description="row of `random` over the same paths; found by the paths if empty"
    )
    training: RouterTraining | None = added(
        None, description="how its router is trained, in place of the suite's `train.router`"
    )
    lr_scale: float = Field(
        default=1.0, gt=0, description="factor on every learning rate of this row"
    )
    router_seed: int = Field(
        default=0,
        ge=0,
        description="shifts the router's own initialisation and noise: for an A/A twin",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        data = {"name": data} if isinstance(data, str) else data
        if isinstance(data, dict) and "name" in data and not data.get("router"):
            data = {**data, "router": str(data["name"]).split("@")[0]}
        return data


class TrainConfig(Part):
    """The training recipe; `docs/decisions` says where each figure comes from."""

    reference_tokens: int = Field(
        gt=0,
        description="the training budget is what a hard choice at B costs on so many tokens: 3 * B * reference_tokens FLOPs in `joint`",
    )
    batch_size: int = Field(default=16, gt=0)
    muon_lr: float = Field(default=0.01, gt=0)
    adam_lr: float = Field(default=0.002, gt=0)
    warmup: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the budget over which the learning rate rises",
    )
    decay: float = Field(
        default=0.5, ge=0, le=1, description="share of the budget over which it falls to 0"
    )
    router: RouterTraining = RouterTraining()
    probes: int = Field(
        default=10, ge=2, description="causal evaluations during training, for the curves"
    )


class PretrainConfig(Part):
    """How the backbone of the regime `controller` is trained before any router is, once a seed."""

    tokens: int = Field(gt=0, description="tokens seen")
    batch_size: int = Field(default=16, gt=0)
    muon_lr: float = Field(default=0.02, gt=0)
    adam_lr: float = Field(default=0.016, gt=0)
    cheap_lr: float = Field(
        default=0.02,
        gt=0,
        description="of the cheap paths, which learn the full path's update (Muon)",
    )
    warmup: float = Field(
        default=0.1, ge=0, le=1, description="share of the steps over which the learning rate rises"
    )
    decay: float = Field(
        default=0.5, ge=0, le=1, description="share of the steps over which it falls to 0"
    )


class EvaluationConfig(Part):
    """Calibration and evaluation; windows are per domain and hold `seq_len` tokens."""

    calibration_windows: int = Field(default=48, gt=0)
    validation_windows: int = Field(default=96, gt=0)
    probe_windows: int = Field(default=8, gt=0)
    batch_size: int = Field(default=64, gt=0)
    sweep: tuple[Annotated[float, Field(gt=0, lt=10)], ...] = Field(
        default=(0.97, 0.985, 1.0, 1.015, 1.03),
        description="knob settings, as multiples of B; B itself is always one of them",
    )
    tolerance: float = Field(default=0.01, gt=0, lt=1, description="largest relative miss of B")


class ComparisonConfig(Part):
    """What will be compared, declared before the run."""

    margin: float = Field(
        default=0.01, gt=0, description="nats a byte; differences within it count as equivalent"
    )
    alpha: float = Field(default=0.05, ge=1e-6, lt=0.5)
    looks: tuple[int, ...] = Field(
        default=(), description="numbers of seeds at which the board may be judged"
    )
    largest_effect: float | None = Field(
        default=None,
        gt=0,
        description="largest plausible difference, nats a byte; untestable where even that could not be found",
    )
    dense_matched: str = Field(
        default="dense_matched", description="row that spends B without routing"
    )

    @model_validator(mode="after")
    def _looks_can_be_held(self) -> "ComparisonConfig":
        if not possible(self.looks):
            raise ValueError(f"looks is {list(self.looks)}; give {ALLOWED}")
        return self


class SensitivityConfig(Part):
    """Extra cells that show how much each row depends on its learning rate.

    They are on a seed that no ranking uses.
    """

    lr_scales: tuple[float, ...] = Field(
        default=(), description="factors on every learning rate of a row"
    )
    seed: int = Field(default=100, ge=0)

    @model_validator(mode="after")
    def _positive(self) -> "SensitivityConfig":
        if any(scale <= 0 for scale in self.lr_scales):
            raise ValueError(f"lr_scales is {list(self.lr_scales)}; factors must be above 0")
        return self


class SuiteConfig(Part):
    """A suite, whole."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    purpose: str
    regime: Literal["joint", "controller"] = Field(
        default="joint",
        description="backbone and routers from scratch, or routers alone on a backbone that was pretrained and is frozen",
    )
    pretrain: PretrainConfig | None = added(
        None, description="of the backbone, in the regime `controller`"
    )
    backbone: str
    routed_layers: tuple[int, ...] = Field(min_length=1)
    seq_len: int = Field(gt=1)
    budget: float = Field(default=0.5, gt=0, lt=1, description="rho")
    match: Literal["flops", "tokens"] = "flops"
    seeds: int = Field(default=3, gt=0, le=MOST_SEEDS)
    data: DataConfig = Field(default_factory=lambda: DataConfig.model_validate({}))
    train: TrainConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    comparison: ComparisonConfig = ComparisonConfig()
    sensitivity: SensitivityConfig = SensitivityConfig()
    thresholds: tuple[float, ...] = Field(
        default=(), description="losses in nats a byte whose first crossing is timed"
    )
    plugins: tuple[str, ...] = added(
        (), description="files or folders of plugins, relative to the suite's file"
    )
    rows: tuple[RowConfig, ...] = Field(min_length=1)
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    compile: bool = Field(
        default=False,
        description="compile attention and paths with torch.compile; rounding then differs, so records stand apart from those without",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "SuiteConfig":
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(
                f"rows name {sorted({n for n in names if names.count(n) > 1})} twice; row names must be unique"
            )
        if tuple(sorted(set(self.routed_layers))) != self.routed_layers:
            raise ValueError(
                f"routed_layers is {list(self.routed_layers)}; it must be ascending without repeats"
            )
        if self.routed_layers[0] < 0:
            raise ValueError(
                f"routed_layers is {list(self.routed_layers)}; layers count from 0, so give e.g. [1, 2]"
            )
        task = self.data.planted
        if task is not None and task.document_tokens != self.seq_len + 1:
            raise ValueError(
                f"seq_len is {self.seq_len}; planted documents are read whole, so it must be {task.document_tokens - 1}"
            )
        if (self.pretrain is not None) != (self.regime == "controller"):
            raise ValueError(
                f"regime is {self.regime!r}: 'controller' needs the group `pretrain`, 'joint' takes none"
            )
        return self

    def row(self, name: str) -> RowConfig:
        """The row of a name; a bare router that the suite does not list gets a ranked row of its
        own.
        """
        found = {row.name: row for row in self.rows}
        return found[name] if name in found else RowConfig.model_validate({"name": name})
