"""Decide which records may stand on one board: they were made under the same conditions."""

import math
from collections import Counter
from collections.abc import Sequence

from bench.record import Record


def main_processor(records: Sequence[Record]) -> str:
    """Return the processor of most records; in a tie the name that sorts first."""
    votes = Counter(record.provenance.processor for record in records)
    return min(votes, key=lambda name: (-votes[name], name)) if votes else ""


def processors(records: Sequence[Record]) -> str:
    """Name the processors of some records, and the one whose times count if there are several."""
    names = sorted({record.provenance.processor for record in records})
    alone = f" (times: {main_processor(records)} alone)" * (len(names) > 1)
    return " and ".join(names) + alone


def with_one_clock(records: Sequence[Record]) -> list[Record]:
    """Take the times away from records that were not made on the processor of most records.

    Losses of one cell on two processors differ by rounding that training amplifies, which is noise
    like that of a seed. Times on two processors do not compare.
    """
    clock = main_processor(records)
    return [r if r.provenance.processor == clock else _without_times(r) for r in records]


def _without_times(record: Record) -> Record:
    unknown = {"seconds": math.nan, "tokens_per_second": math.nan}
    # NaN, not None: the fields are required, and means skip what is not finite.
    training = record.training and record.training.model_copy(update=unknown)
    curve = tuple(point.model_copy(update={"seconds": math.nan}) for point in record.curve)
    return record.model_copy(update={"training": training, "speed": None, "curve": curve})


def _conditions(record: Record) -> dict[str, object]:
    """Return the conditions that two records must share to be ranked together."""
    made = record.provenance
    # In float32 the processor is not among them: see `with_one_clock`. In bfloat16 some processors
    # sum in other units, and nobody has measured by how much their losses differ. Clouds give
    # several processors one name, so the instructions count too.
    in_bfloat16 = made.device == "cpu" and made.dtype == "bfloat16"
    unit = {"processor": f"{made.processor} {made.instructions}".strip()} if in_bfloat16 else {}
    return {
        **unit,
        "rules version": made.rules_version,
        _data_name(record): made.data_hash,
        f"configuration at equal {record.cell.match}": made.config_hash,
        "device": made.device,
        "threads": made.threads,
        "dtype": made.dtype,
        "torch": made.versions.get("torch", ""),
    }


def _data_name(record: Record) -> str:
    """Return the name of the condition on the data.

    All seeds see one text, but a planted task without its own seed differs between seeds.
    """
    planted = record.provenance.config.get("data", {}).get("planted")
    return f"data of seed {record.cell.seed}" if planted and planted.get("seed") is None else "data"


def separate(records: Sequence[Record]) -> tuple[list[Record], list[tuple[Record, str]]]:
    """Split records into a set made under the same conditions, and the others with a reason.

    Conditions are decided one after the other, by majority. In a tie the value that sorts first
    wins. Records of several processors stay together, but times are those of one alone.
    """
    together, apart = list(records), list[tuple[Record, str]]()
    for name in sorted({name for record in records for name in _conditions(record)}):
        votes = Counter(
            str(_conditions(record)[name]) for record in together if name in _conditions(record)
        )
        if len(votes) < 2:
            continue
        most = min(votes, key=lambda value: (-votes[value], value))
        differs = [
            r for r in together if name in _conditions(r) and str(_conditions(r)[name]) != most
        ]
        apart += [
            (record, f"{name} {_conditions(record)[name]}, the board has {most}")
            for record in differs
        ]
        # Equal records may occur twice, so compare them by identity.
        gone = {id(record) for record in differs}
        together = [record for record in together if id(record) not in gone]
    return with_one_clock(together), sorted(
        apart, key=lambda pair: (pair[0].cell.row, pair[0].cell.match, pair[0].cell.seed)
    )
