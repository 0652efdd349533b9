"""Find and check the rows of a run, from the names of a user, before any cell runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.config.data import Route
from bench.config.row import ROW_NAME, Role, RowConfig
from bench.config.suite import SuiteConfig
from bench.data import Corpus
from bench.errors import UserError, unknown
from bench.model.equip import STANDARD_LOSSES
from bench.routing.contract import NEEDS
from bench.routing.paths import Site
from bench.routing.registry import RouterCard
from bench.runner.plugins import describe_rows
from bench.runner.row_options import split_options, with_options

UNRANKED: tuple[Role, ...] = ("bracket", "informed")
SIDE_INFORMATION = frozenset({"tags", "truth"})
"""Needs that a text without labels cannot meet.

A row with such a need is `informed`, whatever its suite declares.
"""
PRETRAINED = frozenset({"cheap", "full", "skip", "block"})
"""Paths with weights in a frozen backbone, or without weights."""


@dataclass(frozen=True)
class Rows:
    """The rows of a run.

    Attributes:
        rows: the rows, in the order of the run.
        cards: row name -> the card of its router.
    """

    rows: tuple[RowConfig, ...]
    cards: Mapping[str, RouterCard]

    @property
    def outside(self) -> frozenset[str]:
        """Return the names of the rows that run a plugin's code."""
        return frozenset(row.name for row in self.rows if self.cards[row.name].outside)

    def without(self, reasons: Mapping[str, str]) -> "Rows":
        """Return the rows without those that cannot run.

        Args:
            reasons: row name -> why it cannot run.

        Raises:
            UserError: no row is left.
        """
        left = tuple(row for row in self.rows if row.name not in reasons)
        if not left:
            said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise UserError(f"No row can run ({said}). Choose other rows or another suite.")
        return Rows(left, self.cards)


def parse_rows(suite: SuiteConfig, routers: str, plugin_files: Sequence[Path] = ()) -> Rows:
    """Find the rows of a comma-separated list of names, where "all" is the suite's roster.

    Raises:
        UserError: a name that is neither a row of the suite nor a registered router, or the weight
            of a loss that none of them has.
    """
    chosen = _named(suite, routers)
    if not chosen:
        raise UserError(f"--routers is {routers!r}: name at least one router, or 'all'.")
    known_rows = {row.name for row in suite.rows}
    # Plugins run in processes of their own, all rows of a run together.
    cards = dict(
        zip(
            (row.name for row in chosen),
            describe_rows(chosen, plugin_files, known_rows),
            strict=True,
        )
    )
    for index, row in enumerate(chosen):
        card = cards[row.name]
        if row.training is not None:
            check_loss_names(row.training.losses, [card])
        if card.needs & SIDE_INFORMATION and row.role not in UNRANKED:
            chosen[index] = row.model_copy(update={"role": "informed"})
    # A weight of the suite may be for a row that this run leaves out.
    if weights := suite.train.router.losses:
        others = [row for row in suite.rows if row.name not in cards]
        also = describe_rows(others, plugin_files, known_rows) if others else []
        check_loss_names(weights, [*cards.values(), *also])
    return Rows(tuple(chosen), cards)


def _named(suite: SuiteConfig, routers: str) -> list[RowConfig]:
    given = [split_options(text.strip()) for text in routers.split(",") if text.strip()]
    names = [name for name, _ in given]
    if odd := next((name for name in names if re.fullmatch(ROW_NAME, name) is None), None):
        raise UserError(
            f"--routers names {odd!r}: names hold letters, digits and the signs _ . @ + = -. "
            "See `python -m bench list`."
        )
    # A name that is given twice is one row.
    rows: dict[str, RowConfig] = {}
    for name, own in given:
        roster = name == "all" and not own
        found = suite.rows if roster else [with_options(suite.row(name), own)]
        rows.update((row.name, row) for row in found)
    return list(rows.values())


def check_loss_names(weights: Mapping[str, float], cards: Sequence[RouterCard]) -> None:
    """Refuse the weight of a loss that no router has, or whose labels no router asks for.

    Args:
        weights: name of a loss -> weight.
        cards: the routers that get the weights.

    Raises:
        UserError: such a weight.
    """
    known = {*STANDARD_LOSSES, *(name for card in cards for name in card.losses)}
    for name, weight in weights.items():
        if name not in known:
            raise unknown("auxiliary loss", name, known, "Set `losses` to weights of these.")
        using = [card for card in cards if weight and name in card.losses]
        if using and all("utility" in card.losses[name] - card.needs for card in using):
            raise UserError(
                f"losses: {name} is {weight:g}, but the router finds no oracle utility unless its "
                f"own option asks for it. Set the option {name!r} of the row instead."
            )


def unmet(suite: SuiteConfig, corpus: Corpus, rows: Rows) -> dict[str, str]:
    """Return the rows that a suite cannot run, and why."""
    reasons = {
        name: unmet_needs(
            card, len(corpus.domains), corpus.route, suite.regime, suite.routed_layers[0]
        )
        for name, card in rows.cards.items()
    }
    return {name: reason for name, reason in reasons.items() if reason}


def unmet_needs(
    card: RouterCard,
    num_domains: int,
    route: Route | None = None,
    regime: str = "joint",
    first_layer: int = 1,
) -> str:
    """Return why a suite cannot run a router; empty if it can.

    Args:
        card: the router.
        num_domains: number of domains in the suite's data.
        route: kind of right paths in the data, if any.
        regime: regime of the suite.
        first_layer: first layer that the suite routes.
    """
    paths, needs = card.paths, card.needs
    without = [name for name in paths.names if name not in PRETRAINED]
    if regime == "controller" and without:
        return f"it chooses among {', '.join(without)}, of which the frozen backbone has none"
    if "tags" in needs and num_domains < 2:
        return "it needs domain tags, and the data has one domain"
    if "truth" in needs and route is None:
        return (
            "it needs the right path of each token, and the data do not tell it; "
            "source: planted does"
        )
    if "truth" in needs and (paths.base is not None) != (route == "depth"):
        return (
            f"it chooses among {', '.join(paths.names)}, and the data tell right paths of the "
            f"kind {route!r}"
        )
    if "utility" in needs and paths.base is None:
        return "it needs utility, which only an upgrade has, and its paths have no base"
    if "received" in needs and paths.site is Site.BLOCK and first_layer == 0:
        return (
            "it ranks tokens by the attention of the layer before, and the suite routes layer 0; "
            "routed_layers from 1 on would do"
        )
    missing = sorted(needs - NEEDS)
    return f"it needs {', '.join(missing)}, which the bench does not provide" if missing else ""
