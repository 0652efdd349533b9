"""Define the paths of a router, and refuse those that docs/routing-paths.md does not have."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SITES = ("ffn", "block")
BESIDE = ("skip", "cheap", "full")
"""Paths of an FFN site that are no experts, by rising cost."""
BLOCK = ("skip", "block")
GATES = (("cheap", "full"), ("skip", "full"))
"""(base, upgrade) at an FFN site."""
EXPERT = re.compile(r"expert\w*")
SEE_PAGE = "See docs/routing-paths.md."


def refusal(site: Any, names: Any, base: Any, segment: Any, always: Any = ()) -> str:
    """Return why paths are refused, in one line; empty if the table has them.

    Args:
        site: a `Site`.
        names: names of the paths, in order.
        base: path of a token that is not upgraded, or None.
        segment: tokens that share a merged expert, or None.
        always: paths that every token takes.
    """
    # `Site` is a string too, so a plain "ffn" would pass the first test.
    if site not in SITES or type(site) is str:
        return f"site is {site!r}; allowed are Site.FFN and Site.BLOCK. {SEE_PAGE}"
    named = isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)
    if not named or len(set(names)) < len(names):
        return f"names is {names!r}; allowed is a tuple of different strings. {SEE_PAGE}"
    if segment is not None and (not isinstance(segment, int) or segment < 1):
        return f"segment is {segment!r}; allowed is a whole number from 1, or None. {SEE_PAGE}"
    wrong = (_block_fault if site == "block" else _ffn_fault)(names, base, segment)
    return wrong or _always_fault(names, base, segment, always)


def _always_fault(names: tuple[str, ...], base: Any, segment: Any, always: Any) -> str:
    known = (
        isinstance(always, tuple) and set(always) <= set(names) and len(set(always)) == len(always)
    )
    if not known or (always and (base is not None or segment is not None)):
        return (
            f"always is {always!r} with base={base!r}, segment={segment!r}; allowed are some of "
            f"the names, {names!r}, without a base or a segment. {SEE_PAGE}"
        )
    if always and not any(is_expert(name) and name not in always for name in names):
        return f"always is {always!r}, which leaves no expert to choose. Leave one out. {SEE_PAGE}"
    return ""


def _block_fault(names: tuple[str, ...], base: Any, segment: int | None) -> str:
    if names == BLOCK and base == BLOCK[0] and segment is None:
        return ""
    said = f"names={names!r}, base={base!r}, segment={segment!r}"
    return f"a block site has {said}; allowed is BLOCK_GATE alone. Use it. {SEE_PAGE}"


def _ffn_fault(names: tuple[str, ...], base: Any, segment: int | None) -> str:
    known = ", ".join(BESIDE)
    if strange := [name for name in names if name not in BESIDE and not is_expert(name)]:
        return (
            f"names has {strange[0]!r}; allowed at an FFN site are {known} and names that begin "
            f"with 'expert'. Rename it. {SEE_PAGE}"
        )
    # A base makes it a gate: two paths, and the budget fixes the capacity.
    if base is not None:
        if names in GATES and base == names[0] and segment is None:
            return ""
        return (
            f"names={names!r} with base={base!r}, segment={segment!r}; allowed with a base are "
            "('cheap', 'full') and ('skip', 'full'), the first being the base, without a segment. "
            f"Experts have no base: leave it out. {SEE_PAGE}"
        )
    # Without a base the width of an expert is the only free size.
    if not any(map(is_expert, names)):
        return (
            f"names={names!r} without a base; the budget then fixes the width of experts, so one "
            f"name at least begins with 'expert'. Add base={names[0]!r}, or experts. {SEE_PAGE}"
        )
    if segment is not None and not all(map(is_expert, names)):
        return (
            f"names={names!r} with segment={segment}; only experts can be merged, as parameters of "
            f"other paths differ in shape. Use experts(count, segment). {SEE_PAGE}"
        )
    return ""


def is_expert(name: str) -> bool:
    """Return whether a path is an expert of the bank; `mean_experts` counts these."""
    return EXPERT.fullmatch(name) is not None


class Site(StrEnum):
    """Place of the choice in a layer."""

    FFN = "ffn"
    """Per token among FFN-like paths; attention runs for every token."""
    BLOCK = "block"
    """Attention and FFN together; only the chosen tokens are queries, keys and values."""


@dataclass(frozen=True)
class Paths:
    """The paths of a router; docs/routing-paths.md has the table of all allowed paths.

    Attributes:
        site: place of the choice in a layer.
        names: names of the paths, in the order of the plan's last axis.
        base: path of a token that is not upgraded; the first of two. With a base, the budget fixes
            a `capacity`, the share of tokens on the other path. Without one, it fixes the width of
            an expert.
        segment: tokens that share one merged expert, for experts that are merged and not chosen
            (see `RoutingPlan.merge`). It is a length, so a prefix of a sequence is cut like the
            whole.
        always: paths that every token takes. They are not chosen, so losses, balance and monitors
            leave them out.

    Raises:
        ValueError: the table does not have these paths.
    """

    site: Site
    names: tuple[str, ...]
    base: str | None = None
    segment: int | None = None
    always: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if wrong := refusal(self.site, self.names, self.base, self.segment, self.always):
            raise ValueError(f"Paths: {wrong}")

    @property
    def experts(self) -> tuple[str, ...]:
        """Return the names of the experts, which `mean_experts` counts."""
        return tuple(name for name in self.names if is_expert(name))

    @property
    def chosen(self) -> list[int]:
        """Return the indices of the paths that a token may take or not."""
        return [index for index, name in enumerate(self.names) if name not in self.always]

    @property
    def chosen_experts(self) -> list[int]:
        """Return the indices of the experts among these."""
        return [index for index in self.chosen if is_expert(self.names[index])]


FFN_GATE = Paths(Site.FFN, ("cheap", "full"), base="cheap")
BLOCK_GATE = Paths(Site.BLOCK, ("skip", "block"), base="skip")


def experts(count: int, segment: int | None = None, shared: int = 0) -> Paths:
    """Return the paths of `count` experts of equal width, without a base.

    Args:
        count: number of experts that are chosen or merged.
        segment: tokens that share a merged expert, if they are merged.
        shared: further experts that every token takes; they come first.
    """
    always = tuple(f"expert_shared{index}" for index in range(shared))
    names = tuple(f"expert{index}" for index in range(count))
    return Paths(Site.FFN, always + names, segment=segment, always=always)
