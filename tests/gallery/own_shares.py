"""Routers that own their shares: of layers, of experts with a skip, of two sites in a layer."""

import torch
from torch import Tensor, nn

from bench.routing import (
    BLOCK_GATE,
    AuxLoss,
    Paths,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    Site,
    experts,
    gate_plan,
    losses,
    perturb,
    register,
    tokens_kept,
    top_experts,
    top_k_mask,
    upgrade,
)


class Scored(Router):
    """A linear score for each path, or for the upgrade of a gate."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        outputs = 1 if self.paths.base else len(self.paths.names)
        self.score = nn.Linear(spec.d_model, outputs, bias=False)


def one_expert(scores: Tensor, inputs: RouterInput, taken: Tensor | bool = True) -> Tensor:
    """The expert with the highest score, of the tokens that take one."""
    best = top_experts(scores, 1, inputs)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best, True) & taken


class TopOne(Scored):
    """One of four experts."""

    paths = experts(4)

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses = {"load_balance": AuxLoss(losses.load_balance, 0.01)}

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = perturb(self.score(inputs.hidden), inputs)
        return RoutingPlan(one_expert(scores, inputs), scores.softmax(-1), scores)


@register("staged_mode", family="tests", paper="arXiv:2404.02258")
class StagedMoDE(Scored):
    """Mixture-of-Depths around experts: the tokens that take a block choose one of four."""

    paths = BLOCK_GATE

    def inside(self) -> Router:
        return TopOne()

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = perturb(self.score(inputs.hidden).squeeze(-1), inputs)
        chosen, count = upgrade(scores, inputs, self.spec, self.knob)
        return gate_plan(chosen, count, scores, (torch.ones_like(scores), scores))


@register("staged_gates", family="tests")
class StagedGates(StagedMoDE):
    """Mixture-of-Depths around a gate, each with a knob; in training it leaves padding inside."""

    def inside(self) -> Router:
        return Inner()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        return RoutingPlan(plan.mask, plan.weight, plan.scores)


class Inner(StagedMoDE):
    """A gate between nothing and the full FFN."""

    paths = Paths(Site.FFN, ("skip", "full"), base="skip")

    def inside(self) -> None:
        return None


@register("leaves_early", family="tests")
class LeavesEarly(Scored):
    """A token that leaves at one layer takes no later one; half of them leave on the way."""

    paths = BLOCK_GATE

    def relative_share(self, path: str, place: int, count: int) -> float:
        return 1 - 0.5 * place / max(1, count - 1)

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.enable_knob()
        self.kept = spec.capacity

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden).squeeze(-1)
        before = inputs.previous
        there = torch.ones_like(scores) > 0 if before is None else before.plan.mask[..., 1]
        weights = (torch.ones_like(scores), scores.sigmoid())
        if inputs.selection == "causal":
            assert self.knob is not None
            return gate_plan(there & (scores > -self.knob), None, scores, weights)
        count = tokens_kept(self.kept, scores.shape[1])
        staying = scores.detach().masked_fill(~there, -torch.inf)
        return gate_plan(top_k_mask(staying, count), count, scores, weights)


@register("exits_unsaid", family="cheater")
class ExitsUnsaid(LeavesEarly):
    """Trains at falling shares that it does not state, so that evaluation gives all layers one."""

    def relative_share(self, path: str, place: int, count: int) -> float:
        return 1.0

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        places = len(spec.routed_layers)
        place = spec.routed_layers.index(spec.layer)
        self.kept = spec.capacity * (1.3 - 0.6 * place / max(1, places - 1))


@register("skip_experts", family="tests", paper="arXiv:2406.13233")
class SkipExperts(Scored):
    """One of four experts for half of the tokens, nothing for the others."""

    paths = Paths(Site.FFN, ("expert0", "expert1", "expert2", "expert3", "skip"))
    mean_experts = 0.5

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        lead = scores[..., :-1].amax(-1) - scores[..., -1]
        if inputs.selection == "causal":
            assert self.knob is not None
            taken = lead > -self.knob
        else:
            taken = top_k_mask(lead.detach(), tokens_kept(self.spec.mean_experts, lead.shape[1]))
        mask = one_expert(scores[..., :-1], inputs, taken.unsqueeze(-1))
        mask = torch.cat((mask, ~taken.unsqueeze(-1)), dim=-1)
        return RoutingPlan(mask, scores.softmax(-1), scores)
