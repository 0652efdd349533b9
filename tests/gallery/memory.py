"""Routers that remember forbidden things, or keep state that nothing saves."""

import torch
from torch import Tensor, nn

from bench.routing.capacity import gate_plan, upgrade
from bench.routing.contract import RouterInput, RouterSpec, RoutingPlan, TrainStatistics
from bench.routing.registry import register
from routers.gates import MLPGate


@register("memory_in_attribute", family="cheater")
class InAttribute(MLPGate):
    """Keeps a running mean in an attribute, which no checkpoint saves."""

    level = 0.0

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        self.level = 0.9 * self.level + 0.1 * float(inputs.hidden.detach().mean())
        return super().forward(inputs)


@register("capacity_in_attribute", family="cheater")
class CapacityInAttribute(MLPGate):
    """Upgrades more from call to call, up to every token, by a count in an attribute."""

    calls = 0

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        if inputs.selection == "causal":
            return plan
        self.calls += 1
        assert plan.scores is not None
        return gate_plan(
            plan.mask[..., 1] | (inputs.positions < self.calls), None, plan.scores[..., 1]
        )


@register("weight_in_attribute", family="cheater")
class WeightInAttribute(MLPGate):
    """Lets its weights grow by the number of calls, counted in an attribute that a resumed run
    begins anew.
    """

    calls = 0

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        self.calls += 1
        plan = super().forward(inputs)
        assert plan.weight is not None
        plan.weight = plan.weight * (1 + 0.01 * self.calls)
        return plan


@register("table_in_attribute", family="cheater")
class TableInAttribute(MLPGate):
    """Keeps the table that it fits in an attribute."""

    table: Tensor | None = None

    def fit(self, statistics: TrainStatistics) -> None:
        self.table = statistics.unigram / statistics.unigram.max()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        if self.table is not None:
            plan.weight = plan.weight * (1 + self.table[inputs.tokens].unsqueeze(-1))
        return plan


@register("training_in_evaluation", family="cheater")
class TrainingInEvaluation(MLPGate):
    """Adapts its bias to the text that it is evaluated on."""

    bias: Tensor

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if inputs.selection == "causal":
            self.bias += 0.01
        scores = self.score(nn.functional.gelu(self.hidden(inputs.hidden))).squeeze(-1) + self.bias
        return gate_plan(*upgrade(scores, inputs, self.spec, self.knob), scores)
