"""Bias and variance of each gradient estimator on a choice that can be enumerated.

`python benchmarks/gradient_estimators.py`.

Two tokens choose among three paths each, and the loss `(1 - sum of chosen outputs)^2` makes their
choices matter to each other. The truth is the gradient of the expected loss in the logits, by going
through all nine joint choices.
"""

import argparse
import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor

from bench.rng import generator
from bench.routing.estimators import (
    gumbel,
    highest,
    relaxed,
    sample,
    scale,
    st_gumbel,
    straight_through,
)

LOGITS = torch.tensor([[0.3, -0.4, 0.6], [-0.2, 0.5, 0.1]])
OUTPUTS = torch.tensor([[1.0, -0.5, 0.2], [0.3, 0.8, -1.0]])


def loss(weight: Tensor) -> Tensor:
    """Loss of the weights on the outputs, `[draw, token, path]` -> `[draw]`."""
    return (1 - (weight * OUTPUTS).sum((-1, -2))).square()


def exact() -> Tensor:
    """Gradient of the expected loss in the logits."""
    logits = LOGITS.clone().requires_grad_()
    p = logits.softmax(-1)
    joint = itertools.product(range(p.shape[1]), repeat=p.shape[0])
    expected = sum(
        math.prod(p[t, c] for t, c in enumerate(choice)) * loss(F.one_hot(torch.tensor(choice), 3))
        for choice in joint
    )
    return torch.autograd.grad(expected, logits)[0]  # type: ignore[arg-type]


def reinforce(baseline: bool) -> Callable[[Tensor, torch.Generator], Tensor]:
    def objective(logits: Tensor, noise: torch.Generator) -> Tensor:
        chosen = sample(logits.detach(), noise)
        found = loss(chosen)
        log_p = (logits.log_softmax(-1) * chosen).sum((-1, -2))
        return log_p * (found - found.mean() if baseline else found)

    return objective


def gumbel_softmax(
    temperature: float, dense: bool = True
) -> Callable[[Tensor, torch.Generator], Tensor]:
    def objective(logits: Tensor, noise: torch.Generator) -> Tensor:
        perturbed = logits + gumbel(logits, noise)
        mask, weight = st_gumbel(perturbed, highest(perturbed), temperature, dense)
        assert weight is not None
        return loss(weight * mask)

    return objective


def straight(dense: bool) -> Callable[[Tensor, torch.Generator], Tensor]:
    def objective(logits: Tensor, noise: torch.Generator) -> Tensor:
        mask, weight = straight_through(logits.softmax(-1), sample(logits.detach(), noise), dense)
        assert weight is not None
        return loss(weight * mask)

    return objective


def scaled(logits: Tensor, _: torch.Generator) -> Tensor:
    p = logits.softmax(-1)
    return loss(p * scale(p, highest(p))[0])


def mixed(temperature: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    def objective(logits: Tensor, _: torch.Generator) -> Tensor:
        weight = relaxed(logits, temperature)[1]
        assert weight is not None
        return loss(weight)

    return objective


ESTIMATORS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "reinforce": reinforce(False),
    "reinforce, baseline": reinforce(True),
    **{f"st_gumbel, temperature {t:g}": gumbel_softmax(t) for t in (10, 1, 0.5, 0.1)},
    "st_gumbel, temperature 0.5, not dense": gumbel_softmax(0.5, dense=False),
    "straight_through of a sample": straight(True),
    "straight_through of a sample, not dense": straight(False),
    **{f"relaxed, temperature {t:g}": mixed(t) for t in (1, 0.1)},
    "top_k": scaled,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200_000)
    draws = parser.parse_args().draws
    truth = exact()
    table: list[list[object]] = []
    for name, objective in ESTIMATORS.items():
        logits = LOGITS.expand(draws, -1, -1).clone().requires_grad_()
        found = torch.autograd.grad(objective(logits, generator(0, name)).sum(), logits)[0]
        mean = found.mean(0)
        error = (found.var(0).sum() / draws).sqrt() / truth.norm()
        cosine = F.cosine_similarity(mean.flatten(), truth.flatten(), dim=0)
        spread = found.var(0).sum().sqrt() / truth.norm()
        table.append(
            [name, *map(float, ((mean - truth).norm() / truth.norm(), error, cosine, spread))]
        )
    headers = [
        "estimator",
        "bias / gradient",
        "its standard error",
        "cosine of the mean",
        "SD of a draw / gradient",
    ]
    print(f"{draws} draws; norm of the gradient {float(truth.norm()):.3f}\n")
    print(tabulate(table, headers=headers, floatfmt=".3f", tablefmt="github"))


if __name__ == "__main__":
    main()
