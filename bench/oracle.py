"""Oracle utility labels: what the upgrade of a token is worth, found by running it and not running it (arXiv:2604.17228).

A fork goes back to one routed site of a pass, flips the path of a random share of the tokens there, and runs the layers from there on
again, without gradient. The utility of a flipped token is the loss with its base path less the loss with its upgrade. The tokens that were
not flipped stay as they were, but feel the flips through later attention, and so do the flipped ones of each other: the smaller the
share, the nearer a label is to what flipping that token alone would have shown. `docs/decisions` has how near.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.assemble import Model
from bench.backbone.routed import History, Pass
from bench.contract import OracleRequest, Router, RouterInput, RoutingPlan
from bench.errors import UserError
from bench.evaluate import autocast, device_of
from bench.flops.ledger import Counts, Ledger, path_counts
from bench.rng import generator, key
from bench.select import top_k_mask


@dataclass(frozen=True)
class ForkCost:
    """What a forked pass ran.

    Attributes:
        ledger: prices of the layers from the fork on; the forked router, whose plan is at hand, costs nothing.
        counts: tokens of each sequence on each path, a routed site of those layers.
        tokens: tokens of the batch.
    """

    ledger: Ledger
    counts: list[Counts]
    tokens: int

    @property
    def active(self) -> float:
        """Active FLOPs, forward."""
        return self.ledger.active(self.counts, self.tokens)

    @property
    def executed(self) -> float:
        """The same as the hardware sees it."""
        return self.ledger.executed(self.counts, self.tokens, padded=True)


class Oracle:
    """Labels the traces of training batches for the routers of a model that ask for utility; without any it does nothing.

    Args:
        model: the assembled model; its ledger is charged.
        seed: of the cell; with the step it fixes which layer is forked and which tokens are flipped.
        dtype: precision of matrix products.

    Raises:
        UserError: a router asks for utility and has no base path, so there is no upgrade.
    """

    def __init__(self, model: Model, seed: int, dtype: torch.dtype) -> None:
        self.model, self.seed, self.dtype = model, seed, dtype
        routers = model.decoder.routers
        self.sites = [site for site, router in enumerate(routers) if "utility" in router.needs]
        for site in self.sites:
            if routers[site].paths.base is None:
                raise UserError(
                    f"Router {type(routers[site]).__name__} needs 'utility' with paths {routers[site].paths.names}; "
                    "utility is that of an upgrade from a base path. Give Paths a base, or drop the need."
                )

    def history(self) -> History | None:
        """What a pass must keep to be labelled; None if none will be."""
        return History() if self.sites else None

    @torch.no_grad()
    def label(self, run: Pass, targets: Int[Tensor, "batch seq"], token_loss: Float[Tensor, "batch seq"], step: int) -> list[ForkCost]:
        """Fill `utility` of the traces of a training step, charge the forks and say what they ran.

        Of the routers that ask, one is forked, drawn evenly, or all: see `OracleRequest`. The others' labels are all NaN.

        Args:
            run: the pass, with its history.
            targets: the token after each.
            token_loss: loss of each token in the pass.
            step: index of the training step.
        """
        if not self.sites:
            return []
        noise = generator(self.seed, f"oracle/{step}", run.tokens.device)
        drawn = self.sites[key(self.seed, "oracle", step) % len(self.sites)]
        spent: list[ForkCost] = []
        for site in self.sites:
            request = request_of(self.model.decoder.routers[site])
            trace = run.traces[site]
            trace.utility = torch.full_like(token_loss, torch.nan)
            if site == drawn or request.layers == "all":
                flip = random_flips(run.tokens, request.flip_fraction, noise)
                utility, costs = self.fork(run, site, flip, targets, token_loss)
                trace.utility = utility.masked_fill(~flip, torch.nan)
                spent += costs
        self.model.ledger.charge("oracle", "forward", sum(cost.active for cost in spent))
        return spent

    @torch.no_grad()
    def fork(
        self,
        run: Pass,
        site: int,
        flip: Bool[Tensor, "batch seq"],
        targets: Int[Tensor, "batch seq"],
        token_loss: Float[Tensor, "batch seq"],
    ) -> tuple[Float[Tensor, "batch seq"], list[ForkCost]]:
        """Loss of each token with the flipped tokens of its sequence on their base path, less that with their upgrade.

        The sign is that of the token's own flip, so only flipped tokens have a utility. A pass whose later layers are routed as
        usual is one of the two branches itself, and one fork is enough.

        Args:
            run: the pass, with its history.
            site: index of the routed site in `run.traces`.
            flip: tokens whose path is flipped.
            targets: the token after each.
            token_loss: loss of each token in the pass.

        Returns:
            The utilities, and what each fork ran.
        """
        router, plan = self.model.decoder.routers[site], run.traces[site].plan
        request, upgraded = request_of(router), takes_upgrade(plan)
        flipped, cost = self._resume(run, site, imposed(plan, upgraded ^ flip, flip), targets)
        costs = [cost]
        if request.policy == "off_policy" or router.trains_dense or router.allows_none:
            token_loss, cost = self._resume(run, site, imposed(plan, upgraded, flip), targets)
            costs.append(cost)
        return torch.where(upgraded, flipped - token_loss, token_loss - flipped), costs

    def _resume(self, run: Pass, site: int, plan: RoutingPlan, targets: Tensor) -> tuple[Tensor, ForkCost]:
        """Loss of each token where a site executes another plan, with the noise that later routers had."""
        decoder, history, layer = self.model.decoder, run.history, run.traces[site].layer
        assert history is not None
        forked = decoder.routers[site]
        off_policy = request_of(forked).policy == "off_policy"
        noise = None if run.generator is None else torch.Generator(run.generator.device)

        def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
            if router is forked:
                return plan
            if noise is not None:
                noise.set_state(history.noise[router])
            asked = run.decide(router, inputs)
            return all_upgraded(asked) if off_policy and router.paths.base is not None else asked

        fork = replace(run, generator=noise, decide=decide, traces=[], history=None, attention=history.attention[layer])
        device = device_of(decoder)
        with autocast(device, self.dtype):
            logits = decoder.resume(layer, history.entering[layer], fork)
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        return loss, ForkCost(self._ledger(site), path_counts(fork.traces), targets.numel())

    def _ledger(self, site: int) -> Ledger:
        whole = self.model.ledger
        routers = {other.layer: other.router for index, other in enumerate(whole.sites) if index != site}
        return Ledger(self.model.decoder, whole.seq_len, routers, first=whole.sites[site].layer)


def request_of(router: Router) -> OracleRequest:
    """How a router wants its labels made."""
    return router.oracle or OracleRequest()


def random_flips(like: Int[Tensor, "batch seq"], fraction: float, noise: torch.Generator) -> Bool[Tensor, "batch seq"]:
    """Mark a random share of the tokens of each sequence, at least one."""
    count = max(1, round(fraction * like.shape[1]))
    return top_k_mask(torch.rand(like.shape, generator=noise, device=like.device), count)


def takes_upgrade(plan: RoutingPlan) -> Bool[Tensor, "batch seq"]:
    """Whether a token takes the upgrade; of a token that runs both paths, the one that weighs more."""
    upgrade = plan.mask[..., 1]
    if plan.weight is None:
        return upgrade
    return upgrade & (~plan.mask[..., 0] | (plan.weight[..., 1] >= plan.weight[..., 0]))


def imposed(plan: RoutingPlan, upgraded: Bool[Tensor, "batch seq"], where: Bool[Tensor, "batch seq"]) -> RoutingPlan:
    """A plan with one path imposed on some tokens.

    The path has the weight that the plan gives it; or 1, as in evaluation, where the plan mixes both paths or only means one.
    """
    mask = torch.where(where.unsqueeze(-1), torch.stack((~upgraded, upgraded), dim=-1), plan.mask)
    return replace(plan, mask=mask, weight=_hardened(plan, where), counts=None)


def all_upgraded(plan: RoutingPlan) -> RoutingPlan:
    """A plan with the upgrade imposed on every token."""
    every = torch.ones_like(plan.mask[..., 0])
    counts = (0, every.shape[1])
    return replace(plan, mask=torch.stack((~every, every), dim=-1), weight=_hardened(plan, every), counts=counts)


def _hardened(plan: RoutingPlan, where: Bool[Tensor, "batch seq"]) -> Float[Tensor, "batch seq path"] | None:
    if plan.weight is None:
        return None
    soft = plan.mask.all(-1, keepdim=True) | (plan.weight == 0)
    return torch.where(where.unsqueeze(-1) & soft, 1.0, plan.weight)
