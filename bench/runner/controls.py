"""Find or make the control of a row: `random` over the same paths and experts, in the same layers.

A control is known by its kind of choice, not by its name. A run makes it if the suite has none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bench.config.row import Role, RowConfig
from bench.config.suite import SuiteConfig
from bench.errors import UserError
from bench.model.blueprint import layers_used
from bench.routing.load_routers import load_shipped
from bench.routing.paths import Paths, Site
from bench.routing.registry import Entry, RouterCard
from bench.runner.rows import Rows

CHANCE = "random"
"""Router of the controls that choose by chance."""
_MAY_BE_CONTROL: tuple[Role, ...] = ("control", "ranked")
_WITHOUT_CONTROL: tuple[Role, ...] = ("bracket", "control")


@dataclass(frozen=True)
class ChoiceKind:
    """The kind of choice that a router makes: the same for a row and its control.

    Attributes:
        site: place of the choice in a layer.
        paths: kinds of the paths; all experts are of one kind, and without a base they are sorted.
        base: path of a token that is not upgraded, if there is one.
        mean_experts: mean number of experts per token; 1 with a base.
        shared: number of them that every token takes.
        inside: choice inside the block, if there is one.
        capacity: given share of tokens to upgrade, or None.
        layers: layers that hold the router.
    """

    site: Site
    paths: tuple[str, ...]
    base: str | None
    mean_experts: float
    shared: int
    inside: "ChoiceKind | None"
    layers: tuple[int, ...]
    capacity: float | None = None

    def __str__(self) -> str:
        said = self._paths()
        if self.inside is not None:
            said += f" with {self.inside._paths()} inside"
        if self.capacity is not None:
            said += f" at a capacity of {self.capacity:g}"
        return f"{said} in layers {', '.join(map(str, self.layers))}"

    def _paths(self) -> str:
        experts, others = self.paths.count("expert"), [n for n in self.paths if n != "expert"]
        if not experts:
            return " or ".join(others)
        said = f"{_number(self.mean_experts)} of {experts} experts"
        said += f", {self.shared} of them shared," if self.shared else ""
        return " or ".join([said, *others])


def choice_kind(card: RouterCard, suite: SuiteConfig) -> ChoiceKind:
    """Return the kind of choice that a router makes under a suite."""
    layers = layers_used(card, suite.routed_layers)
    inside = _choice(*card.inside, None, layers) if card.inside else None
    choice = _choice(card.paths, card.mean_experts, inside, layers)
    return replace(choice, capacity=card.capacity)


def _choice(
    paths: Paths, mean: float, inside: ChoiceKind | None, layers: tuple[int, ...]
) -> ChoiceKind:
    kinds = ["expert" if name.startswith("expert") else name for name in paths.names]
    if paths.base is not None:
        return ChoiceKind(paths.site, tuple(kinds), paths.base, 1.0, 0, inside, layers)
    mean = _rounded(mean)
    return ChoiceKind(
        paths.site, tuple(sorted(kinds)), None, mean, len(paths.always), inside, layers
    )


def control_of(suite: SuiteConfig, row: RowConfig, card: RouterCard) -> str | None:
    """Return the row of `random` that a row is compared with, if the suite lists one.

    It is the row that it names, or the first with the same choice. The role `control` comes first.
    """
    if row.role in _WITHOUT_CONTROL or row.router == CHANCE:
        return None
    if row.control:
        return row.control
    wanted = choice_kind(card, suite)
    found = [listed for listed, choice in _listed(suite) if choice == wanted]
    return min(found, key=lambda listed: listed.role != "control").name if found else None


def _listed(suite: SuiteConfig) -> Iterator[tuple[RowConfig, ChoiceKind]]:
    """Yield the rows that may be controls, with the choice of each."""
    chance = load_shipped().get(CHANCE)
    for row in suite.rows:
        if chance and row.router == CHANCE and row.role in _MAY_BE_CONTROL:
            yield row, choice_kind(chance.describe(row.options), suite)


def with_controls(suite: SuiteConfig, parsed: Rows) -> tuple[SuiteConfig, Rows, list[str]]:
    """Add the controls that ranked rows of a run lack.

    Args:
        suite: the suite to run.
        parsed: the rows to run.

    Returns:
        The suite with all controls listed, the rows with those that were made, and a line for each
        of these and for each row that cannot have one.

    Raises:
        UserError: a row names a control that does not choose the same, or the name of a control
            that is made is taken.
    """
    # Rows of `random` from the command line count as controls too.
    known = {row.name for row in suite.rows}
    given = [row for row in parsed.rows if row.router == CHANCE and row.name not in known]
    suite = _listing(suite, given)
    made: dict[str, tuple[RowConfig, list[str]]] = {}
    said: list[str] = []
    for row in parsed.rows:
        card = parsed.cards[row.name]
        _check_named(suite, row, card)
        # One path leaves nothing to choose, and chance needs no control of its own.
        alone = len(card.paths.names) < 2 or row.role != "ranked" or row.router == CHANCE
        if alone or control_of(suite, row, card):
            continue
        if (control := _made(suite, card)) is None:
            choice = choice_kind(card, suite)
            said.append(f"no control  {row.name}: {CHANCE!r} has no option to choose {choice}")
        else:
            made.setdefault(control.name, (control, []))[1].append(row.name)
    controls = [control for control, _ in made.values()]
    cards = {row.name: load_shipped()[CHANCE].describe(row.options) for row in controls}
    said += [
        f"added  {name}, the control of {', '.join(rows)}: the suite lists no other that chooses "
        f"{choice_kind(cards[name], suite)}"
        for name, (_, rows) in made.items()
    ]
    rows = replace(parsed, rows=(*parsed.rows, *controls), cards={**parsed.cards, **cards})
    return _listing(suite, controls), rows, said


def _listing(suite: SuiteConfig, rows: list[RowConfig]) -> SuiteConfig:
    return suite.model_copy(update={"rows": (*suite.rows, *rows)}) if rows else suite


def _check_named(suite: SuiteConfig, row: RowConfig, card: RouterCard) -> None:
    """Raise a `UserError` if a row names a control that does not choose the same by chance."""
    if not row.control or row.role in _WITHOUT_CONTROL or CHANCE not in load_shipped():
        return
    choices = {listed.name: choice for listed, choice in _listed(suite)}
    wanted, advice = choice_kind(card, suite), "Leave `control` out: a run finds or makes one."
    if row.control not in choices:
        raise UserError(
            f"Row {row.name!r} names the control {row.control!r}; a control is a row of the router "
            f"{CHANCE!r} with the role control. {advice}"
        )
    if choices[row.control] != wanted:
        raise UserError(
            f"Row {row.name!r} chooses {wanted}; {row.control!r}, which it names as its control, "
            f"chooses {choices[row.control]}. {advice}"
        )


def _made(suite: SuiteConfig, card: RouterCard) -> RowConfig | None:
    """Return a row of `random` with the choice of a router; None if it has no such options.

    Raises:
        UserError: a row of the suite has its name.
    """
    chance = load_shipped().get(CHANCE)
    options = _options(chance, card) if chance else None
    if chance is None or options is None:
        return None
    if choice_kind(chance.describe(options), suite) != choice_kind(card, suite):
        return None
    # Named after its options, so that two runs give one control one name.
    parts = [
        "skip" if v is True else v if isinstance(v, str) else _number(v) for v in options.values()
    ]
    name = f"{CHANCE}@{'-'.join(parts)}"
    if name in {row.name for row in suite.rows}:
        raise UserError(
            f"Row {name!r} does not choose {choice_kind(card, suite)}, and that is the name of the "
            f"control that does. Rename the row."
        )
    return RowConfig(name=name, router=CHANCE, role="control", options=options)


def _options(chance: Entry, card: RouterCard) -> dict[str, Any] | None:
    """Return options of `random` for the paths, experts and layers of a router, if it has any."""
    if card.paths.site is Site.FFN:
        options = _ffn_options("over", card.paths, card.mean_experts)
    else:
        options = {"over": "block", **(_ffn_options("inside", *card.inside) if card.inside else {})}
    if card.capacity is not None:
        options["capacity"] = card.capacity
    try:
        usual = chance.describe(options).layers
    except UserError:  # a choice that `random` refuses
        return None
    return options if usual == card.layers else {**options, "layers": card.layers}


def _ffn_options(where: str, paths: Paths, mean: float) -> dict[str, Any]:
    """Return options of `random` for paths of an FFN site.

    Args:
        where: option that says whether the FFN is the site or inside a block.
        paths: paths of the FFN.
        mean: mean number of experts per token.
    """
    skip = {"skip": True} if "skip" in paths.names else {}
    if paths.base is not None:
        return {where: "ffn", **skip}
    shared = len(paths.always)
    chosen = len(paths.chosen_experts)
    options = {where: "experts", "num_experts": chosen, "active_experts": _rounded(mean - shared)}
    return {**options, **({"num_shared": shared} if shared else {}), **skip}


def _rounded(mean: float) -> float:
    """Round a mean number of experts, so that 1.1 * 3 and 3.3 are the same."""
    return round(float(mean), 6)


def _number(value: float) -> str:
    """Write a number for a name: 4 for 4.0."""
    return str(int(value)) if value == int(value) else repr(value)
