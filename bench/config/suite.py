"""Suites: what is run and how, read from YAML, validated and frozen.

A suite fixes everything but the router: data, backbone, budget, training recipe, rows and the
comparisons that will be made. Nothing here depends on torch, so the board can read it too.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.config.base import Part, added
from bench.config.data import DataConfig
from bench.config.looks import ALLOWED, possible
from bench.config.roles import DENSE_MATCHED, check_names
from bench.config.row import RouterTraining, RowConfig
from bench.errors import UserError, unknown

MOST_SEEDS = 10_000


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
        default=DENSE_MATCHED,
        description="row that spends B without routing; where no row has the default name, the "
        "one control of the router `dense_matched`",
    )

    remark: str = added(
        "",
        max_length=300,
        description="history of the declaration that a reader of the verdicts must know, such as "
        "why a look was added; shown on the board",
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
        try:
            check_names(self.rows, self.sensitivity.lr_scales)
        except UserError as error:
            raise ValueError(str(error)) from None
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
        """Return the row of a name; a bare router that is not listed gets a ranked row of its own.

        Raises:
            UserError: a variant, as `mlp_gate@relaxed`, that the suite does not list.
        """
        found = {row.name: row for row in self.rows}
        if name in found:
            return found[name]
        if "@" in name:
            advice = "A variant is a row of the suite, with its options: add it to `rows`."
            raise unknown("row", name, found, advice)
        return RowConfig.model_validate({"name": name})
