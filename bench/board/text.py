"""Write numbers and foreign strings for the board.

A plugin chooses its own name, family, paper and error text, so none of them is trusted. `plain`
removes characters that disturb any output. `escape` and `code` disarm Markdown. A template escapes
its own HTML.
"""

import math
import re
import unicodedata
from collections.abc import Sequence

BITS = 1 / math.log(2)
"""Bits in a nat: records hold nats a byte, the board shows bits a byte."""

MISSING = "–"

_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_MARKUP = str.maketrans({symbol: f"&#{ord(symbol)};" for symbol in "&<>|`[]*\\~$#!"})


def plain(text: str, limit: int = 80) -> str:
    """Return one line of at most `limit` characters.

    It has no control, bidirectional or surrogate characters.
    """
    printable = "".join(
        " " if unicodedata.category(char) in _UNPRINTABLE else char for char in text
    )
    line = " ".join(printable.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def whole(text: str) -> str:
    """Return `text` as Unicode that can be encoded: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode()


def escape(text: str, limit: int = 300) -> str:
    """Return `text` as literal Markdown prose.

    It is safe in a table cell, and GitHub makes no links, maths or emoji of it.
    """
    line = plain(text, limit).translate(_MARKUP)
    # An underscore inside a word is no emphasis, so names stay readable.
    line = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", "&#95;", line)
    # Links by scheme, `:emoji:`, and links by host.
    line = re.sub(r":(?=//|[\w+-]+:)", "&#58;", line)
    line = re.sub(r"(?i)\bwww\.", "www&#46;", line)
    return (
        # At the start of a line these would open a list or underline a heading.
        re.sub(r"^([-+=]|\d+[.)])", lambda match: f"{match[0][:-1]}&#{ord(match[0][-1])};", line)
        or MISSING
    )


def prose(text: str, limit: int = 300) -> str:
    """Return `text` as `escape` does, but names in backticks as code spans."""
    return re.sub(r"&#96;([A-Za-z0-9@.+=_-]+)&#96;", r"`\1`", escape(text, limit))


def code(text: str, limit: int = 80) -> str:
    """Write a name as a code span, or as escaped prose if it could break out of the span."""
    line = plain(text, limit)
    return escape(line) if set("|`\\") & set(line) or not line else f"`{line}`"


def number(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """Write a number in fixed point, with a true minus sign; a dash if it is not finite."""
    if value is None or not math.isfinite(value):
        return MISSING
    shown = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    # A rounded zero has no sign.
    zero = not any(digit in "123456789" for digit in shown)
    return shown.lstrip("+-") if zero else shown.replace("-", "−")


def interval(
    low: float | None,
    high: float | None,
    digits: int = 3,
    signed: bool = False,
    closed: tuple[bool, bool] = (True, True),
) -> str:
    """Write `[low, high]`, or nothing if an end is unknown.

    An end that is not `closed` does not belong to the interval, and has a round bracket.
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    first, last = "[" if closed[0] else "(", "]" if closed[1] else ")"
    return f"{first}{number(low, digits, signed)}, {number(high, digits, signed)}{last}"


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share of one as a percentage."""
    return (
        MISSING if share is None or not math.isfinite(share) else f"{number(100 * share, digits)} %"
    )


def quantity(value: float | None, digits: int = 3) -> str:
    """Write three significant digits and an SI suffix: 1.23G."""
    if value is None or not math.isfinite(value):
        return MISSING
    for power, suffix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        # 999.5 rounds to 1.00k, not to 1e+03.
        if abs(value) >= 0.9995 * 10**power:
            return f"{value / 10**power:#.{digits}g}".rstrip(".") + suffix
    return f"{value:.{digits}g}"


def probability(p: float | None) -> str:
    """Write a p-value to three decimals; `< 0.001` below that."""
    if p is None or not math.isfinite(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def listing(names: Sequence[str], limit: int = 6) -> str:
    """Write `a, b and c`; count the names beyond `limit`."""
    if len(names) > limit:
        return f"{', '.join(names[:limit])} and {len(names) - limit} more"
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def seeds(values: Sequence[int]) -> str:
    """Write seeds as runs: `0-2, 5`."""
    runs: list[list[int]] = []
    for seed in sorted(set(values)):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return (
        ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) or MISSING
    )


def table(rows: Sequence[Sequence[str]], header: Sequence[str], align: str) -> str:
    """Write a GitHub table; `align` has one of `l` and `r` a column. Empty without rows."""
    import tabulate

    if not rows:
        return ""
    # Widths count code points: the bytes must not depend on an installed table of wide letters.
    tabulate.WIDE_CHARS_MODE = False
    sides = ["right" if side == "r" else "left" for side in align]
    return tabulate.tabulate(
        rows, header, "pipe", disable_numparse=True, colalign=sides, missingval=MISSING
    )


def anchor(title: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
