"""Oracle utility labels: what the upgrade of a token is worth, found by running it and not running
it (arXiv:2604.17228).

A fork goes back to one routed site of a pass, flips the path of a random share of the tokens there,
and runs the layers from there on again, without gradient. The utility of a flipped token is the
loss with its base path less the loss with its upgrade. The tokens that were not flipped stay as
they were, but feel the flips through later attention, and so do the flipped ones of each other: the
smaller the share, the nearer a label is to what flipping that token alone would have shown.
`docs/decisions` has how near.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import History, Pass, autocast
from bench.errors import UserError
from bench.flops.ledger import Counts, Ledger
from bench.model.assemble import Model
from bench.rng import generator, key
from bench.routing.contract import OracleRequest, Policy, Router, RouterInput, RoutingPlan
from bench.routing.select import top_k_mask
from bench.training.auxiliary import asks_for


@dataclass(frozen=True)
class ForkCost:
    """What a forked pass ran.

    Attributes:
        ledger: prices of the layers from the fork on; the forked router, whose plan is at hand,
            costs nothing.
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
    """Labels the traces of training batches for the routers of a model that ask for utility;
    without any it does nothing.

    Args:
        model: the assembled model; its ledger is charged.
        seed: of the cell; with the step it fixes which layer is forked and which tokens are
            flipped.
        dtype: precision of matrix products.

    Raises:
        UserError: a router asks for utility and has no base path, so there is no upgrade.
    """

    def __init__(
        self,
        model: Model,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.seed, self.dtype = model, seed, dtype
        routers = model.decoder.routers
        self.sites = [site for site, router in enumerate(routers) if "utility" in router.needs]
        for site in self.sites:
            if routers[site].paths.base is None:
                raise UserError(
                    f"Router {type(routers[site]).__name__} needs 'utility' with paths {routers[site].paths.names}; "
                    "utility is that of an upgrade from a base path. Give Paths a base, or drop the need."
                )

    def asking(self, progress: float) -> list[int]:
        """Sites whose routers want utility after a share of training."""
        return [
            site
            for site in self.sites
            if asks_for(
                self.model.decoder.routers[site], "utility", self.model.losses[site], progress
            )
        ]

    def history(self, progress: float = 0.0) -> History | None:
        """What a pass must keep to be labelled; None if none will be."""
        return History() if self.asking(progress) else None

    @torch.no_grad()
    def label(
        self,
        run: Pass,
        targets: Int[Tensor, "batch seq"],
        token_loss: Float[Tensor, "batch seq"],
        step: int,
        only: Mapping[int, Bool[Tensor, " batch"]] | None = None,
    ) -> list[ForkCost]:
        """Fill `utility` of the traces of a training step, charge the forks and say what they ran.

        Of the routers that ask, one is forked, drawn evenly, or all: see `OracleRequest`. The
        others' stay None.

        Args:
            run: the pass, with its history.
            targets: the token after each.
            token_loss: loss of each token in the pass.
            step: index of the training step.
            only: site -> sequences whose utility is of any use, where it is not that of all.
                On-policy forks take all the same, since the noise of later routers is that of the
                whole batch.
        """
        sites = self.asking(run.progress)
        if not sites:
            return []
        noise = generator(self.seed, f"oracle/{step}", run.tokens.device)
        drawn = sites[key(self.seed, "oracle", step) % len(sites)]
        spent: list[ForkCost] = []
        for site in sites:
            request = request_of(self.model.decoder.routers[site])
            if site != drawn and request.layers == "one":
                continue
            flip = random_flips(run.tokens, request.flip_fraction, noise)
            rows = None if only is None or request.policy == "on_policy" else only.get(site)
            spent += self._label_site(run, site, flip, targets, token_loss, rows)
        if spent:
            self.model.ledger.charge("oracle", "forward", sum(cost.active for cost in spent))
        return spent

    def _label_site(
        self,
        run: Pass,
        site: int,
        flip: Tensor,
        targets: Tensor,
        token_loss: Tensor,
        rows: Bool[Tensor, " batch"] | None,
    ) -> list[ForkCost]:
        """Fill `utility` of one site, for all sequences or some of them."""
        if rows is None:
            utility, costs = self.fork(run, site, flip, targets, token_loss)
        else:
            index = rows.nonzero().squeeze(1)
            if not len(index):
                return []
            part, costs = self.fork(
                _sequences(run, site, index), site, flip[index], targets[index], token_loss[index]
            )
            utility = torch.full_like(token_loss, torch.nan).index_copy(0, index, part)
        run.traces[site].utility = utility.masked_fill(~flip, torch.nan)
        return costs

    @torch.no_grad()
    def fork(
        self,
        run: Pass,
        site: int,
        flip: Bool[Tensor, "batch seq"],
        targets: Int[Tensor, "batch seq"],
        token_loss: Float[Tensor, "batch seq"],
        policy: Policy | None = None,
    ) -> tuple[Float[Tensor, "batch seq"], list[ForkCost]]:
        """Loss of each token with the flipped tokens of its sequence on their base path, less that
        with their upgrade.

        The sign is that of the token's own flip, so only flipped tokens have a utility. A pass
        whose later layers are routed as usual is one of the two branches itself, and one fork is
        enough.

        Args:
            run: the pass, with its history.
            site: index of the routed site in `run.traces`.
            flip: tokens whose path is flipped.
            targets: the token after each.
            token_loss: loss of each token in the pass.
            policy: how later layers are run; None for what the router asks for.

        Returns:
            The utilities, and what each fork ran.
        """
        router, plan = self.model.decoder.routers[site], run.traces[site].plan
        policy, upgraded = policy or request_of(router).policy, takes_upgrade(plan)
        flipped, cost = self._resume(
            run, site, imposed(plan, upgraded ^ flip, flip), targets, policy
        )
        costs = [cost]
        if policy == "off_policy" or router.trains_dense or router.allows_none:
            token_loss, cost = self._resume(
                run, site, imposed(plan, upgraded, flip), targets, policy
            )
            costs.append(cost)
        return torch.where(upgraded, flipped - token_loss, token_loss - flipped), costs

    def _resume(
        self, run: Pass, site: int, plan: RoutingPlan, targets: Tensor, policy: Policy
    ) -> tuple[Tensor, ForkCost]:
        """Loss of each token where a site executes another plan, with the noise that later routers
        had.
        """
        decoder, history, layer = self.model.decoder, run.history, run.traces[site].layer
        assert history is not None
        forked = decoder.routers[site]
        noise = None if run.generator is None else torch.Generator(run.generator.device)

        def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
            if router is forked:
                return plan
            if noise is not None:
                noise.set_state(history.noise[router])
            asked = run.decide(router, inputs)
            return (
                all_upgraded(asked)
                if policy == "off_policy" and router.paths.base is not None
                else asked
            )

        fork = replace(
            run,
            generator=noise,
            decide=decide,
            traces=[],
            counts=[],
            history=None,
            attention=history.attention[layer],
        )
        device = device_of(decoder)
        with autocast(device, self.dtype):
            logits = decoder.resume(layer, history.entering[layer], fork)
        loss = F.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), reduction="none"
        ).view(targets.shape)
        return loss, ForkCost(self._ledger(site), fork.counts, targets.numel())

    def _ledger(self, site: int) -> Ledger:
        whole = self.model.ledger
        routers = {
            other.layer: other.router for index, other in enumerate(whole.sites) if index != site
        }
        return Ledger(self.model.decoder, whole.seq_len, routers, first=whole.sites[site].layer)


def _sequences(run: Pass, site: int, index: Int[Tensor, " kept"]) -> Pass:
    """The pass of some of the sequences of a batch, as far as a fork at one site needs it."""

    def kept(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[index]

    history, trace, plan = run.history, run.traces[site], run.traces[site].plan
    assert history is not None
    extras = {
        name: value[index] for name, value in plan.extras.items() if len(value) == len(run.tokens)
    }
    part = replace(
        plan,
        mask=plan.mask[index],
        weight=kept(plan.weight),
        scores=kept(plan.scores),
        extras=extras,
    )
    traces = list(run.traces)
    traces[site] = replace(trace, plan=part)
    return replace(
        run,
        tokens=run.tokens[index],
        positions=run.positions[index],
        tags=kept(run.tags),
        truth=kept(run.truth),
        traces=traces,
        counts=[],
        history=History(
            [hidden[index] for hidden in history.entering],
            history.noise,
            [kept(one) for one in history.attention],
        ),
    )


def request_of(router: Router) -> OracleRequest:
    """How a router wants its labels made."""
    return router.oracle or OracleRequest()


def random_flips(
    like: Int[Tensor, "batch seq"], fraction: float, noise: torch.Generator
) -> Bool[Tensor, "batch seq"]:
    """Mark a random share of the tokens of each sequence, at least one."""
    count = max(1, round(fraction * like.shape[1]))
    return top_k_mask(torch.rand(like.shape, generator=noise, device=like.device), count)


def takes_upgrade(plan: RoutingPlan) -> Bool[Tensor, "batch seq"]:
    """Whether a token takes the upgrade.

    Of a token that runs both paths, the one that weighs more.
    """
    upgrade = plan.mask[..., 1]
    if plan.weight is None:
        return upgrade
    return upgrade & (~plan.mask[..., 0] | (plan.weight[..., 1] >= plan.weight[..., 0]))


def imposed(
    plan: RoutingPlan, upgraded: Bool[Tensor, "batch seq"], where: Bool[Tensor, "batch seq"]
) -> RoutingPlan:
    """A plan with one path imposed on some tokens.

    The path has the weight that the plan gives it; or 1, as in evaluation, where the plan mixes
    both paths or only means one.
    """
    mask = torch.where(where.unsqueeze(-1), torch.stack((~upgraded, upgraded), dim=-1), plan.mask)
    return replace(plan, mask=mask, weight=_hardened(plan, where), counts=None)


def all_upgraded(plan: RoutingPlan) -> RoutingPlan:
    """A plan with the upgrade imposed on every token."""
    every = torch.ones_like(plan.mask[..., 0])
    counts = (0, every.shape[1])
    return replace(
        plan,
        mask=torch.stack((~every, every), dim=-1),
        weight=_hardened(plan, every),
        counts=counts,
    )


def _hardened(
    plan: RoutingPlan, where: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq path"] | None:
    """Weights with those of the imposed tokens as they are when a path is taken.

    A probing router says them, `extras["factor"]`.
    """
    if plan.weight is None:
        return None
    if (factor := plan.extras.get("factor")) is not None:
        return torch.where(where.unsqueeze(-1), factor, plan.weight)
    soft = plan.mask.all(-1, keepdim=True) | (plan.weight == 0)
    return torch.where(where.unsqueeze(-1) & soft, 1.0, plan.weight)
