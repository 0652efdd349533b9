"""Define the training recipes of a suite: of its rows, and of a frozen backbone."""

from typing import Literal

from pydantic import Field

from bench.config.base import Part, added
from bench.config.row import RouterTraining


class TrainConfig(Part):
    """Training recipe. `docs/decisions` has the source of each number."""

    reference_tokens: int = Field(
        gt=0,
        description="tokens that set the training budget: the cost of training a hard choice at B "
        "on them, 3 * B * reference_tokens FLOPs in the regime `joint`",
    )
    batch_size: int = Field(default=16, gt=0, description="sequences per step")
    muon_lr: float = Field(
        default=0.01, gt=0, description="learning rate of Muon, for the matrices of the decoder"
    )
    muon_dtype: Literal["float32", "bfloat16"] = added(
        "float32",
        description="precision in which Muon iterates on a CPU; bfloat16 is faster on processors "
        "that have it, see docs/decisions/2026-11-30-a-step-near-its-limit.md",
    )
    adam_lr: float = Field(
        default=0.002, gt=0, description="learning rate of AdamW, for embedding, head and routers"
    )
    warmup: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the budget over which the learning rate rises",
    )
    decay: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of the budget over which the learning rate falls to 0",
    )
    router: RouterTraining = Field(
        default=RouterTraining(), description="training options of all routers"
    )
    probes: int = Field(
        default=10, ge=2, description="causal evaluations during training, for the curves"
    )


class PretrainConfig(Part):
    """Pretraining of the backbone in the regime `controller`, once per seed, before any router."""

    tokens: int = Field(gt=0, description="training tokens")
    batch_size: int = Field(default=16, gt=0, description="sequences per step")
    muon_lr: float = Field(
        default=0.02, gt=0, description="learning rate of Muon, for the matrices of the decoder"
    )
    adam_lr: float = Field(
        default=0.016, gt=0, description="learning rate of AdamW, for embedding and head"
    )
    cheap_lr: float = Field(
        default=0.02,
        gt=0,
        description="learning rate of the cheap paths (Muon), which learn to predict the full "
        "path's update",
    )
    warmup: float = Field(
        default=0.1, ge=0, le=1, description="share of the steps over which the learning rate rises"
    )
    decay: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of the steps over which the learning rate falls to 0",
    )
