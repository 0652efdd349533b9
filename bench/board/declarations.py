"""Find the comparisons that a board's records were declared for, and how declarations differ."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.board.model import comparison
from bench.board.text import listing
from bench.config.looks import possible, without_impossible
from bench.record import Record


@dataclass(frozen=True)
class Declaration:
    """The comparisons that a board is judged by.

    Attributes:
        config: configuration of a suite, with the declaration that holds.
        schedules: the looks of each declaration; none if no declared looks can be held.
        notes: remarks for the reader.
    """

    config: dict[str, Any]
    schedules: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]


def declaration_of(records: Sequence[Record]) -> Declaration:
    """Return the declaration that holds for the records of a board.

    Comparisons are no condition of a run, so records that differ in them stay together, and the
    declaration of most records holds.
    """
    # A declaration with impossible looks has no vote beside others. Alone, it is read without its
    # looks, so that a slip does not spoil good records.
    sound = [
        possible(comparison(record.provenance.config).get("looks") or ()) for record in records
    ]
    declared = [
        json.dumps(comparison(record.provenance.config), sort_keys=True) for record in records
    ]
    votes = Counter(text for text, holds in zip(declared, sound, strict=True) if holds) or Counter(
        declared
    )
    most = min(votes, key=lambda text: (-votes[text], text))
    notes = _other_declarations([json.loads(text) for text in declared], json.loads(most))
    schedules = sorted({tuple(json.loads(text).get("looks") or ()) for text in votes})
    config = records[declared.index(most)].provenance.config
    if not any(sound):
        looks = ", ".join(map(str, comparison(config)["looks"]))
        notes.append(
            f"Looks were declared at seeds {looks}, which cannot be held; there is a single look, "
            "at all seeds."
        )
        return Declaration(without_impossible(config), (), tuple(notes))
    return Declaration(config, tuple(schedules), tuple(notes))


def _other_declarations(
    declared: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]
) -> list[str]:
    """Say how many records were made under the declaration that holds, and how others differ."""
    others = [one for one in declared if one != chosen]
    differences: dict[str, None] = {}
    for one in others:
        # A remark is history, no rule.
        for name in sorted((one.keys() | chosen.keys()) - {"remark"}):
            if one.get(name) != chosen.get(name):
                said = f"{name} {_setting(one.get(name))} instead of {_setting(chosen.get(name))}"
                differences[said] = None
    which = f" ({listing(list(differences))})" if differences else ""
    said = (
        f"{len(others)} of {len(declared)} ranked records were made under another declaration"
        f"{which}. The declaration of the other records holds here."
    )
    every = f"All {len(declared)} ranked records were made under this declaration."
    return [said if others else every]


def _setting(value: object) -> str:
    """Write a declared value; a list in words."""
    return listing([str(one) for one in value]) if isinstance(value, list) else str(value)
