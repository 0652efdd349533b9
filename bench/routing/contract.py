"""Define the contract between the bench and a router.

A router gets a `RouterInput` and answers with a `RoutingPlan`. It never reports its own cost or
success. The dispatcher executes the plan, the ledger charges it, and all metrics are read off it.

Axes: `batch seq d_model path`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from bench.routing.paths import Paths

Made = Literal["utility", "labels"]
"""Fields of a trace that cost work to fill."""
NEEDS = frozenset({"tags", "truth", "utility", "token_loss", "attention", "received", "stream"})
"""Inputs beyond the default that a router can ask for in `Router.needs`."""
Policy = Literal["off_policy", "on_policy"]


@dataclass(frozen=True)
class OracleRequest:
    """Rule for the utility labels of a training batch (arXiv:2604.17228).

    It is for routers whose `needs` has "utility". The utility of the upgrade at a token is the loss
    with the base path there minus the loss with the upgrade.

    Attributes:
        policy: "off_policy": the layers after the fork take their upgrade everywhere; "on_policy":
            the router itself routes them.
        flip_fraction: share of tokens whose path is flipped in a fork; 1 flips all at once, which
            confounds tokens through later attention.
        layers: "one" routed layer per step, drawn evenly, or "all" of them, with a fork each.

    Raises:
        ValueError: a value that is not allowed.
    """

    policy: Policy = "off_policy"
    flip_fraction: float = 0.25
    layers: Literal["one", "all"] = "one"

    def __post_init__(self) -> None:
        if self.policy not in ("off_policy", "on_policy"):
            raise ValueError(f"policy is {self.policy!r}; allowed are 'off_policy', 'on_policy'.")
        # Labels exist for flipped tokens alone, so some must flip.
        if not 0 < self.flip_fraction <= 1:
            raise ValueError(
                f"flip_fraction is {self.flip_fraction}; it must be above 0 and at most 1."
            )
        if self.layers not in ("one", "all"):
            raise ValueError(f"layers is {self.layers!r}; allowed are 'one', 'all'.")


@dataclass(frozen=True)
class RouterSpec:
    """The sizes that the harness has fixed for the router of one layer.

    Attributes:
        d_model: width of `RouterInput.hidden`.
        paths: the router's own paths.
        capacity: share of this layer's tokens to upgrade from the base; 1.0 without a base.
        mean_experts: mean number of experts per token of this layer, without a base.
        layer: index of the layer in the decoder.
        num_layers: number of layers in the decoder.
        vocab_size: number of token ids.
        max_seq_len: longest sequence that the harness will send.
        num_domains: number of domain tags.
        seed: seed for noise that must be the same in any batch (`bench.routing.hash_noise`).
        routed_layers: all layers that hold a router of this row.
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
    """Noise and bias of a recipe for a router (`bench.model.router_noise.TrainingNoise`).

    Attributes:
        bias: one number per path that balances the choice of experts, or None.
    """

    bias: Tensor | None

    def perturb(self, scores: Tensor, hidden: Tensor, noise: torch.Generator | None) -> Tensor:
        """Return the scores with noise, and with some experts dropped."""
        ...

    def biased(self, probabilities: Tensor) -> Tensor:
        """Return the probabilities with the bias, for the choice of experts."""
        ...

    def around(self, inputs: RouterInput, ask: Callable[[RouterInput], RoutingPlan]) -> RoutingPlan:
        """Ask for a plan with perturbed inputs, in the precision of the recipe."""
        ...

    def after_step(self, mask: Tensor) -> None:
        """Update the bias from the choices of a step."""
        ...


@dataclass(frozen=True)
class RouterInput:
    """All inputs of a router.

    Attributes:
        hidden: hidden states that the paths read, after the norm of the site.
        tokens: token ids.
        positions: position of each token in its sequence.
        tags: domain of each token; only for routers whose `needs` has "tags", else None.
        previous: trace of the routed site before, or None; None inside a routed block.
        generator: the only source of randomness, for training.
        progress: spent share of the training budget, 0 to 1.
        selection: "topk" in training, where a choice may compare a whole sequence; "causal" in
            evaluation, where the choice for a token may depend on that token and those before it.
        truth: right path of each token if the data have it, else -1; only for routers whose
            `needs` has "truth", else None.
        noise: noise and bias of the recipe, applied through `bench.routing.scores`; None if there
            is none.
        attention: attention of each token to itself, a mean over heads, without gradient; only for
            routers whose `needs` has "attention", else None. At an FFN site it is of the layer's
            own attention. At a block site it is of the last layer before in which the token took
            part, or 0.
        received: attention that each token receives, summed over the tokens of its sequence, a mean
            over heads, without gradient; of the same layer as `attention`. All of it but a token's
            own comes from later tokens, so it exists in training only ("topk"), for routers whose
            `needs` has "received". Attention-scored Mixture-of-Depths (arXiv:2412.20875) ranks
            tokens by it.
        stream: hidden states before the norm; only for routers whose `needs` has "stream".
        valid: inside a routed block, False for padding tokens; their plan is not run.
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
    received: Float[Tensor, "batch seq"] | None = None
    stream: Float[Tensor, "batch seq d_model"] | None = None
    valid: Bool[Tensor, "batch seq"] | None = None


@dataclass
class RoutingPlan:
    """A sparse weighted choice among paths.

    Attributes:
        mask: True for each path that runs for a token; it is executed and charged.
        weight: factor on each path's output, or None for 1 wherever `mask` is set. It may be 0
            where `mask` is 1: straight-through, relaxed and soft training run both paths and pay
            for both.
        scores: one number per path and token, for metrics; a higher score is more wanted. None if
            there are none.
        counts: number of tokens of a sequence on each path, if known beforehand; with it the
            dispatcher need not wait for the device.
        extras: tensors for the router's own auxiliary losses.
        merge: weights that average the experts' parameters into one expert for each segment of
            `Paths.segment` tokens, the last of which may be shorter (SMEAR, arXiv:2306.03745,
            section 3; Lory, arXiv:2405.03133, section 2.2). To be causal, a segment's weights come
            from the segments before it. One merged expert runs, so `mask` marks one path per token,
            any of them, and `weight` scales its output.
        weighs: part of a block that `weight` scales: all of its "update", or only the output of its
            "ffn".
        choice: chosen paths, if others run: more in straight-through and soft training and in
            probing, fewer after dropping. Losses that count choices (balance, policy gradient)
            count these.
    """

    mask: Bool[Tensor, "batch seq path"]
    weight: Float[Tensor, "batch seq path"] | None = None
    scores: Float[Tensor, "batch seq path"] | None = None
    counts: tuple[int, ...] | None = None
    extras: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    merge: Float[Tensor, "batch segment path"] | None = None
    choice: Bool[Tensor, "batch seq path"] | None = None
    weighs: Literal["update", "ffn"] = "update"

    @property
    def chosen(self) -> Bool[Tensor, "batch seq path"]:
        """Return the chosen paths: `choice`, or else the paths that run."""
        return self.mask if self.choice is None else self.choice


@dataclass
class LayerTrace:
    """Record of one routed site in a forward pass: all inputs of an auxiliary loss.

    Attributes:
        layer: index of the layer.
        paths: the paths of the router.
        inputs: the router's inputs.
        plan: its plan.
        update: the weighted sum of the paths' outputs, `[batch, seq, d_model]`.
        path_updates: path name -> (flat token index or None for all tokens, unweighted output of
            that path, of a block with the weight of its FFN); "merged" -> the same for merged
            experts.
        token_loss: LM loss of each token, in training only, if `needs` has "token_loss".
        utility: oracle utility of the upgrade, in training only, if `needs` has "utility"; NaN for
            a token without a label, None if the step made no fork of this layer.
        labels: supervised path index, -100 for a token without one; None if the step made none.
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
        weight: default weight; at 0 the loss neither runs nor costs anything.
        uses: fields of the trace that are made for it. A layer without them in a step has no such
            loss in that step.
        until: share of training after which its weight is 0.
        layers: "sum" adds up the layers' losses, as in Switch (arXiv:2101.03961) and GShard
            (arXiv:2006.16668); "mean" averages them, so a weight means the same at any depth. Only
            layers that have the loss in a step count.
    """

    compute: Callable[[LayerTrace], Float[Tensor, ""]]
    weight: float
    uses: frozenset[Made] = frozenset()
    until: float = 1.0
    layers: Literal["sum", "mean"] = "sum"


class Router(nn.Module):
    """Base of every router: set `paths` and write `forward`. The rest has defaults.

    Options are keyword arguments of `__init__` with defaults, so any router can be made without
    options. Parameters are made in `build`, after the harness has fixed widths and capacity.

    Attributes:
        paths: the paths to choose among.
        layers: routed layers to use: "every" layer of the suite, or every "other" one.
        mean_experts: mean number of experts per token (routers without a base); `skip`, `cheap` and
            `full` are no experts.
        capacity: None, or a given share of tokens to upgrade, a mean over the layers in use. Then
            the cost follows from it, and is not B.
        needs: inputs beyond the default, of `NEEDS`.
        trains_dense: whether training runs more paths than evaluation; both are charged.
        allows_none: whether a token may take no path at all.
        aux_losses: name -> loss; the suite weighs them by name.
        knob: None, or a buffer that makes causal evaluation spend more as it rises: a scalar, or
            one number per path for thresholds of each expert. The harness bisects it.
        oracle: rule for its utility labels, if its `needs` has "utility"; None for the defaults.
        supervised: share of the training documents whose tokens get labels, from `label`.
        wraps: names of options that hold routers. A suite gives a name, or {router: name,
            options: {...}}. The harness makes the router and passes it in place of the option.
        memory: size of a table that each layer of the router adds to the stream, one vector for
            each hashed pair of tokens, in parameters of an expert (of the full FFN where there is
            none). To read it costs no FLOPs.
        pointwise: whether the causal plan of a token depends on the inputs of this token alone, and
            on its own entries in `previous`. Then decoding asks about the new token only, and else
            about the whole prefix, which costs more. `bench check` tests it.
    """

    paths: Paths
    layers: Literal["every", "other"] = "every"
    mean_experts: float = 1.0
    capacity: float | None = None
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
    pointwise: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses: dict[str, AuxLoss] = {}
        # Registered before `build`, so that every router has both, also without a super() call.
        self.register_buffer("knob", None)
        self.register_module("noise", None)

    def build(self, spec: RouterSpec) -> None:
        """Make parameters and buffers. Override, and call `super().build(spec)` first."""
        self.spec = spec

    def relative_share(self, path: str, place: int, count: int) -> float:
        """Return the share of tokens on a path in a layer, relative to other layers and paths.

        The budget scales all shares by one factor, and calibration keeps their ratios in
        evaluation. For a gate, the share of the upgrade counts. Shares of experts are scaled to
        `mean_experts`.

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
        """Return the right path of each token, -100 if unknown, for `supervised` routers.

        The harness asks without gradient and charges the work. The answer becomes `labels` of the
        trace, with -100 for the tokens of documents that are not supervised.
        """
        raise TypeError(
            f"{type(self).__name__} is supervised; it must define label(trace) -> path of each "
            "token."
        )

    def enable_knob(self) -> None:
        """Give the router a knob, at 0. Call it in `build`."""
        self.register_buffer("knob", torch.zeros(()))


@dataclass(frozen=True)
class TrainStatistics:
    """Counts over the training split.

    Attributes:
        unigram: occurrences of each token id.
        bigram: occurrences of each (previous, current) pair; None if the vocabulary is too large.
    """

    unigram: Int[Tensor, " vocab"]
    bigram: Int[Tensor, "vocab vocab"] | None = None
