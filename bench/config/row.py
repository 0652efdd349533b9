"""Rows of a suite, and how their routers are trained."""

from typing import Any, Literal

from pydantic import Field, model_validator

from bench.config.base import Part, added

Role = Literal["ranked", "control", "twin", "bracket", "informed"]
ROW_NAME = r"^[A-Za-z0-9_.@+=-]+$"


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
        default="", description="row of `random` that chooses the same; found or made if empty"
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
    twin_of: str = added(
        "",
        description="row that a twin repeats; if empty, the one row of the same router and "
        "options with another `router_seed`",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        data = {"name": data} if isinstance(data, str) else data
        if isinstance(data, dict) and "name" in data and not data.get("router"):
            data = {**data, "router": str(data["name"]).split("@")[0]}
        return data
