"""The contract between the bench and a router.

A router sees what `RouterInput` holds, answers with a `RoutingPlan`, and never reports its own cost
or success. The dispatcher executes the plan, the ledger charges it, all metrics are read off it.

Axes: `batch seq d_model path`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from bench.routing.allowed_paths import fault, is_expert

Made = Literal["utility", "labels"]
"""Fields of a trace that it takes work to fill."""
Policy = Literal["off_policy", "on_policy"]


@dataclass(frozen=True)
class OracleRequest:
    """How utility labels of a training batch are made, for routers whose `needs` has "utility"
    (arXiv:2604.17228).

    The utility of the upgrade at a token is the loss with the base path there less the loss with
    the upgrade.

    Attributes:
        policy: "off_policy": the layers after the fork take their upgrade everywhere; "on_policy":
            they are routed by the router itself.
        flip_fraction: share of tokens whose path is flipped in a fork; 1 flips all at once, which
            confounds tokens through later attention.
        layers: "one" routed layer a step, drawn evenly, or "all" of them, a fork each.

    Raises:
        ValueError: a value that is not allowed.
    """

    policy: Policy = "off_policy"
    flip_fraction: float = 0.25
    layers: Literal["one", "all"] = "one"

    def __post_init__(self) -> None:
        if self.policy not in ("off_policy", "on_policy"):
            raise ValueError(f"policy is {self.policy!r}; allowed are 'off_policy', 'on_policy'.")
        if not 0 < self.flip_fraction <= 1:
            raise ValueError(
                f"flip_fraction is {self.flip_fraction}; it must be above 0 and at most 1."
            )
        if self.layers not in ("one", "all"):
            raise ValueError(f"layers is {self.layers!r}; allowed are 'one', 'all'.")


class Site(StrEnum):
    """Where in a layer the choice is made."""

    FFN = "ffn"
    """Per token among FFN-like paths; attention runs for every token."""
    BLOCK = "block"
    """Attention and FFN together; only the chosen tokens are queries, keys and values."""


@dataclass(frozen=True)
class Paths:
    """The paths a router chooses among; docs/allowed-paths.md has the table of all allowed paths.

    Attributes:
        site: where the choice is made.
        names: one name a path, the order of the plan's last axis.
        base: the path a token takes when it is not upgraded; the first of two. With a base the
            budget fixes a `capacity`, the share of tokens that take the other path; without one it
            fixes the width of an expert.
        segment: tokens that share one merged expert, for experts that are merged and not chosen
            (see `RoutingPlan.merge`); a length, not a number, so that a prefix of a sequence is cut
            as the whole is.
        always: paths that every token takes. They are not chosen, so losses, balance and monitors
            leave them out.

    Raises:
        ValueError: the table does not have these paths.
    """

    site: Site
    names: tuple[str, ...]
    base: str | None = None
    segment: int | None = None
    always: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if wrong := fault(self.site, self.names, self.base, self.segment, self.always):
            raise ValueError(f"Paths: {wrong}")

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, which `mean_experts` counts."""
        return tuple(name for name in self.names if is_expert(name))

    @property
    def chosen(self) -> list[int]:
        """Indices of the paths that a token may take or not."""
        return [index for index, name in enumerate(self.names) if name not in self.always]


FFN_GATE = Paths(Site.FFN, ("cheap", "full"), base="cheap")
BLOCK_GATE = Paths(Site.BLOCK, ("skip", "block"), base="skip")


def experts(count: int, segment: int | None = None, shared: int = 0) -> Paths:
    """Return the paths of `count` experts of equal width, without a base.

    Args:
        count: of the experts that are chosen or merged.
        segment: tokens that share a merged expert, if they are merged.
        shared: further experts that every token takes; they come first.
    """
    always = tuple(f"expert_shared{index}" for index in range(shared))
    names = tuple(f"expert{index}" for index in range(count))
    return Paths(Site.FFN, always + names, segment=segment, always=always)


@dataclass(frozen=True)
class RouterSpec:
    """What the harness has decided for the router of one layer.

    Attributes:
        d_model: width of `RouterInput.hidden`.
        paths: the router's own paths.
        capacity: share of this layer's tokens to upgrade from the base; 1.0 without a base.
        mean_experts: mean number of experts per token of this layer, without a base.
        layer: index of the layer in the decoder.
        num_layers: layers of the decoder.
        vocab_size: number of token ids.
        max_seq_len: longest sequence the harness will send.
        num_domains: number of domain tags.
        seed: for noise that must be the same in any batch (`bench.routing.hash_noise`).
        routed_layers: the layers that hold a router of this row, this one among them.
    """

    d_model: int
    paths: Paths
    capacity: float
    mean_experts: float
    layer: int
    num_layers: int
    vocab_size: int
    max_seq_len: int
    num_domains: int
    seed: int
    routed_layers: tuple[int, ...] = ()


Selection = Literal["topk", "causal"]


@runtime_checkable
class RouterNoise(Protocol):
    """What a recipe adds to the scores of a router in training
    (`bench.model.router_noise.TrainingNoise`).

    Attributes:
        bias: one number a path that balances the choice of experts, or None.
    """

    bias: Tensor | None

    def perturb(self, scores: Tensor, hidden: Tensor, noise: torch.Generator | None) -> Tensor:
        """Return the scores with noise, and with some experts dropped."""
        ...

    def biased(self, probabilities: Tensor) -> Tensor:
        """Return what experts are chosen by."""
        ...

    def around(self, inputs: RouterInput, ask: Callable[[RouterInput], RoutingPlan]) -> RoutingPlan:
        """Ask for a plan with perturbed inputs, in the precision that the recipe wants."""
        ...

    def after_step(self, mask: Tensor) -> None:
        """Update the bias from the choices of a step."""
        ...


@dataclass(frozen=True)
class RouterInput:
    """All that a router may see.

    Attributes:
        hidden: what the paths read, after the norm of the site.
        tokens: token ids.
        positions: position of each token in its sequence.
        tags: domain of each token; only for routers whose `needs` has "tags", else None.
        previous: trace of the routed site before, or None; None inside a routed block.
        generator: the only source of randomness, for training.
        progress: share of the training budget spent, 0 to 1.
        selection: "topk" in training, where a choice may compare a whole sequence; "causal" in
            evaluation, where the choice for a token may depend on that token and those before it.
        truth: right path of each token where the data tell it, else -1; only for routers whose
            `needs` has "truth", else None.
        noise: what the recipe adds to the router's scores, through `bench.routing.select`; None if
            nothing.
        attention: what share of its attention each token gives itself, a mean over heads, without
            gradient; only for routers whose `needs` has "attention", else None. It is of the
            layer's own attention at an FFN site. At a block site it is of the layer before, or for
            a token that was not chosen there of the last such layer that it took part in, 0 if
            there was none. Attention-scored Mixture-of-Depths (arXiv:2412.20875) ranks a token by
            the attention it receives from all others. In a decoder all but its own comes from later
            tokens, so a token's weight on itself is what of that score is causal.
        valid: inside a routed block, False for tokens whose plan is not run; they fill up the
            shorter sequences.
    """

    hidden: Float[Tensor, "batch seq d_model"]
    tokens: Int[Tensor, "batch seq"]
    positions: Int[Tensor, "batch seq"]
    tags: Int[Tensor, "batch seq"] | None
    previous: LayerTrace | None
    generator: torch.Generator | None
    progress: float
    selection: Selection
    truth: Int[Tensor, "batch seq"] | None = None
    noise: RouterNoise | None = None
    attention: Float[Tensor, "batch seq"] | None = None
    valid: Bool[Tensor, "batch seq"] | None = None


@dataclass
class RoutingPlan:
    """A sparse weighted choice among paths.

    Attributes:
        mask: which paths run for which token; this is executed and charged.
        weight: factor on each path's output, or None for 1 wherever `mask` is set. It may be 0
            where `mask` is 1: straight-through, relaxed and soft training run both paths and pay
            for both.
        scores: one number a path and token, higher for more wanted, for metrics; None if there is
            none.
        counts: for each path the number of tokens a sequence that take it, if that is known
            beforehand. Lets the dispatcher work without waiting for the device.
        extras: what the router's own auxiliary losses need.
        merge: weights with which the experts' parameters are averaged into one for each segment of
            `Paths.segment` tokens, the last of which may be shorter (SMEAR, arXiv:2306.03745,
            section 3; Lory, arXiv:2405.03133, section 2.2). To be causal, a segment's weights come
            from the segments before it. One merged expert runs, so `mask` marks one path a token,
            any of them; `weight` factors what comes out.
        choice: what was chosen, where more is run, by straight-through and soft training or by
            probing; or less, by dropping. Losses that count choices (balance, policy gradient)
            count these.
    """

    mask: Bool[Tensor, "batch seq path"]
    weight: Float[Tensor, "batch seq path"] | None = None
    scores: Float[Tensor, "batch seq path"] | None = None
    counts: tuple[int, ...] | None = None
    extras: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    merge: Float[Tensor, "batch segment path"] | None = None
    choice: Bool[Tensor, "batch seq path"] | None = None

    @property
    def chosen(self) -> Bool[Tensor, "batch seq path"]:
        """The paths that the plan means: `choice`, or what runs."""
        return self.mask if self.choice is None else self.choice


@dataclass
class LayerTrace:
    """What happened at one routed site: all that an auxiliary loss may see.

    Attributes:
        layer: index of the layer.
        paths: the paths chosen among.
        inputs: what the router saw.
        plan: what it chose.
        update: the weighted sum of the paths' outputs, `[batch, seq, d_model]`.
        path_updates: path name -> (flat token index or None for all tokens, unweighted output of
            that path); "merged" -> the same of merged experts.
        token_loss: LM loss of each token, training only, where `needs` has "token_loss".
        utility: oracle utility of the upgrade, training only, where `needs` has "utility"; NaN for
            a token without a label, None where no fork was made of this layer in this step.
        labels: supervised path index, -100 where there is none; None where none was made in this
            step.
    """

    layer: int
    paths: Paths
    inputs: RouterInput
    plan: RoutingPlan
    update: Float[Tensor, "batch seq d_model"]
    path_updates: dict[str, tuple[Int[Tensor, " token"] | None, Float[Tensor, "token d_model"]]]
    token_loss: Float[Tensor, "batch seq"] | None = None
    utility: Float[Tensor, "batch seq"] | None = None
    labels: Int[Tensor, "batch seq"] | None = None

    def of_chosen(self, values: Shaped[Tensor, "batch seq path"]) -> Shaped[Tensor, "batch seq _"]:
        """Return the values of the paths that a token may take or not."""
        return values[..., self.paths.chosen] if self.paths.always else values


@dataclass(frozen=True)
class AuxLoss:
    """An auxiliary loss.

    Attributes:
        compute: a pure function of one layer's trace.
        weight: unless the suite says otherwise; of 0, it neither runs nor costs anything.
        uses: fields of the trace that are made for it. It is left out of a layer for which they
            were not made in a step.
        until: share of training after which its weight is 0.
        layers: the "sum" of the layers' losses counts, as in Switch (arXiv:2101.03961) and GShard
            (arXiv:2006.16668), or their "mean", so that a weight means the same at any depth. Only
            layers that have the loss in a step count.
    """

    compute: Callable[[LayerTrace], Float[Tensor, ""]]
    weight: float
    uses: frozenset[Made] = frozenset()
    until: float = 1.0
    layers: Literal["sum", "mean"] = "sum"


class Router(nn.Module):
    """Base of every router: set `paths`, write `forward`; the rest has defaults.

    Options are keyword arguments of `__init__` with defaults, so that any router can be built
    blind. Parameters are made in `build`, once the harness has decided widths and capacity.

    Attributes:
        paths: the paths chosen among.
        layers: which routed layers to use: "every" of the suite's, or every "other" one.
        mean_experts: mean number of experts per token (routers without a base); `skip`, `cheap` and
            `full` are no experts.
        needs: what the router asks for beyond the default: "tags", "truth", "utility",
            "token_loss", "attention".
        trains_dense: training runs more paths than evaluation does; both are charged.
        allows_none: a token may take no path at all.
        aux_losses: name -> loss; the suite weighs them by name, and one of weight 0 neither runs
            nor is charged.
        knob: None, or a buffer that makes causal evaluation spend more as it rises: a scalar, or
            one number a path for thresholds of each expert. The harness bisects it.
        oracle: how its utility labels are made, if its `needs` has "utility"; None for the
            defaults.
        supervised: share of the training documents for whose tokens it is told the right paths, as
            `label` says them.
        wraps: names of options that stand for routers. A suite gives a name, or {router: name,
            options: {...}}; the harness makes the router and hands it over in the option's place.
        memory: size of a table that each layer of the router adds to the stream, one vector for
            each hashed pair of tokens, in parameters of an expert (of the full FFN where there is
            none). To read it costs no FLOPs.
    """

    paths: Paths
    layers: Literal["every", "other"] = "every"
    mean_experts: float = 1.0
    needs: frozenset[str] = frozenset()
    trains_dense: bool = False
    allows_none: bool = False
    spec: RouterSpec
    knob: Tensor | None
    noise: RouterNoise | None
    oracle: OracleRequest | None = None
    supervised: float = 0.0
    wraps: tuple[str, ...] = ()
    memory: float = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses: dict[str, AuxLoss] = {}
        self.register_buffer("knob", None)
        self.register_module("noise", None)

    def build(self, spec: RouterSpec) -> None:
        """Make parameters and buffers. Override, and call `super().build(spec)` first."""
        self.spec = spec

    def relative_share(self, path: str, place: int, count: int) -> float:
        """Return the share of tokens on a path in a layer, relative to other layers and paths.

        The budget scales all shares by one factor; calibration keeps their ratios in evaluation.
        Of a gate the share of the upgrade counts; those of experts are scaled to `mean_experts`.

        Args:
            path: one of `paths.names`.
            place: index of the layer among the `count` layers in use, from 0.
            count: number of layers in use.
        """
        return 1.0

    def inside(self) -> Router | None:
        """Make a second router for the FFN inside this router's block; None for a dense FFN.

        It is built, trained and calibrated like any router, on the tokens in the block. It must not
        be a module of this router.
        """
        return None

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Choose paths for every token."""
        raise TypeError(f"{type(self).__name__} must define forward(inputs) -> RoutingPlan.")

    def fit(self, statistics: TrainStatistics) -> None:
        """Learn tables from the training split, once, before training."""

    def after_step(self, trace: LayerTrace) -> None:
        """Update buffers after an optimiser step, without gradient.

        State that matters must be a buffer.
        """

    def label(self, trace: LayerTrace) -> Int[Tensor, "batch seq"]:
        """Right path of each token, -100 where it is not known, for `supervised` routers; the
        harness asks without gradient and charges it.

        It comes back as `labels` of the trace, -100 also for the tokens of documents that are not
        supervised.
        """
        raise TypeError(
            f"{type(self).__name__} is supervised; it must define label(trace) -> path of each token."
        )

    def enable_knob(self) -> None:
        """Give the router a knob, at 0. Call in `build`."""
        self.register_buffer("knob", torch.zeros(()))


@dataclass(frozen=True)
class TrainStatistics:
    """Counts over the training split.

    Attributes:
        unigram: occurrences of each token id.
        bigram: occurrences of each (previous, current) pair, or None where the vocabulary is too
            large for it.
    """

    unigram: Int[Tensor, " vocab"]
    bigram: Int[Tensor, "vocab vocab"] | None = None
