"""Routers that look where they must not.

At later tokens, at the token to predict, at their neighbours in the batch.
"""

import torch

from bench.routing.capacity import gate_plan, top_k_mask, upgrade
from bench.routing.contract import RouterInput, RoutingPlan
from bench.routing.registry import register
from routers.gates import MLPGate


class _Scored(MLPGate):
    """A gate whose scores are tampered with."""

    def scores(self, inputs: RouterInput) -> torch.Tensor:
        raise NotImplementedError

    def plain(self, inputs: RouterInput) -> torch.Tensor:
        return self.score(torch.nn.functional.gelu(self.hidden(inputs.hidden))).squeeze(-1)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.scores(inputs)
        p = scores.sigmoid()
        return gate_plan(*upgrade(scores, inputs, self.spec, self.knob), scores, (1 - p, p))


@register("peek_top_k", family="cheater")
class PeekTopK(_Scored):
    """Keeps choosing the best of the whole sequence in evaluation."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.plain(inputs)
        chosen = top_k_mask(scores, round(self.spec.capacity * scores.shape[1]))
        return gate_plan(chosen, None, scores, (1 - scores.sigmoid(), scores.sigmoid()))


@register("peek_rarely", family="cheater")
class PeekRarely(_Scored):
    """Looks ahead in about one sequence of fifty: where the tokens add up to a multiple of 50."""

    def scores(self, inputs: RouterInput) -> torch.Tensor:
        plain = self.plain(inputs)
        rare = inputs.tokens.sum(1, keepdim=True) % 50 == 0
        return torch.where(
            rare & (inputs.positions == 0), plain + inputs.tokens[:, -1:].sin(), plain
        )


@register("peek_at_label", family="cheater")
class PeekAtLabel(_Scored):
    """Reads the token to predict at a position: it is the next token."""

    def scores(self, inputs: RouterInput) -> torch.Tensor:
        return self.plain(inputs) + inputs.tokens.roll(-1, 1) / self.spec.vocab_size


@register("peek_at_tags", family="cheater")
class PeekAtTags(_Scored):
    """Reads the domain of the next token, which tells where a document ends."""

    needs = frozenset({"tags"})

    def scores(self, inputs: RouterInput) -> torch.Tensor:
        assert inputs.tags is not None
        return self.plain(inputs) + inputs.tags.roll(-1, 1)


@register("peek_at_batch", family="cheater")
class PeekAtBatch(_Scored):
    """Compares a sequence with the others of its batch."""

    def scores(self, inputs: RouterInput) -> torch.Tensor:
        plain = self.plain(inputs)
        return plain - plain.mean(0, keepdim=True)


@register("peek_at_batch_size", family="cheater")
class PeekAtBatchSize(_Scored):
    """Spends more when it is alone."""

    def scores(self, inputs: RouterInput) -> torch.Tensor:
        return self.plain(inputs) + (1.0 if len(inputs.tokens) == 1 else 0.0)
