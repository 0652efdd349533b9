"""Compare the signal of each estimator for a gate on a frozen backbone with the truth of a token.

It shows why a straight-through gate learns badly there. Half of the tokens take the full path:
drawn at random, or those for which the mixture's derivative is steepest. The truth of a token is
the loss of its sequence with its path cheap, minus the loss with its path full, all else equal. An
estimator gets a derivative instead. `python benchmarks/straight_through.py --seed 100`.
"""

import argparse

import torch
import torch.nn.functional as F
from scipy import stats
from tabulate import tabulate
from torch import Tensor

from bench.backbone.passes import Pass, make_pass
from bench.config.read_suite import load_suite
from bench.evaluation.evaluate import window_tensors
from bench.model.assemble import Model, assemble
from bench.rng import generator
from bench.routing.capacity import top_k_mask
from bench.routing.contract import Router, RouterInput, RoutingPlan
from bench.runner.cell_phase import Pulse
from bench.runner.cells import Cell
from bench.runner.frozen import freeze
from bench.runner.numerics import fix_numerics
from bench.runner.probes import cut
from bench.runner.resolve import resolve

SEQUENCES, FLIPS = 32, 16


class Routed:
    """The frozen model under weights that are given, layer by layer."""

    def __init__(self, model: Model, tokens: Tensor) -> None:
        self.model, self.tokens = model, tokens

    def losses(self, weights: list[Tensor]) -> Tensor:
        """Return the summed loss of each sequence at these weights of the paths' outputs.

        Weights are `[batch, seq, path]`, one tensor per layer.
        """
        ordered = iter(weights)

        def decide(_: Router, inputs: RouterInput) -> RoutingPlan:
            weight = next(ordered)
            every = (
                torch.ones(weight.shape, dtype=torch.bool) if weight.requires_grad else weight > 0
            )
            return RoutingPlan(every, weight)

        run: Pass = make_pass(self.tokens[:, :-1], None, decide=decide)
        nats = F.cross_entropy(
            self.model.decoder(run).flatten(0, 1), self.tokens[:, 1:].flatten(), reduction="none"
        )
        return nats.view(self.tokens[:, 1:].shape).sum(1)

    def slopes(self, weights: list[Tensor]) -> list[Tensor]:
        """Derivative of the loss in every weight."""
        leaves = [weight.clone().requires_grad_() for weight in weights]
        return list(torch.autograd.grad(self.losses(leaves).sum(), leaves))

    @torch.no_grad()
    def truth(self, weights: list[Tensor], layer: int, positions: Tensor) -> Tensor:
        """What the full path is worth at one position of each sequence, nats."""
        rows, both = torch.arange(len(self.tokens)), []
        for path in (0, 1):
            changed = weights[layer].clone()
            changed[rows, positions] = F.one_hot(torch.tensor(path), 2).to(changed.dtype)
            both.append(self.losses([*weights[:layer], changed, *weights[layer + 1 :]]))
        return both[0] - both[1]


def signals(routed: Routed, hard: list[Tensor]) -> dict[str, list[Tensor]]:
    """Return each estimator's value of the full path, per layer, up to a positive factor."""
    sign = torch.tensor([1.0, -1.0])
    at_hard = routed.slopes(hard)

    def chosen_alone(slopes: list[Tensor]) -> list[Tensor]:
        return [(slope * weight) @ sign for slope, weight in zip(slopes, hard, strict=True)]

    return {
        "straight-through": [slope @ sign for slope in at_hard],
        "straight-through, chosen path alone": chosen_alone(at_hard),
        "scale at p = 1/2": chosen_alone(routed.slopes([weight / 2 for weight in hard])),
        "relaxed at p = 1/2": mixture(routed, hard),
        "relaxed, 3/4 of what is chosen": [
            slope @ sign for slope in routed.slopes([0.25 + weight / 2 for weight in hard])
        ],
    }


def mixture(routed: Routed, like: list[Tensor]) -> list[Tensor]:
    """The mixture's derivative where both paths of every token weigh the same."""
    return [
        slope @ torch.tensor([1.0, -1.0])
        for slope in routed.slopes([torch.full_like(weight, 0.5) for weight in like])
    ]


def compare(routed: Routed, wish: list[Tensor], positions: Tensor) -> list[list[object]]:
    """Return each signal with the truth, over all tokens and over those on each path.

    Half of the tokens are routed by a wish.
    """
    full = [top_k_mask(wanted, wanted.shape[1] // 2) for wanted in wish]
    hard = [torch.stack((~chosen, chosen), -1).float() for chosen in full]
    worth = torch.stack(
        [
            torch.stack([routed.truth(hard, layer, column) for column in positions.T], 1)
            for layer in range(len(hard))
        ]
    )
    on_full = torch.stack([chosen.gather(1, positions) for chosen in full])
    groups = [torch.ones_like(on_full), ~on_full, on_full]
    table: list[list[object]] = []
    for name, found in signals(routed, hard).items():
        signal = torch.stack([each.gather(1, positions) for each in found])
        table.append(
            [name, *(float(stats.spearmanr(signal[g], worth[g]).statistic) for g in groups)]
        )
        table[-1] += [float(signal[g].mean()) for g in groups[1:]]
    table.append(["the truth", None, None, None, *(float(worth[g].mean()) for g in groups[1:])])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=100)
    arguments = parser.parse_args()
    fix_numerics("cpu")
    suite = load_suite("controller")
    cell = Cell(suite, suite.row("mlp_gate"), arguments.seed)
    resolved = resolve(cell)
    model = assemble(resolved.blueprint(), arguments.seed)
    freeze(resolved, model, Pulse(cell))
    tokens, _ = window_tensors(cut(resolved, "calibration", SEQUENCES), torch.device("cpu"))
    keep = torch.randperm(len(tokens), generator=generator(arguments.seed, "windows"))[:SEQUENCES]
    routed, noise = Routed(model, tokens[keep]), generator(arguments.seed, "routing")
    shape = SEQUENCES, suite.seq_len
    positions = torch.stack(
        [torch.randperm(suite.seq_len, generator=noise)[:FLIPS] for _ in range(SEQUENCES)]
    )
    drawn = [torch.rand(shape, generator=noise) for _ in suite.routed_layers]
    headers = ["signal", "rank correlation", "on cheap", "on full", "mean on cheap", "mean on full"]
    wishes = {
        "at random": drawn,
        "by the mixture's derivative": mixture(routed, [torch.zeros(*shape, 2) for _ in drawn]),
    }
    for name, wish in wishes.items():
        table = compare(routed, wish, positions)
        print(
            f"\nrouted {name}\n\n"
            + tabulate(table, headers=headers, floatfmt="+.3f", tablefmt="github"),
            flush=True,
        )


if __name__ == "__main__":
    main()
