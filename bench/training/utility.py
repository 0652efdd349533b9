"""Make oracle utility labels: the loss difference of an upgrade (arXiv:2604.17228).

A fork goes back to one routed site of a pass, flips the path of a random share of the tokens, and
runs the layers from there on again, without gradient. The utility of a flipped token is its loss
with the base path minus its loss with the upgrade. Flipped tokens also affect each other through
later attention. The smaller the share, the nearer a label is to the effect of flipping that token
alone; `docs/decisions` has measurements.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import History, Pass, autocast
from bench.backbone.token_losses import token_losses
from bench.errors import UserError
from bench.flops.ledger import Counts, Ledger
from bench.model.assemble import Model
from bench.ranks import drawing, total, world
from bench.rng import generator, key
from bench.routing.capacity import top_k_mask
from bench.routing.contract import OracleRequest, Policy, Router, RouterInput, RoutingPlan
from bench.training.auxiliary import asks_for
from bench.training.imposed import all_upgraded, imposed, of_sequences, takes_upgrade


@dataclass(frozen=True)
class ForkCost:
    """The cost of a forked pass.

    Attributes:
        ledger: prices of the layers from the fork on. The forked router costs nothing, because its
            plan is known.
        counts: for each routed site of those layers, tokens of each sequence on each path.
        tokens: tokens of the batch.
    """

    ledger: Ledger
    counts: list[Counts]
    tokens: int

    @property
    def active(self) -> float:
        """Active FLOPs of the forward pass."""
        return self.ledger.active(self.counts, self.tokens)

    @property
    def executed(self) -> float:
        """Executed FLOPs of the forward pass."""
        return self.ledger.executed(self.counts, self.tokens, padded=True)


class Oracle:
    """Labels the traces of training batches with utility, for routers that ask for it.

    Args:
        model: the assembled model. Its ledger is charged.
        seed: seed of the cell. With the step it fixes the forked layer and the flipped tokens.
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
                    f"Router {type(routers[site]).__name__} needs 'utility' with paths "
                    f"{routers[site].paths.names}; only an upgrade from a base path has a utility. "
                    "Give Paths a base, or drop the need."
                )

    def asking(self, progress: float) -> list[int]:
        """Return the sites whose routers need utility after a share of training."""
        return [
            site
            for site in self.sites
            if asks_for(
                self.model.decoder.routers[site], "utility", self.model.losses[site], progress
            )
        ]

    def history(self, progress: float = 0.0) -> History | None:
        """Return an empty history for a pass that will be forked, else None."""
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
        """Fill `utility` of the traces of a step, charge the forks, and return their costs.

        One of the asking routers is forked, drawn evenly, or all: see `OracleRequest`. The utility
        of the others stays None.

        Args:
            run: the pass with its history.
            targets: the next token of each token.
            token_loss: loss of each token in the pass.
            step: index of the training step.
            only: site -> sequences whose utility is used, if not all. On-policy forks run all
                sequences, because later routers draw their noise for the whole batch.
        """
        sites = self.asking(run.progress)
        if not sites:
            return []
        noise = generator(self.seed, f"oracle/{step}", run.tokens.device)
        # A hash of seed and step, so that a resumed run forks the same layers.
        drawn = sites[key(self.seed, "oracle", step) % len(sites)]
        spent: list[ForkCost] = []
        for site in sites:
            request = request_of(self.model.decoder.routers[site])
            if site != drawn and request.layers == "one":
                continue
            with drawing(*run.tokens.shape):
                flip = random_flips(run.tokens, request.flip_fraction, noise)
            rows = None if only is None or request.policy == "on_policy" else only.get(site)
            _check_whole(rows)
            spent += self._label_site(run, site, flip, targets, token_loss, rows)
        if spent:
            active = total(sum(cost.active for cost in spent))
            self.model.ledger.charge("oracle", "forward", active)
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
        """Fill `utility` of one site, for all sequences or for some."""
        if rows is None:
            utility, costs = self.fork(run, site, flip, targets, token_loss)
        else:
            # Fork only the sequences whose utility is used, and leave the others without.
            index = rows.nonzero().squeeze(1)
            if not len(index):
                return []
            part, costs = self.fork(
                of_sequences(run, site, index), site, flip[index], targets[index], token_loss[index]
            )
            utility = torch.full_like(token_loss, torch.nan).index_copy(0, index, part)
        # Only the flipped tokens have a utility.
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
        """Return each token's loss with the base path minus its loss with the upgrade.

        The sign follows the token's own flip, so only flipped tokens have a utility. If later
        layers are routed as usual, the pass itself is one of the two branches, and one fork is
        enough.

        Args:
            run: the pass with its history.
            site: index of the routed site in `run.traces`.
            flip: tokens whose path is flipped.
            targets: the next token of each token.
            token_loss: loss of each token in the pass.
            policy: how later layers are run; None for the policy of the router.

        Returns:
            The utilities, and the cost of each fork.
        """
        router, plan = self.model.decoder.routers[site], run.traces[site].plan
        policy, upgraded = policy or request_of(router).policy, takes_upgrade(plan)
        flipped, cost = self._resume(
            run, site, imposed(plan, upgraded ^ flip, flip), targets, policy
        )
        costs = [cost]
        # The pass itself is no branch if later layers differ, or if it mixed or skipped paths.
        if policy == "off_policy" or router.trains_dense or router.allows_none:
            token_loss, cost = self._resume(
                run, site, imposed(plan, upgraded, flip), targets, policy
            )
            costs.append(cost)
        return torch.where(upgraded, flipped - token_loss, token_loss - flipped), costs

    def _resume(
        self, run: Pass, site: int, plan: RoutingPlan, targets: Tensor, policy: Policy
    ) -> tuple[Tensor, ForkCost]:
        """Return the loss of each token with another plan at one site, and the cost.

        Later routers get the same noise as in the pass.
        """
        decoder, history, layer = self.model.decoder, run.history, run.traces[site].layer
        assert history is not None
        forked = decoder.routers[site]
        noise = None if run.generator is None else torch.Generator(run.generator.device)

        def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
            if router is forked:
                return plan
            if noise is not None:
                # Rewind to the draws that this router made in the pass.
                noise.set_state(history.noise[router])
            asked = run.decide(router, inputs)
            # Off-policy, all later routers with a base upgrade every token.
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
        loss = token_losses(logits, targets)
        return loss, ForkCost(self._ledger(site), fork.counts, targets.numel())

    def _ledger(self, site: int) -> Ledger:
        whole, decoder = self.model.ledger, self.model.decoder
        routers = {
            (cost.layer, router.paths.site): cost.router
            for index, (router, cost) in enumerate(zip(decoder.routers, whole.sites, strict=True))
            if index != site
        }
        return Ledger(self.model.decoder, whole.seq_len, routers, first=whole.sites[site].layer)


def _check_whole(rows: Bool[Tensor, " batch"] | None) -> None:
    """Refuse to fork some sequences only where several ranks share the batch."""
    if rows is not None and world().sliced:
        raise UserError(
            "Labels made from utility fork some sequences only, which several ranks cannot share. "
            "Run this row in one process."
        )


def request_of(router: Router) -> OracleRequest:
    """Return the label options of a router, or the defaults."""
    return router.oracle or OracleRequest()


def random_flips(
    like: Int[Tensor, "batch seq"], fraction: float, noise: torch.Generator
) -> Bool[Tensor, "batch seq"]:
    """Mark a random share of the tokens of each sequence, at least one."""
    count = max(1, round(fraction * like.shape[1]))
    return top_k_mask(torch.rand(like.shape, generator=noise, device=like.device), count)
