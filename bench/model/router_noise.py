"""Add noise, expert dropout and a balance bias to any router in training (`RouterTraining`).

The noise is a submodule of the router, so its parameters and buffers are trained, charged, saved
and resumed with the router. It acts on scores through `bench.routing.perturb` and
`bench.routing.biased`, and notes that they were called.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bench.config.row import RouterTraining
from bench.errors import UserError
from bench.routing.contract import RouterInput, RoutingPlan
from bench.routing.paths import Paths, is_expert
from bench.routing.scores import DROPPED


class TrainingNoise(nn.Module):
    """Noise, expert dropout, balance bias and precision of one router.

    Args:
        options: the recipe.
        d_model: width of the router's input.
        paths: paths of the router; experts have a score each, an upgrade one score per token.
        least: number of experts that dropout always leaves.

    Attributes:
        asked: options that the router has passed its scores through.
        extras: data about the noise that losses need, for the plan in the making: "clean_scores",
            and "noise_std" of each score.
    """

    bias: Tensor | None
    balanced: Tensor

    def __init__(self, options: RouterTraining, d_model: int, paths: Paths, least: int) -> None:
        super().__init__()
        num_paths = len(paths.chosen)
        self.options, self.least = options, least
        self.scale = (
            options.noise_scale
            if options.noise_scale is not None
            else _STANDARD_SCALE.get(options.noise, 1 / num_paths)
        )
        self.asked: set[str] = set()
        self.extras: dict[str, Tensor] = {}
        if options.noise == "noisy_top_k":
            # Zero as in the paper (arXiv:1701.06538, appendix A), so that every expert starts with
            # the same noise.
            self.noise_weight = nn.Parameter(torch.zeros(d_model, 1 if paths.base else num_paths))
        self.register_buffer("bias", torch.zeros(num_paths) if options.balance_bias else None)
        balanced = torch.tensor([is_expert(paths.names[path]) for path in paths.chosen])
        self.register_buffer("balanced", balanced, persistent=False)

    def jitter(
        self, hidden: Float[Tensor, "batch seq d_model"], noise: torch.Generator | None
    ) -> Float[Tensor, "batch seq d_model"]:
        """Multiply each number of the router's input by U(1 - scale, 1 + scale).

        From Switch Transformer (arXiv:2101.03961), appendix C.
        """
        if self.options.noise != "jitter":
            return hidden
        return hidden * torch.empty_like(hidden).uniform_(
            1 - self.scale, 1 + self.scale, generator=noise
        )

    def around(self, inputs: RouterInput, ask: Callable[[RouterInput], RoutingPlan]) -> RoutingPlan:
        """Ask for a plan with perturbed inputs, in float32 if the recipe says so.

        Selective float32 is from Switch Transformer (arXiv:2101.03961), section 2.4.
        """
        hidden, stream = inputs.hidden, inputs.stream
        if self.options.float32:
            hidden, stream = hidden.float(), None if stream is None else stream.float()
        if inputs.selection == "topk":
            hidden = self.jitter(hidden, inputs.generator)
            stream = None if stream is None else self.jitter(stream, inputs.generator)
        precision = (
            torch.autocast(hidden.device.type, enabled=False)
            if self.options.float32
            else nullcontext()
        )
        with precision:
            plan = ask(replace(inputs, hidden=hidden, stream=stream, noise=self))
        plan.extras |= self.take_extras()
        return plan

    def perturb(
        self,
        scores: Float[Tensor, "batch *rest"],
        hidden: Float[Tensor, "batch seq d_model"],
        noise: torch.Generator | None,
    ) -> Float[Tensor, "batch *rest"]:
        """Return the scores with noise, and with some experts dropped.

        Gaussian noise has one standard deviation for all scores, by default 1 / paths (V-MoE,
        arXiv:2106.05974, section 2.1). Noisy top-k learns it: `softplus(x W_n)` (arXiv:1701.06538,
        equation 4).
        """
        self.asked |= {"noise", "expert_dropout"}
        if self.options.noise in ("gaussian", "noisy_top_k"):
            deviation = self._deviation(scores, hidden)
            self.extras = {"clean_scores": scores, "noise_std": deviation}
            scores = (
                scores
                + torch.randn(
                    scores.shape, generator=noise, device=scores.device, dtype=scores.dtype
                )
                * deviation
            )
        return self._drop(scores, noise) if self.options.expert_dropout else scores

    def take_extras(self) -> dict[str, Tensor]:
        """Return the data about the noise, and forget them."""
        found, self.extras = self.extras, {}
        if found and found["clean_scores"].dim() == 2:
            # A gate has one score per token; the base's score is 0, as in `gate_plan`.
            clean, deviation = found.values()
            found = {
                "clean_scores": torch.stack((torch.zeros_like(clean), clean), -1),
                "noise_std": deviation.unsqueeze(-1),
            }
        return found

    def _deviation(self, scores: Tensor, hidden: Tensor) -> Tensor:
        if self.options.noise == "gaussian":
            return torch.full_like(scores, self.scale)
        learnt = self.scale * F.softplus(hidden @ self.noise_weight)
        if learnt.numel() != scores.numel():
            raise UserError(
                f"noise 'noisy_top_k' wants one score for each of {tuple(learnt.shape)}; this "
                f"router's scores are {tuple(scores.shape)}. Use 'gaussian'."
            )
        return learnt.view_as(scores)

    def _drop(self, scores: Tensor, noise: torch.Generator | None) -> Tensor:
        """Drop each expert for a whole sequence with the given probability.

        The `least` experts with the highest draws always stay.
        """
        # One draw per sequence and expert.
        draw = torch.rand(scores.shape[0], scores.shape[-1], generator=noise, device=scores.device)
        dropped = (draw < self.options.expert_dropout).scatter(
            1, draw.topk(self.least).indices, False
        )
        return scores.masked_fill(
            dropped.view(len(dropped), *(1,) * (scores.dim() - 2), -1), DROPPED
        )

    def biased(self, probabilities: Float[Tensor, "*token path"]) -> Float[Tensor, "*token path"]:
        """Return the probabilities plus the balance bias, for choosing experts.

        Experts are weighed by the probabilities without the bias.
        """
        self.asked.add("balance_bias")
        return probabilities if self.bias is None else probabilities + self.bias

    @torch.no_grad()
    def after_step(self, mask: Bool[Tensor, "batch seq path"]) -> None:
        """Raise the bias of experts below the mean load, and lower it for the other experts.

        From arXiv:2408.15664, algorithm 1.
        """
        if self.bias is not None:
            load = mask.float().mean((0, 1))
            step = (load[self.balanced].mean() - load).sign()
            # A path beside the experts, such as a skip, has a load of its own.
            step = torch.where(self.balanced, step, 0.0)
            self.bias.add_(step, alpha=self.options.balance_bias)


_STANDARD_SCALE = {"jitter": 0.01, "noisy_top_k": 1.0}
