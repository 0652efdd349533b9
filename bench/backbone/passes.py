"""Hold one forward pass: the inputs of routers, the way to their plans, and their traces."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.backbone.layers import KeysValues
from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan, Selection

Decide = Callable[[Router, RouterInput], RoutingPlan]


def ask(router: Router, inputs: RouterInput) -> RoutingPlan:
    """Ask a router for its plan, with the noise and the precision of the recipe."""
    return router(inputs) if router.noise is None else router.noise.around(inputs, router)


@dataclass
class History:
    """The state for running a pass again from one of its layers on.

    Attributes:
        entering: input of each layer, `[batch, seq, d_model]`, without gradient.
        noise: router -> state of the routing noise before it was asked.
        attention: `Pass.attention` before each layer.
    """

    entering: list[Float[Tensor, "batch seq d_model"]] = field(default_factory=list[Tensor])
    noise: dict[Router, Tensor] = field(default_factory=dict[Router, Tensor])
    attention: list[Float[Tensor, "batch seq"] | None] = field(default_factory=list[Tensor | None])


@dataclass
class Pass:
    """One forward pass: inputs of the routers, the way to their plans, and the traces.

    Attributes:
        tokens: token ids, `[batch, seq]`.
        positions: absolute positions, `[batch, seq]`.
        tags: domain tags, `[batch, seq]`, for routers that need them.
        truth: right paths, `[batch, seq]`, if known, for routers that need them.
        selection: "topk" in training, "causal" in evaluation.
        generator: the routing noise.
        progress: spent share of the training budget.
        decide: asks a router for its plan. Calibration and meters replace it.
        reference: run every path on every token and mask, instead of dispatching. This is slow and
            simple, for tests.
        valid: inside a routed block, False for tokens that the block does not take; None if it
            takes all, and outside of a block.
        in_block: whether this is the pass of the tokens in a routed block.
        traces: one per routed site, in order.
        counts: for each routed site, tokens of each sequence on each path, noted before the paths
            run. They are charged.
        history: filled during the pass, for passes that will be forked; None to keep nothing.
        attention: attention that each token gave itself and received when it last took part,
            `[batch, seq, 2]`, for routers that need it; None before the first such layer.
        ffn_weight: inside a routed block, factor on the output of its FFN, or None for 1.
        kept: gets keys and values of each layer in order, for decoding; None to keep nothing. Those
            of a routed block are of its own tokens.
    """

    tokens: Int[Tensor, "batch seq"]
    positions: Int[Tensor, "batch seq"]
    tags: Int[Tensor, "batch seq"] | None = None
    selection: Selection = "causal"
    generator: torch.Generator | None = None
    progress: float = 1.0
    decide: Decide = ask
    reference: bool = False
    valid: Bool[Tensor, "batch seq"] | None = None
    traces: list[LayerTrace] = field(default_factory=list[LayerTrace])
    counts: list[Int[Tensor, "batch _path"]] = field(default_factory=list[Tensor])
    truth: Int[Tensor, "batch seq"] | None = None
    history: History | None = None
    attention: Float[Tensor, "batch seq 2"] | None = None
    in_block: bool = False
    ffn_weight: Float[Tensor, "batch seq"] | None = None
    kept: list[KeysValues] | None = None

    def take(
        self, index: Int[Tensor, "batch kept"], valid: Bool[Tensor, "batch kept"] | None
    ) -> "Pass":
        """Return this pass for the tokens of a routed block. Traces are shared."""
        return replace(
            self,
            tokens=self.tokens.gather(1, index),
            positions=self.positions.gather(1, index),
            tags=None if self.tags is None else self.tags.gather(1, index),
            truth=None if self.truth is None else self.truth.gather(1, index),
            valid=valid,
            in_block=True,
            attention=None if self.attention is None else self.attention.gather(1, _pairs(index)),
        )

    def plan(
        self,
        router: Router,
        hidden: Float[Tensor, "batch seq d_model"],
        stream: Float[Tensor, "batch seq d_model"],
    ) -> tuple[RouterInput, RoutingPlan]:
        """Ask a router, and return its inputs and its plan.

        Args:
            router: the router.
            hidden: hidden states after the norm of its site.
            stream: the same before the norm.
        """
        received = "received" in router.needs and self.selection == "topk"
        inputs = RouterInput(
            hidden=hidden,
            tokens=self.tokens,
            positions=self.positions,
            tags=self.tags if "tags" in router.needs else None,
            previous=self.traces[-1] if self.traces and not self.in_block else None,
            generator=self.generator,
            progress=self.progress,
            selection=self.selection,
            truth=self.truth if "truth" in router.needs else None,
            attention=self.seen_attention()[..., 0] if "attention" in router.needs else None,
            received=self.seen_attention()[..., 1] if received else None,
            stream=stream if "stream" in router.needs else None,
            valid=self.valid,
        )
        # A fork must repeat the draws of each later router.
        if self.history is not None and self.generator is not None:
            self.history.noise[router] = self.generator.get_state()
        plan = self.decide(router, inputs)
        # The mask is copied: if the router changes its own mask later, execution, charges and
        # metrics stay the same.
        if self.valid is None:
            return inputs, replace(plan, mask=plan.mask.clone())
        valid = self.valid.unsqueeze(-1)
        choice = None if plan.choice is None else plan.choice & valid
        return inputs, replace(plan, mask=plan.mask & valid, counts=None, choice=choice)

    def seen_attention(self) -> Float[Tensor, "batch seq 2"]:
        """Return `attention`, 0 for tokens that took part in none."""
        return (
            torch.zeros(*self.tokens.shape, 2, device=self.tokens.device)
            if self.attention is None
            else self.attention
        )

    def adopt_attention(self, part: "Pass", index: Int[Tensor, "batch kept"]) -> None:
        """Take over the `attention` of the tokens at `index` from a pass made by `take`."""
        seen, index = part.seen_attention(), _pairs(index)
        if part.valid is not None:
            before = self.seen_attention().gather(1, index)
            seen = torch.where(part.valid.unsqueeze(-1), seen, before)
        self.attention = self.seen_attention().scatter(1, index, seen)


def _pairs(index: Int[Tensor, "batch kept"]) -> Int[Tensor, "batch kept 2"]:
    """Repeat an index of tokens for the two numbers of `Pass.attention`."""
    return index.unsqueeze(-1).expand(-1, -1, 2)


def make_pass(tokens: Tensor, tags: Tensor | None, **options: object) -> Pass:
    """Make a pass over whole sequences."""
    # A slice would let a router reach the tensor behind it, which holds the targets.
    tokens = tokens.clone()
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    return Pass(tokens, positions, tags, **options)  # type: ignore[arg-type]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context for the precision of matrix products. Parameters stay in float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
