"""Define suites: validated, frozen configurations of a board.

A suite fixes everything but the router: data, backbone, budget, training recipe, rows and the
planned comparisons. Imports no torch, so that the board can read suites too.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.config.base import Part, added
from bench.config.data import DataConfig
from bench.config.looks import ALLOWED, possible
from bench.config.recipe import PretrainConfig, TrainConfig
from bench.config.roles import DENSE_MATCHED, check_names
from bench.config.row import RowConfig
from bench.errors import UserError, unknown

MOST_SEEDS = 10_000


class EvaluationConfig(Part):
    """Calibration and evaluation. A window holds `seq_len` tokens."""

    calibration_windows: int = Field(
        default=48, gt=0, description="windows per domain for calibrating the knob"
    )
    validation_windows: int = Field(
        default=96, gt=0, description="windows per domain for the headline loss"
    )
    probe_windows: int = Field(
        default=8, gt=0, description="windows per domain for each evaluation during training"
    )
    batch_size: int = Field(default=64, gt=0, description="windows per forward pass")
    sweep: tuple[Annotated[float, Field(gt=0, lt=10)], ...] = Field(
        default=(0.97, 0.985, 1.0, 1.015, 1.03),
        description="spends to evaluate at, as multiples of B; 1.0 is always added",
    )
    tolerance: float = Field(
        default=0.01, gt=0, lt=1, description="largest relative difference between spend and B"
    )


class ComparisonConfig(Part):
    """Planned comparisons, declared before the run."""

    margin: float = Field(
        default=0.01, gt=0, description="nats per byte; smaller differences count as equivalent"
    )
    alpha: float = Field(
        default=0.05,
        ge=1e-6,
        lt=0.5,
        description="probability of any false claim of a difference on the whole board",
    )
    looks: tuple[int, ...] = Field(
        default=(),
        description="numbers of seeds at which the board may be judged, increasing; empty for "
        "a single look",
    )
    largest_effect: float | None = Field(
        default=None,
        gt=0,
        description="largest plausible difference, nats per byte; a comparison that could not "
        "detect even that is untestable",
    )
    dense_matched: str = Field(
        default=DENSE_MATCHED,
        description="row that spends B without routing; if no row has the default name, the only "
        "control of the router `dense_matched`",
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
    """Extra cells that measure how much each row depends on its learning rate."""

    lr_scales: tuple[float, ...] = Field(
        default=(), description="factors on every learning rate of a row, above 0; a cell each"
    )
    seed: int = Field(default=100, ge=0, description="seed of these cells; no ranking uses it")

    @model_validator(mode="after")
    def _positive(self) -> "SensitivityConfig":
        if any(scale <= 0 for scale in self.lr_scales):
            raise ValueError(f"lr_scales is {list(self.lr_scales)}; factors must be above 0")
        return self


class SuiteConfig(Part):
    """Top-level fields of a suite."""

    name: str = Field(
        pattern=r"^[a-z0-9-]+$", description="name of the suite and of its folder of records"
    )
    purpose: str = Field(description="the question that the suite answers, in a few sentences")
    regime: Literal["joint", "controller"] = Field(
        default="joint",
        description="`joint` trains backbone and routers from scratch; `controller` trains the "
        "routers alone, on a pretrained and frozen backbone",
    )
    pretrain: PretrainConfig | None = added(
        None, description="pretraining of the backbone; for the regime `controller` only"
    )
    backbone: str = Field(
        description="size of the decoder, a name in `bench/backbone/presets.py`, such as tiny, "
        "wide, 30m or paper"
    )
    qk_gain: bool = added(
        False,
        description="learn a gain on the normalised queries and keys, as in Qwen3; "
        "docs/decisions/2026-11-30-defaults-of-the-authors.md has its measurement",
    )
    routed_layers: tuple[int, ...] = Field(
        min_length=1, description="layers that hold a router, ascending, counted from 0"
    )
    seq_len: int = Field(gt=1, description="tokens per sequence")
    budget: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="rho: share of the cost of the routed full paths that the inference budget B "
        "pays for",
    )
    match: Literal["flops", "tokens"] = Field(
        default="flops", description="train every row for equal FLOPs, or on equal tokens"
    )
    seeds: int = Field(default=3, gt=0, le=MOST_SEEDS, description="default number of seeds")
    data: DataConfig = Field(
        default_factory=lambda: DataConfig.model_validate({}), description="the text"
    )
    train: TrainConfig = Field(description="the training recipe")
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(), description="calibration and evaluation"
    )
    comparison: ComparisonConfig = Field(
        default=ComparisonConfig(), description="the planned comparisons"
    )
    sensitivity: SensitivityConfig = Field(
        default=SensitivityConfig(), description="extra cells at other learning rates"
    )
    thresholds: tuple[float, ...] = Field(
        default=(),
        description="losses, nats per byte; the board shows when each row first falls below them",
    )
    plugins: tuple[str, ...] = added(
        (), description="files or folders of plugins, relative to the suite's file"
    )
    rows: tuple[RowConfig, ...] = Field(
        min_length=1,
        description="the rows of the board; a bare name is a ranked row of that router",
    )
    device: str = Field(default="cpu", description="device of torch, e.g. cpu, cuda or cuda:1")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="precision of the forward pass; `auto` takes bfloat16 where the device has "
        "instructions for it, else float32, and the record names the one that was taken",
    )
    compile: bool = Field(
        default=False,
        description="compile attention and paths with torch.compile; rounding then differs, so "
        "these records are kept apart",
    )
    parallel: Literal["none", "ddp", "fsdp"] = added(
        "none",
        description="share each cell among the ranks of torchrun: `ddp` copies the model, `fsdp` "
        "shards its weights; rounding then differs, so these records are kept apart",
    )
    ranks: int = added(
        1, gt=0, description="number of ranks that share a cell; torchrun sets it in `bench run`"
    )

    @model_validator(mode="after")
    def _can_be_shared(self) -> "SuiteConfig":
        if self.ranks == 1:
            return self
        if self.train.batch_size % self.ranks:
            raise ValueError(
                f"train.batch_size is {self.train.batch_size}; {self.ranks} ranks take equal parts "
                "of a batch, so it must be a multiple of their number"
            )
        if self.regime == "controller":
            raise ValueError(
                f"ranks is {self.ranks}; a frozen backbone is pretrained in one process, so the "
                "regime 'controller' takes 1"
            )
        if ":" in self.device:
            raise ValueError(
                f"device is {self.device!r}; each rank takes the GPU of its own number, so give "
                f"{self.device.partition(':')[0]!r}"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "SuiteConfig":
        # Names are folders of records and keys of verdicts.
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(
                f"rows name {sorted({n for n in names if names.count(n) > 1})} twice; row names "
                "must be unique"
            )
        try:
            check_names(self.rows, self.sensitivity.lr_scales)
        except UserError as error:
            raise ValueError(str(error)) from None
        # Ascending, so that one placement has one spelling, and so one content key.
        if tuple(sorted(set(self.routed_layers))) != self.routed_layers:
            raise ValueError(
                f"routed_layers is {list(self.routed_layers)}; it must be ascending without repeats"
            )
        if self.routed_layers[0] < 0:
            raise ValueError(
                f"routed_layers is {list(self.routed_layers)}; layers count from 0, so give e.g. "
                "[1, 2]"
            )
        # A window holds one token more than it predicts, and a document is one window.
        task = self.data.planted
        if task is not None and task.document_tokens != self.seq_len + 1:
            raise ValueError(
                f"seq_len is {self.seq_len}; planted documents are read whole, so it must be "
                f"{task.document_tokens - 1}"
            )
        if (self.pretrain is not None) != (self.regime == "controller"):
            raise ValueError(
                f"regime is {self.regime!r}: 'controller' needs the group `pretrain`, 'joint' "
                "takes none"
            )
        return self

    def row(self, name: str) -> RowConfig:
        """Return the row of a name. A router that is not listed gets a ranked row.

        Raises:
            UserError: the suite does not list this variant, such as `mlp_gate@relaxed`.
        """
        found = {row.name: row for row in self.rows}
        if name in found:
            return found[name]
        # The options of a variant are in the suite alone, so its name says nothing by itself.
        if "@" in name:
            advice = "A variant is a row of the suite, with its options: add it to `rows`."
            raise unknown("row", name, found, advice)
        return RowConfig.model_validate({"name": name})
