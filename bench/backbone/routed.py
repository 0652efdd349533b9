"""A routed site: a router and the paths it chooses among, inside one layer."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bench.backbone.paths import Draw, ExpertBank, LowRank
from bench.errors import UserError
from bench.routing.contract import LayerTrace, Paths, Router, RouterInput, RoutingPlan, Selection, Site

Decide = Callable[[Router, RouterInput], RoutingPlan]


def ask(router: Router, inputs: RouterInput) -> RoutingPlan:
    """The ordinary way to a plan: ask the router."""
    return router(inputs)


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
    """One forward pass: what the routers may see, how plans are made and run, and the traces it leaves.

    Attributes:
        tokens: token ids, `[batch, seq]`.
        positions: absolute positions, `[batch, seq]`.
        tags: domain tags, `[batch, seq]`; handed only to routers that declare the need.
        truth: right paths, `[batch, seq]`, where the data tell them; handed likewise.
        selection: "topk" in training, "causal" in evaluation.
        generator: the routing noise.
        progress: share of the training budget spent.
        decide: how a plan comes about; calibration and audits put themselves in between here.
        reference: run every path on every token and mask, instead of dispatching: slow, simple, for tests.
        valid: False for padding that a gathering site added, None where there is none.
        traces: one a routed site, in order.
        counts: for each of them the tokens of each sequence on each path, noted before the paths run: this is charged, whatever a
            router does to its plan later.
        history: filled on the way, for passes that will be forked; None to keep nothing.
        attention: what share of its attention each token gave itself when it last took part in one that a router asks about,
            `[batch, seq]`; None before the first.
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

    def take(self, index: Int[Tensor, "batch kept"], valid: Bool[Tensor, "batch kept"] | None) -> "Pass":
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

    def plan(self, router: Router, layer: int, hidden: Float[Tensor, "batch seq d_model"]) -> tuple[RouterInput, RoutingPlan]:
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
        if self.valid is not None:
            plan = replace(plan, mask=plan.mask & self.valid.unsqueeze(-1), counts=None)
        return inputs, plan

    def own_attention(self) -> Float[Tensor, "batch seq"]:
        """`attention`, 0 for tokens that took part in none."""
        return torch.zeros(self.tokens.shape, device=self.tokens.device) if self.attention is None else self.attention

    def adopt_attention(self, part: "Pass", index: Int[Tensor, "batch kept"]) -> None:
        """Take over the `attention` of the tokens at `index` from the pass that `take` made of them."""
        own = part.own_attention()
        if part.valid is not None:
            own = torch.where(part.valid, own, self.own_attention().gather(1, index))
        self.attention = self.own_attention().scatter(1, index, own)


class PathSet(nn.Module):
    """The FFN-like paths of one site, by the names its router gave them.

    "full" is the dense FFN, "cheap" the low-rank one, "skip" nothing at no cost, and all names that begin with
    "expert" share one bank.

    Raises:
        UserError: merging is asked for, and not all paths are experts.
    """

    def __init__(self, paths: Paths, d_model: int, ffn_width: int, cheap_rank: int, expert_width: int) -> None:
        super().__init__()
        self.names, self.segment = paths.names, paths.segment
        self.experts = [name for name in paths.names if name.startswith("expert")]
        if self.segment is not None and not self.is_bank:
            raise UserError(f"Paths {self.names} cannot be merged: their parameters differ in shape. Use experts(count, segment=...).")
        if "full" in self.names:
            self.full = ExpertBank(d_model, ffn_width)
        if "cheap" in self.names:
            self.cheap = LowRank(d_model, cheap_rank)
        if self.experts:
            self.bank = ExpertBank(d_model, expert_width, len(self.experts))

    def reset(self, draw: Draw) -> None:
        """Draw the weights. The bank takes its units from the same draw as the full path."""
        for name, module in self.named_children():
            module.reset(draw if name != "cheap" else lambda part, rows, columns: draw(f"cheap.{part}", rows, columns))  # type: ignore[operator]

    def run(self, index: int, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"] | None:
        """Run one path on its tokens; None from a path that adds nothing."""
        name = self.names[index]
        if name == "skip":
            return None
        if name == "full":
            return self.full(x)
        return self.cheap(x) if name == "cheap" else self.bank(x, self.experts.index(name))

    @property
    def is_bank(self) -> bool:
        """Whether every path is an expert of the one bank."""
        return len(self.experts) == len(self.names)

    def flops(self, index: int) -> float:
        """FLOPs a token through one path."""
        name = self.names[index]
        if name == "skip":
            return 0.0
        if name == "full":
            return self.full.flops()
        return self.cheap.flops() if name == "cheap" else self.bank.flops()


def is_block(router: Router) -> bool:
    """Whether the router chooses whole blocks."""
    return router.paths.site is Site.BLOCK
