"""Find the roles of rows from the declarations of a suite, never from the spelling of a name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.config.row import RowConfig
from bench.errors import UserError, unknown

DENSE_MATCHED = "dense_matched"
"""The router, and the default row, that spends B without routing."""


def check_names(rows: Sequence[RowConfig], lr_scales: Iterable[float]) -> None:
    """Refuse names that match no row, or two rows.

    Args:
        rows: rows of the suite.
        lr_scales: factors of the sensitivity rows.

    Raises:
        UserError: an unknown control, an ambiguous twin, or a name that a sensitivity row also
            has.
    """
    names = [row.name for row in rows]
    for row in rows:
        if row.control and row.control not in names:
            advice = f"`control` of row {row.name!r} names a row of the suite."
            raise unknown("control", row.control, names, advice)
        if row.role == "twin":
            twin_original(row, rows)
        elif row.twin_of:
            raise UserError(
                f"Row {row.name!r} has twin_of {row.twin_of!r} and the role {row.role!r}. "
                "Give it `role: twin`, or drop `twin_of`."
            )
    # Each factor makes a row of its own, whose name must be free.
    made = {sensitivity_name(row.name, scale) for row in rows for scale in (1.0, *lr_scales)}
    if lr_scales and (taken := sorted(made & set(names))):
        raise UserError(
            f"Row {taken[0]!r} has the name of a row that `sensitivity.lr_scales` makes. Rename it."
        )


def twin_original(twin: RowConfig, rows: Sequence[RowConfig]) -> str:
    """Return the name of the row that an A/A twin repeats.

    Args:
        twin: the twin.
        rows: the rows of the suite.

    Raises:
        UserError: `twin_of` names no row, or it is empty and not exactly one row matches.
    """
    # A twin of a twin would repeat the same row.
    others = [row for row in rows if row.role != "twin"]
    if twin.twin_of:
        if twin.twin_of not in {row.name for row in others}:
            advice = f"`twin_of` of row {twin.name!r} names a row of the suite that is no twin."
            raise unknown("row", twin.twin_of, [row.name for row in others], advice)
        return twin.twin_of
    alike = [
        row
        for row in others
        if (row.router, row.options) == (twin.router, twin.options)
        and not _router_seeds(row) & _router_seeds(twin)
    ]
    # Several rows may have this router and its options: prefer those trained in the same way.
    same = [r for r in alike if (r.training, r.lr_scale) == (twin.training, twin.lr_scale)]
    found = [row.name for row in same or alike]
    if len(found) != 1:
        raise UserError(
            f"Row {twin.name!r} is a twin of {' or '.join(found) or 'no row'}: it repeats one row "
            "of the same router and options with other router seeds. Set `twin_of` to its name."
        )
    return found[0]


def _router_seeds(row: RowConfig) -> set[int]:
    return {replica.router_seed for replica in row.replicas()}


def check_matched(matched: str, rows: Sequence[RowConfig]) -> None:
    """Check that the declared row without routing exists.

    The default name may be missing.

    Raises:
        UserError: no row has the declared name.
    """
    names = [row.name for row in rows]
    if matched not in (*names, DENSE_MATCHED):
        advice = "`comparison.dense_matched` names a row of the suite."
        raise unknown("row", matched, names, advice)


def matched_row(matched: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the name of the row that spends B without routing.

    Args:
        matched: the declared name.
        rows: row name -> fields, as records hold them.
    """
    if matched in rows or matched != DENSE_MATCHED:
        return matched
    # No row has the default name: the only control of that router replaces it.
    found = [
        name
        for name, row in rows.items()
        if row.get("role") == "control" and row.get("router") == DENSE_MATCHED
    ]
    return found[0] if len(found) == 1 else matched


def sensitivity_name(row: str, scale: float) -> str:
    """Return the name of a row whose learning rates are scaled by a factor."""
    return f"{row}@lr{scale:g}"
