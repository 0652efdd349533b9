"""Compare oracle labels with flips of one token alone, by the share of tokens that a fork flips.

    python benchmarks/oracle.py --tokens 200000

Trains `mlp_gate` by the recipe of the suite `quick` for a number of tokens. Then some tokens of a
few validation windows are flipped alone at each routed layer, which is exact, and random shares of
all tokens are flipped together, which training can afford.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from tabulate import tabulate
from torch import Tensor

from bench.backbone.passes import History, Pass, make_pass
from bench.config.read_suite import load_suite
from bench.data import windows
from bench.model.assemble import Model, assemble
from bench.rng import generator
from bench.routing.contract import OracleRequest, Router, RouterInput, RoutingPlan
from bench.runner.cells import Cell
from bench.runner.numerics import fix_numerics
from bench.runner.resolve import resolve
from bench.training.imposed import all_upgraded, imposed, takes_upgrade
from bench.training.loop import train
from bench.training.task import Allowance, TrainTask
from bench.training.utility import Oracle, random_flips

FRACTIONS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
FORKS = 16
PICKED = 32
"""Tokens of each window that are flipped alone."""


def trained(tokens: int, seed: int, per_domain: int) -> tuple[Model, Tensor]:
    """A gate trained on a number of tokens, and validation windows."""
    suite = load_suite("quick")
    cell = Cell(suite, suite.row("mlp_gate"), seed)
    resolved = resolve(cell)
    corpus = resolved.corpus
    model = assemble(resolved.blueprint(), seed)
    task = TrainTask(corpus.train, suite.train, suite.seq_len, seed)
    train(model, task, Allowance(float("inf"), tokens))
    return model, torch.from_numpy(
        windows(corpus.validation, seq_len=suite.seq_len, per_domain=per_domain).tokens
    )


@dataclass
class Window:
    """One window, copied once a fork, its pass under training's selection."""

    model: Model
    ids: Tensor

    def forks(self, site: int, flip: Tensor) -> tuple[Tensor, Tensor]:
        """Return the utilities and the upgraded tokens of forks, `[fork, seq]` each.

        Each row of `flip` is flipped in a fork of its own.
        """
        ids = self.ids.expand(len(flip), -1)
        run = make_pass(ids[:, :-1], None, selection="topk", history=History())
        loss = self._loss(run, ids)
        return Oracle(self.model, 0, torch.float32).fork(run, site, flip, ids[:, 1:], loss)[
            0
        ], takes_upgrade(run.traces[site].plan)

    def exact(self, site: int, picked: Tensor) -> tuple[Tensor, Tensor]:
        """Of each picked token flipped alone.

        Its utility to its own loss, and to the sum of its own and the following losses.
        """
        utility, upgraded = self.forks(site, torch.eye(len(self.ids) - 1, dtype=torch.bool)[picked])
        change = torch.where(
            upgraded, utility, -utility
        )  # flipped less not flipped, each token of each fork
        sign = torch.where(upgraded[0, picked], 1.0, -1.0)
        return utility[torch.arange(len(picked)), picked], sign * change.sum(1)

    def uniform(self, site: int, off_policy: bool) -> Tensor:
        """Loss of each token with all on the base path less that with all upgraded.

        The other reading of flipping all at once.
        """
        forked = self.model.decoder.routers[site]
        losses: list[Tensor] = []
        for upgraded in (False, True):

            def decide(
                router: Router, inputs: RouterInput, upgraded: bool = upgraded
            ) -> RoutingPlan:
                plan = router(inputs)
                every = torch.ones_like(plan.mask[..., 0])
                if router is forked:
                    return imposed(plan, every & upgraded, every)
                return (
                    all_upgraded(plan)
                    if off_policy and router.spec.layer > forked.spec.layer
                    else plan
                )

            ids = self.ids.unsqueeze(0)
            losses.append(
                self._loss(make_pass(ids[:, :-1], None, selection="topk", decide=decide), ids)[0]
            )
        return losses[0] - losses[1]

    def _loss(self, run: Pass, ids: Tensor) -> Tensor:
        return F.cross_entropy(
            self.model.decoder(run).transpose(1, 2), ids[:, 1:], reduction="none"
        )


def compare(name: object, exact: Tensor, estimate: Tensor) -> list[object]:
    """Return a line of the table: agreement, slope, bias and error of the estimate.

    The slope is of the estimate on the exact value; bias and error are in units of its SD.
    """
    x, y = exact.double().numpy(), estimate.double().numpy()
    slope = float(np.cov(x, y)[0, 1] / x.var(ddof=1))
    error = y - x
    rank = float(stats.spearmanr(x, y).statistic)  # type: ignore[union-attr]
    return [
        name,
        float(np.corrcoef(x, y)[0, 1]),
        rank,
        slope,
        error.mean() / x.std(),
        np.sqrt((error**2).mean()) / x.std(),
    ]


@torch.no_grad()
def measure(model: Model, ids: Tensor, policy: str) -> Tensor:
    """Print how the estimates compare for one policy, and return the exact utilities."""
    noise, sites = generator(0, "benchmark"), range(len(model.decoder.routers))
    for router in model.decoder.routers:
        router.oracle = OracleRequest(policy)  # type: ignore[arg-type]
    exact: list[Tensor] = []
    total: list[Tensor] = []
    pairs: dict[object, list[Tensor]] = {}
    for window in (Window(model, row) for row in ids):
        for site in sites:
            picked = torch.randperm(len(window.ids) - 1, generator=noise)[:PICKED]
            own, following = window.exact(site, picked)
            exact.append(own)
            total.append(following)
            for fraction in FRACTIONS:
                flip = random_flips(
                    window.ids[1:].expand(FORKS if fraction < 1 else 1, -1), fraction, noise
                )
                utility, flip = window.forks(site, flip)[0][:, picked], flip[:, picked]
                pairs.setdefault(fraction, []).append(
                    torch.stack((own.expand_as(utility)[flip], utility[flip]))
                )
            uniform = window.uniform(site, policy == "off_policy")[picked]
            pairs.setdefault("all base, all upgraded", []).append(torch.stack((own, uniform)))
    lines = [compare(name, *torch.cat(found, dim=1)) for name, found in pairs.items()]
    own, whole = torch.cat(exact), torch.cat(total)
    lines.append(compare("own and following losses", own, whole))
    print(
        f"\n{policy}: {own.numel()} tokens and layers, utility {own.mean():.4f} nats, "
        f"SD {own.std():.4f}"
    )
    headers = ("flipped", "Pearson", "Spearman", "slope", "bias / SD", "RMSE / SD")
    print(tabulate(lines, headers=headers, tablefmt="github", floatfmt=".2f"))
    return own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--windows", type=int, default=1, help="a domain")
    parser.add_argument("--seed", type=int, default=100)
    arguments = parser.parse_args()
    fix_numerics("cpu")
    model, ids = trained(arguments.tokens, arguments.seed, arguments.windows)
    off, on = (measure(model, ids, policy) for policy in ("off_policy", "on_policy"))
    print(
        f"\noff_policy against on_policy: {compare('', off, on)[1]:.2f} Pearson, "
        f"{compare('', off, on)[2]:.2f} Spearman"
    )


if __name__ == "__main__":
    main()
