"""Check that a router with parameters learns."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import Parameter

from bench.backbone.passes import ask
from bench.config.row import RouterTraining
from bench.conformance.check import Exempt, demand, rule
from bench.conformance.subject import DECODER, SEQ_LEN, Subject
from bench.model.equip import is_trained, resolve_losses
from bench.rng import generator, normal
from bench.routing.contract import LayerTrace, Router, RouterInput
from bench.training.auxiliary import active_losses

VOCABULARY = 256
STEPS = 240
BATCH = 16
PERMUTATIONS = 8
LEARNING_RATE = 0.01
MEAN = 0.5
"""Length of the mean hidden state relative to the spread, since a decoder's have a mean too."""
MARGIN = 0.1
"""Share of the way from chance to always right that training must achieve.

Published designs achieve at least 0.27, gates and top-2 experts more than 0.6. A router without a
gradient moves by less than 0.02.
"""


@rule(
    "A parameter that never gets a gradient is dead weight: multiply the score into plan.weight, "
    "or register a buffer.",
    waivable=True,
)
def parameters_change(subject: Subject) -> None:
    """Every trainable parameter of the router has changed after 20 steps."""
    # Compare the trained model with the untrained model of the same seed, name by name.
    before = subject.model.decoder.routers
    still = [
        name
        for start, router in zip(before, subject.trained.decoder.routers, strict=True)
        for (name, old), new in zip(start.named_parameters(), router.parameters(), strict=True)
        if new.requires_grad and torch.equal(old, new)
    ]
    if not any(p.requires_grad for router in before for p in router.parameters()):
        raise Exempt("the router has no trainable parameter")
    demand(not still, "a change in every parameter", f"none in {', '.join(sorted(set(still)))}")


@rule("Compute losses and `after_step` in float32: call `.float()` on what the plan holds.")
def trains_in_bfloat16(subject: Subject) -> None:
    """Two training steps under bfloat16 leave all parameters and buffers finite."""
    model = subject.assemble()
    subject.train(model, steps=2, dtype=torch.bfloat16)
    bad = [name for name, value in model.decoder.state_dict().items() if not value.isfinite().all()]
    demand(not bad, "finite numbers", f"nan or infinity in {', '.join(sorted(bad))}")


@rule(
    "Let the loss reach the scores: through plan.weight, an estimator of bench.routing.estimators, "
    "or an auxiliary loss.",
    waivable=True,
)
def learns_planted_rule(subject: Subject) -> None:
    """Training sends tokens to their right path more often than chance or no training does."""
    capacity = subject.model.solution.capacity
    routers = subject.build_layer(vocab_size=VOCABULARY, capacity=capacity)
    able = [router for router in routers if is_trained(router) and len(router.paths.names) > 1]
    if not able:
        raise Exempt("the router has nothing to learn with, or nothing to choose")
    if any(router.paths.segment is not None for router in able):
        raise Exempt(
            "experts are merged by the segment before, which does not tell the right path of a "
            "token"
        )
    if any("received" in router.needs for router in able):
        raise Exempt("training chooses by the attention that tokens receive, and here is none")
    for router in able:
        _demand_learning(subject, router)


def _demand_learning(subject: Subject, router: Router) -> None:
    """Train a router alone on the planted rule, and demand that this helps."""
    parameters = [p for p in router.parameters() if p.requires_grad]
    # Training must beat both chance and the untrained router by a margin.
    problem = _Problem(subject, router)
    untrained, _ = problem.share_right(router)
    _train(router, parameters, problem, subject.seed)
    seen, chance = problem.share_right(router)
    needed = max(chance, untrained) + MARGIN * (1 - chance)
    demand(
        seen >= needed,
        f"at least {needed:.3f} of the weight on the right path, where chance gives {chance:.3f} "
        f"and the untrained router {untrained:.3f}",
        f"{seen:.3f} after {STEPS} steps",
    )


def _train(router: Router, parameters: list[Parameter], problem: "_Problem", seed: int) -> None:
    """Train a router alone on the problem, with its own losses and updates."""
    optimiser = torch.optim.Adam(parameters, LEARNING_RATE)
    for step in range(STEPS):
        # Every step has its own text, a function of the seed.
        tokens = torch.randint(
            VOCABULARY, (BATCH, SEQ_LEN), generator=generator(seed, f"planted/{step}")
        )
        trace = problem.trace(router, tokens, step / STEPS)
        losses = [
            term.weight * term.loss.compute(trace)
            for term in active_losses(resolve_losses(router, RouterTraining())).values()
        ]
        # The router's own losses come on top of the error of its update.
        total = torch.stack([problem.error(trace.update, tokens).mean(), *losses]).sum()
        if total.requires_grad:
            total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            router.after_step(trace)


class _Problem:
    """A single site with a known right path for each token id.

    Each token id has a fixed hidden state, drawn by the seed. Its right path is a function of that
    state. Each path has a fixed random output for each token id (0 for "skip"). The target is the
    output of the right path.
    """

    def __init__(self, subject: Subject, router: Router) -> None:
        self.names = router.paths.names
        width = DECODER.d_model
        # Hidden states: a random direction per token id around a common mean, with unit scale.
        around = normal(subject.seed, "planted/hidden", VOCABULARY, width)
        mean = MEAN * normal(subject.seed, "planted/mean", 1, width)
        self.hidden = (around + mean) / (1 + MEAN**2) ** 0.5
        outputs = (
            normal(subject.seed, "planted/outputs", VOCABULARY * len(self.names), width).view(
                VOCABULARY, -1, width
            )
            / width**0.5
        )
        self.outputs = outputs * torch.tensor([name != "skip" for name in self.names]).view(
            1, -1, 1
        )
        self.seed, self.noise = subject.seed, generator(subject.seed, "planted/noise")
        # A linear rule holds for all tokens alike: top-k routing gets no gradient from the tokens
        # it leaves out, and must learn about them from others.
        votes = around @ normal(subject.seed, "planted/rule", width, len(self.names))
        upgraded = votes[:, -1] >= votes[:, -1].quantile(1 - router.spec.capacity)
        self.right = upgraded.long() if router.paths.base else votes.argmax(1)

    def trace(self, router: Router, tokens: Tensor, progress: float) -> LayerTrace:
        """Ask the router, execute its plan, and return a trace with all targets of losses."""
        hidden = self.hidden[tokens]
        inputs = RouterInput(
            hidden=hidden,
            tokens=tokens,
            positions=torch.arange(tokens.shape[1]).expand(tokens.shape),
            tags=torch.zeros_like(tokens) if "tags" in router.needs else None,
            previous=None,
            generator=self.noise,
            progress=progress,
            selection="topk",
            attention=torch.rand(tokens.shape, generator=self.noise)
            if "attention" in router.needs
            else None,
            received=torch.rand(tokens.shape, generator=self.noise)
            if "received" in router.needs
            else None,
            stream=hidden if "stream" in router.needs else None,
        )
        # Execute the plan by hand: the weighted sum of the chosen paths' outputs.
        plan = ask(router, inputs)
        outputs = self.outputs[tokens]
        factor = plan.mask.float() if plan.weight is None else plan.mask * plan.weight
        update = (factor.unsqueeze(-1) * outputs).sum(2)
        every: dict[str, tuple[Tensor | None, Tensor]] = {
            name: (None, outputs[:, :, path].flatten(0, 1)) for path, name in enumerate(self.names)
        }
        # The utility of the upgrade is exact here: the error with the base minus the error with it.
        utility = (
            self.error(outputs[:, :, 0], tokens) - self.error(outputs[:, :, -1], tokens)
            if router.paths.base
            else None
        )
        trace = LayerTrace(router.spec.layer, router.paths, inputs, plan, update, every)
        return replace(
            trace,
            token_loss=self.error(update, tokens).detach(),
            utility=utility,
            labels=self.right[tokens],
        )

    def error(self, update: Tensor, tokens: Tensor) -> Tensor:
        """Return the squared distance of each token's update to its target."""
        wanted = self.outputs[tokens, self.right[tokens]]
        return (update - wanted).square().sum(-1)

    @torch.no_grad()
    def share_right(self, router: Router) -> tuple[float, float]:
        """Return the mean share of a token's weight on its right path, and the share by chance.

        By chance, paths and right paths are independent. Every call uses the same text and noise.
        """
        self.noise = generator(self.seed, "planted/judged")
        # Permutations hold every token id equally often.
        tokens = torch.stack(
            [torch.randperm(VOCABULARY, generator=self.noise) for _ in range(PERMUTATIONS)]
        ).view(-1, SEQ_LEN)
        plan = self.trace(router, tokens, 1.0).plan
        # A gate's weight scales its output and says nothing of its choice, unless both paths run.
        counts_weight = plan.weight is not None and (router.trains_dense or not router.paths.base)
        factor = (
            plan.mask * plan.weight.clamp_min(0)
            if counts_weight and plan.weight is not None
            else plan.mask.float()
        )
        share = (factor / factor.sum(-1, keepdim=True).clamp_min(1e-9)).flatten(0, 1)
        right = torch.nn.functional.one_hot(self.right[tokens].flatten(), len(self.names)).float()
        return float((share * right).sum(1).mean()), float((share.mean(0) * right.mean(0)).sum())
