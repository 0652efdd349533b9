"""Files of `bench speed`: written, read, named and refused."""

from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.record.speed import (
    RowSpeed,
    SpeedRun,
    Work,
    Yardstick,
    read_speeds,
    require_rows_kept,
    write_speed,
)


def speed_run(**changes: Any) -> SpeedRun:
    """Return a run with two rows; a step of `slow` takes three times as long as a dense one."""
    one, slow = (
        Work(milliseconds=10.0 * factor, relative=factor, active=0.5, executed=0.75, optimizer=0.1)
        for factor in (1.0, 3.0)
    )
    rows = (
        RowSpeed(row="dense", works={"step": one}, parts={"paths": 0.75, "other": 0.25}),
        RowSpeed(row="slow", works={"step": slow}, parts={"paths": 0.25, "other": 0.75}),
    )
    fields: dict[str, Any] = {
        **{"suite": "quick", "backbone": "tiny", "batch_size": 16, "seq_len": 128},
        **{"dtype": "float32", "device": "cpu", "compiled": False, "processor": "a processor"},
        **{"threads": 1, "versions": {"torch": "2.13"}, "command": "python -m bench speed"},
        **{"commit": "0" * 40, "dirty": False, "started": "2026-11-30T00:00:00+00:00"},
        **{"clock": "processor time of this process", "rounds": 5, "reference": "dense"},
        "rows": rows,
        "yardsticks": (Yardstick(name="matrix products, float32", value=100.0, unit="GFLOP/s"),),
    }
    return SpeedRun(**(fields | changes))


def test_a_run_is_read_as_it_was_written_and_replaces_the_one_before(tmp_path: Path):
    write_speed(speed_run(rounds=4), tmp_path)
    path = write_speed(speed_run(), tmp_path)
    assert path == tmp_path / "speed" / "quick-tiny-b16-cpu-float32.json"
    assert read_speeds(tmp_path) == [speed_run()]


def test_other_conditions_have_other_names():
    changes: list[dict[str, Any]] = [
        *({"suite": "paper"}, {"backbone": "wide"}, {"batch_size": 64}),
        *({"dtype": "bfloat16"}, {"device": "cuda:a GPU"}, {"compiled": True}, {}),
    ]
    names = {speed_run(**change).name for change in changes}
    assert len(names) == len(changes) and not any(":" in name or " " in name for name in names)


def test_a_run_of_fewer_rows_is_refused_where_rows_are_to_stay(tmp_path: Path):
    name = speed_run().name
    require_rows_kept(name, ["dense"], tmp_path)
    write_speed(speed_run(), tmp_path)
    require_rows_kept(name, ["slow", "dense", "new"], tmp_path)
    require_rows_kept("quick-tiny-b16-cpu-bfloat16", ["dense"], tmp_path)
    with pytest.raises(UserError, match=r"float32.json has rows .* remove: slow. Add them"):
        require_rows_kept(name, ["dense"], tmp_path)


def test_a_damaged_file_is_told_in_one_line(tmp_path: Path):
    path = write_speed(speed_run(), tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"rounds"', '"turns"'), "utf-8")
    with pytest.raises(UserError, match=r"quick-tiny-b16-cpu-float32.json is no file of") as found:
        read_speeds(tmp_path)
    assert "Delete it and run the command again" in str(found.value)
