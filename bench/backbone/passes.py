"""One forward pass: what routers may see, how they are asked, and the traces that they leave."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan, Selection

Decide = Callable[[Router, RouterInput], RoutingPlan]


def ask(router: Router, inputs: RouterInput) -> RoutingPlan:
    """Ask a router for its plan, through the noise and the precision that the recipe gives it."""
    return router(inputs) if router.noise is None else router.noise.around(inputs, router)


@dataclass
class History:
    """What it takes to run a pass again from one of its layers on.

    Attributes:
        entering: what entered each layer, `[batch, seq, d_model]`, without gradient.
        noise: state of the routing noise when each router was asked.
        attention: `Pass.attention` as each layer found it.
    """

    entering: list[Float[Tensor, "batch seq d_model"]] = field(default_factory=list[Tensor])
    noise: dict[Router, Tensor] = field(default_factory=dict[Router, Tensor])
    attention: list[Float[Tensor, "batch seq"] | None] = field(default_factory=list[Tensor | None])


@dataclass
class Pass:
    """One forward pass: what the routers may see, how plans are made and run, and the traces it
    leaves.

    Attributes:
        tokens: token ids, `[batch, seq]`.
        positions: absolute positions, `[batch, seq]`.
        tags: domain tags, `[batch, seq]`; handed only to routers that declare the need.
        truth: right paths, `[batch, seq]`, where the data tell them; handed likewise.
        selection: "topk" in training, "causal" in evaluation.
        generator: the routing noise.
        progress: share of the training budget spent.
        decide: how a plan comes about; calibration and audits put themselves in between here.
        reference: run every path on every token and mask, instead of dispatching: slow, simple, for
            tests.
        valid: False for padding that a gathering site added, None where there is none.
        traces: one a routed site, in order.
        counts: for each of them the tokens of each sequence on each path, noted before the paths
            run: this is charged, whatever a router does to its plan later.
        history: filled on the way, for passes that will be forked; None to keep nothing.
        attention: what share of its attention each token gave itself when it last took part in one
            that a router asks about, `[batch, seq]`; None before the first.
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
    attention: Float[Tensor, "batch seq"] | None = None

    def take(
        self, index: Int[Tensor, "batch kept"], valid: Bool[Tensor, "batch kept"] | None
    ) -> "Pass":
        """The same pass for a subset of each sequence's tokens; traces are shared."""
        return replace(
            self,
            tokens=self.tokens.gather(1, index),
            positions=self.positions.gather(1, index),
            tags=None if self.tags is None else self.tags.gather(1, index),
            truth=None if self.truth is None else self.truth.gather(1, index),
            valid=valid,
            attention=None if self.attention is None else self.attention.gather(1, index),
        )

    def plan(
        self, router: Router, layer: int, hidden: Float[Tensor, "batch seq d_model"]
    ) -> tuple[RouterInput, RoutingPlan]:
        """Have the router of a layer decide."""
        inputs = RouterInput(
            hidden=hidden,
            tokens=self.tokens,
            positions=self.positions,
            tags=self.tags if "tags" in router.needs else None,
            previous=self.traces[-1] if self.traces else None,
            generator=self.generator,
            progress=self.progress,
            selection=self.selection,
            truth=self.truth if "truth" in router.needs else None,
            attention=self.own_attention() if "attention" in router.needs else None,
        )
        if self.history is not None and self.generator is not None:
            self.history.noise[router] = self.generator.get_state()
        plan = self.decide(router, inputs)
        # The mask is copied: what a router writes to its own later changes nothing that is run,
        # charged or measured.
        if self.valid is None:
            return inputs, replace(plan, mask=plan.mask.clone())
        return inputs, replace(plan, mask=plan.mask & self.valid.unsqueeze(-1), counts=None)

    def own_attention(self) -> Float[Tensor, "batch seq"]:
        """`attention`, 0 for tokens that took part in none."""
        return (
            torch.zeros(self.tokens.shape, device=self.tokens.device)
            if self.attention is None
            else self.attention
        )

    def adopt_attention(self, part: "Pass", index: Int[Tensor, "batch kept"]) -> None:
        """Take over the `attention` of the tokens at `index` from the pass that `take` made of
        them.
        """
        own = part.own_attention()
        if part.valid is not None:
            own = torch.where(part.valid, own, self.own_attention().gather(1, index))
        self.attention = self.own_attention().scatter(1, index, own)


def make_pass(tokens: Tensor, tags: Tensor | None, **options: object) -> Pass:
    """A pass over whole sequences.

    The tokens are a copy: a slice would let a router reach what it was cut from, the targets.
    """
    tokens = tokens.clone()
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    return Pass(tokens, positions, tags, **options)  # type: ignore[arg-type]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The precision of matrix products; parameters stay in float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
