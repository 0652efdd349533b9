"""Tidy frames against loops over the same records."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bench
from bench.board.frames import resampled, tidy
from bench.errors import UserError
from bench.record import CurvePoint
from tests.board.synthetic import DOMAINS, QUICK, Kind, record, records, row_of, write


def point(flops: float, loss: float) -> CurvePoint:
    return CurvePoint(
        step=0, tokens=int(flops), flops=flops, seconds=flops, train_loss=loss, loss=loss
    )


def test_records_load_as_one_row_each(tmp_path: Path) -> None:
    made = records()
    write(tmp_path, made)
    frame = bench.load_records(tmp_path)
    assert len(frame) == len(made)
    for one in made[::7]:
        (found,) = frame[(frame["row"] == one.cell.row) & (frame["seed"] == one.cell.seed)].to_dict(
            "records"
        )
        assert one.loss is not None and one.training is not None and one.flops is not None
        assert found["loss"] == pytest.approx(one.loss / math.log(2))
        assert found["parameters_total"] == one.training.parameters_total
        assert found["training_flops"] == one.flops.training_total


@pytest.mark.parametrize(
    ("table", "length"),
    [("curves", 25), ("domains", len(DOMAINS)), ("spend", 5), ("loads", 3 * 4), ("monitors", 3)],
)
def test_every_table_has_a_row_an_observation(table, length: int) -> None:
    frame = tidy([record(QUICK[4], seed) for seed in (0, 1)], table)
    assert frame.groupby("seed").size().tolist() == [length, length]
    assert {"suite", "row", "family", "role", "budget"} <= set(frame.columns)


def test_an_unknown_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="table of records 'runz'"):
        bench.load_records(tmp_path, "runz")  # type: ignore[arg-type]


def test_seeds_meet_on_the_range_that_all_cover() -> None:
    rising = [
        record(Kind("x", 2), seed, curve=tuple(point(flops, seed + flops / 10) for flops in ends))
        for seed, ends in ((0, (0, 10)), (2, (5, 20)))
    ]
    curves = resampled(tidy(rising, "curves"), "flops", points=6)
    wide = curves.pivot(index="x", columns="seed", values="loss") * math.log(2)
    assert wide.index.tolist() == pytest.approx([5, 6, 7, 8, 9, 10])
    x = np.array(wide.index)
    assert wide[0].tolist() == pytest.approx(x / 10)
    assert wide[2].tolist() == pytest.approx(2 + x / 10)


def test_the_curve_of_a_seed_is_the_mean_over_its_router_seeds() -> None:
    kind = Kind("x", 2)
    cells = [(0, 0, 1.0), (0, 2, 3.0), (1, 0, 5.0), (1, 2, 6.0)]
    made = [
        record(
            kind,
            seed,
            row=row_of(kind, router_seed=own),
            curve=tuple(point(flops, level + flops) for flops in (0, 10)),
        )
        for seed, own, level in cells
    ]
    frame = tidy(made, "curves")
    assert frame.groupby(["seed", "router_seed"]).size().tolist() == [2, 2, 2, 2]
    curves = resampled(frame, "flops")
    assert curves["seed"].tolist() == [0, 0, 1, 1]
    wanted = [2.0, 12.0, 5.5, 15.5]
    assert (curves["loss"] * math.log(2)).tolist() == pytest.approx(wanted)


def test_a_row_without_curves_has_no_line() -> None:
    assert resampled(tidy([record(QUICK[0], 0, curve=())], "curves"), "flops").empty
    one = (point(1, 2.0), point(2, math.nan))
    assert resampled(tidy([record(QUICK[0], 0, curve=one)], "curves"), "flops").empty


def test_importing_bench_loads_no_pandas() -> None:
    code = "import sys, bench, bench.cli, bench.board\n"
    code += "print({'pandas', 'matplotlib'} & {*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
