"""Refuse paths that the table in docs/allowed-paths.md does not have."""

import re
from typing import Any

SITES = ("ffn", "block")
BESIDE = ("skip", "cheap", "full")
"""Paths of an FFN site that are no experts, by rising cost."""
BLOCK = ("skip", "block")
GATES = (("cheap", "full"), ("skip", "full"))
"""(base, upgrade) at an FFN site."""
EXPERT = re.compile(r"expert\w*")
PAGE = "See docs/allowed-paths.md."


def fault(site: Any, names: Any, base: Any, segment: Any) -> str:
    """Return why paths are refused, in one line; empty if the table has them.

    Args:
        site: a `Site`.
        names: of the paths, in order.
        base: the path of a token that is not upgraded, or None.
        segment: tokens that share a merged expert, or None.
    """
    # `Site` is a string too, so a plain "ffn" would pass the first test.
    if site not in SITES or type(site) is str:
        return f"site is {site!r}; allowed are Site.FFN and Site.BLOCK. {PAGE}"
    named = isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)
    if not named or len(set(names)) < len(names):
        return f"names is {names!r}; allowed is a tuple of different strings. {PAGE}"
    if segment is not None and (not isinstance(segment, int) or segment < 1):
        return f"segment is {segment!r}; allowed is a whole number from 1, or None. {PAGE}"
    if site == "block":
        return _block_fault(names, base, segment)
    return _ffn_fault(names, base, segment)


def _block_fault(names: tuple[str, ...], base: Any, segment: int | None) -> str:
    if names == BLOCK and base == BLOCK[0] and segment is None:
        return ""
    said = f"names={names!r}, base={base!r}, segment={segment!r}"
    return f"a block site has {said}; allowed is BLOCK_GATE alone. Use it. {PAGE}"


def _ffn_fault(names: tuple[str, ...], base: Any, segment: int | None) -> str:
    known = ", ".join(BESIDE)
    if strange := [name for name in names if name not in BESIDE and not is_expert(name)]:
        return (
            f"names has {strange[0]!r}; allowed at an FFN site are {known} and names that begin "
            f"with 'expert'. Rename it. {PAGE}"
        )
    if base is not None:
        if names in GATES and base == names[0] and segment is None:
            return ""
        return (
            f"names={names!r} with base={base!r}, segment={segment!r}; allowed with a base are "
            "('cheap', 'full') and ('skip', 'full'), the first being the base, without a segment. "
            f"Experts have no base: leave it out. {PAGE}"
        )
    if not any(map(is_expert, names)):
        return (
            f"names={names!r} without a base; the budget then fixes the width of experts, so one "
            f"name at least begins with 'expert'. Add base={names[0]!r}, or experts. {PAGE}"
        )
    if segment is not None and not all(map(is_expert, names)):
        return (
            f"names={names!r} with segment={segment}; only experts can be merged, as parameters of "
            f"other paths differ in shape. Use experts(count, segment). {PAGE}"
        )
    return ""


def is_expert(name: str) -> bool:
    """Return whether a path is an expert of the bank; `mean_experts` counts these."""
    return EXPERT.fullmatch(name) is not None
