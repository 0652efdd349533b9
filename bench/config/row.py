"""Define the rows of a suite, and the training of their routers."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bench.config.base import Part, added

COMPARED = ("control", "twin_of")
"""Fields that name the rows that a row is compared with, which change nothing in it."""
Role = Literal["ranked", "control", "twin", "bracket", "informed"]
ROW_NAME = r"^[A-Za-z0-9_.@+=-]+$"


class CurriculumConfig(Part):
    """Order of the training sequences (arXiv:2310.07188, section 3.3)."""

    window: int = Field(
        default=64,
        gt=1,
        description="steps whose sequences are ordered together; the first "
        "window stays as it was drawn",
    )
    order: Literal["similarity", "share"] = Field(
        default="similarity",
        description="`similarity` to the sequence with the fewest tokens on several experts, as in "
        "the paper; or the mean `share` of such tokens",
    )


class RouterTraining(Part):
    """Training options of routers of any family."""

    lr_ratio: float = Field(
        default=1.0, gt=0, description="learning rate of routers as a multiple of `adam_lr`"
    )
    clip: float | None = Field(
        default=None, gt=0, description="largest gradient norm of each router"
    )
    losses: dict[str, float] = Field(
        default_factory=dict,
        description="weights of auxiliary losses by name, over the routers' own; any router with "
        "scores can have standard ones",
    )
    init_scale: float = added(
        1.0,
        ge=0,
        description="factor on each router's last layer as it was drawn; near 0, all paths start "
        "equal",
    )
    noise: Literal["none", "gaussian", "jitter", "noisy_top_k"] = added(
        "none",
        description="training noise: `gaussian` on the scores, `jitter` on the router's input, "
        "`noisy_top_k` on the scores with a learnt deviation",
    )
    noise_scale: float | None = added(
        None,
        gt=0,
        description="size of the noise; by default 1 / paths for 'gaussian', 0.01 for 'jitter', "
        "1 for 'noisy_top_k'",
    )
    weight_decay: float = added(0.0, ge=0, description="decoupled weight decay of routers")
    balance_bias: float = added(
        0.0,
        ge=0,
        description="step of a bias by which experts are chosen and not weighed, for balance "
        "without a loss; usual is 0.001",
    )
    expert_dropout: float = added(
        0.0,
        ge=0,
        lt=1,
        description="probability that an expert is dropped for a sequence in training",
    )
    curriculum: CurriculumConfig | None = added(
        None,
        description="order the sequences of a window of steps from easy to hard, by the tokens "
        "that get more than the least; the forward passes for it are charged",
    )
    float32: bool = added(False, description="routers compute in float32 whatever `dtype` is")

    @model_validator(mode="after")
    def _noise_has_a_size(self) -> "RouterTraining":
        if self.noise == "none" and self.noise_scale is not None:
            raise ValueError(
                f"noise_scale is {self.noise_scale:g}, but noise is 'none'; choose 'gaussian', "
                "'jitter' or 'noisy_top_k'"
            )
        if self.noise == "jitter" and self.noise_scale is not None and self.noise_scale >= 1:
            raise ValueError(
                f"noise_scale is {self.noise_scale:g}; jitter multiplies by 1 - scale to "
                "1 + scale, so it must be below 1"
            )
        return self


class RowConfig(Part):
    """One row of the board."""

    name: str = Field(pattern=ROW_NAME, description="the plugin's name, or plugin@variant")
    router: str = Field(
        default="", description="registered name; by default the part of `name` before '@'"
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="options of the router by name; docs/routers.md lists them",
    )
    role: Role = Field(
        default="ranked",
        description="`ranked`: judged; `control`: a baseline that others are compared with; "
        "`twin`: an A/A copy; `bracket`: a reference outside the budget; `informed`: shown but "
        "not ranked, e.g. because it knows the right paths, or because its capacity is given",
    )
    control: str = Field(
        default="", description="row of `random` that chooses the same; found or made if empty"
    )
    training: RouterTraining | None = added(
        None, description="training of its router, in place of the suite's `train.router`"
    )
    lr_scale: float = Field(
        default=1.0, gt=0, description="factor on every learning rate of this row"
    )
    router_seed: int = Field(
        default=0,
        ge=0,
        description="shifts the router's own initialisation and noise: for an A/A twin",
    )
    router_seeds: tuple[Annotated[int, Field(ge=0)], ...] = added(
        (),
        description="router seeds to run at each seed, in place of `router_seed`; the row's value "
        "at a seed is the mean over them",
    )
    twin_of: str = added(
        "",
        description="row that a twin repeats; if empty, the one row of the same router and "
        "options with another `router_seed`",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        # A bare name is a row of its own: `- mlp_gate` for `- name: mlp_gate`.
        data = {"name": data} if isinstance(data, str) else data
        # Filled in here, so that records and content keys hold the name of the router.
        if isinstance(data, dict) and "name" in data and not data.get("router"):
            data = {**data, "router": str(data["name"]).split("@")[0]}
        return data

    @model_validator(mode="after")
    def _router_seeds_are_clear(self) -> "RowConfig":
        given = self.router_seeds
        if len(set(given)) < len(given):
            raise ValueError(
                f"router_seeds is {list(given)}; no number may occur twice, so drop the repeats"
            )
        if given and self.router_seed:
            raise ValueError(
                f"router_seed is {self.router_seed} and router_seeds is {list(given)}; "
                "give one of the two"
            )
        return self

    def alone(self) -> "RowConfig":
        """Return the row without the rows that it is compared with."""
        return self.model_copy(update=dict.fromkeys(COMPARED, ""))

    def replicas(self) -> "tuple[RowConfig, ...]":
        """Return the row once for each router seed that is run at a seed, each with one of them.

        A replica is the row that lists this `router_seed` alone, so it has the same content key.
        """
        return tuple(
            self.model_copy(update={"router_seed": seed, "router_seeds": ()})
            for seed in self.router_seeds
        ) or (self,)
