"""Figures of a study: one of each kind for every setting, and lines along the study's axis."""

import xml.etree.ElementTree as ET
from pathlib import Path
from statistics import fmean

import pytest

from bench.commands.write_leaderboard import page_files
from bench.record import read_records
from tests.study import made


def test_figures_are_drawn_for_every_setting_and_named_on_the_page(tmp_path: Path) -> None:
    text, files = page_files(made.study(), made.fill(tmp_path, made.study()))
    assert set(files) == {
        f"small-{setting}-{kind}.svg"
        for setting in ("half", "quarter")
        for kind in ("losses", "curves")
    }
    for name, figure in files.items():
        svg = figure.standalone()
        assert f"({name})" in text
        assert ET.fromstring(svg).tag.endswith("svg")
        assert "random@ffn" in svg


def test_rows_on_a_line_are_drawn_along_the_axis_and_the_sources_figures_stand_beside_ours(
    tmp_path: Path,
) -> None:
    rows = [
        {"name": "mlp_gate", "series": "gate", "at": 0.01, "figures": {"loss": "2.01"}},
        {"name": "mlp_gate@wide", "series": "gate", "at": 1, "options": {"width_ratio": 0.5}},
        {"name": "random@ffn", "role": "control", "options": {"over": "ffn"}},
    ]
    declared = made.study(rows=rows, axis="share of labels", curves=["loss"])
    folder = made.fill(tmp_path, declared)
    text, files = page_files(declared, folder)
    line = files["small-half-loss-along.svg"]
    drawn = line.standalone()
    assert "(small-half-loss-along.svg)" in text and "(source: 2.01)" in text
    losses = [
        r.loss or 0.0
        for _, r in read_records(folder / "small" / "half")
        if r.cell.row == "mlp_gate"
    ]
    assert ">0.01<" in drawn and ">1<" in drawn
    means = line.data.groupby(["row", "at"])["value"].mean()
    assert means["gate", 0.01] == pytest.approx(fmean(losses)) and len(means) == 2
    assert "small-half-loss-along.svg" not in page_files(made.study(), folder)[1]
    with pytest.raises(ValueError, match="without the other"):
        made.study(rows=[{"name": "mlp_gate", "at": 1}, *rows[1:]])


def test_settings_of_one_series_are_joined_to_a_line_and_have_no_figures_of_their_own(
    tmp_path: Path,
) -> None:
    settings = {name: one | {"series": "1e12"} for name, one in made.DATA["settings"].items()}
    declared = made.study(settings=settings, across=["forward_flops"])
    folder = made.fill(tmp_path, declared)
    text, files = page_files(declared, folder)
    assert set(files) == {"small.loss-forward_flops.svg"}
    assert "(small.loss-forward_flops.svg)" in text
    data = files["small.loss-forward_flops.svg"].data
    assert set(data["row"]) == {f"1e12: {row}" for row in made.TRUE}
    for setting in settings:
        for _, record in read_records(folder / "small" / setting):
            assert record.flops is not None
            mine = data[(data["row"] == f"1e12: {record.cell.row}") & (data["loss"] == record.loss)]
            # Both settings have the same losses here.
            assert record.flops.active in mine["x"].tolist()
    ET.fromstring(files["small.loss-forward_flops.svg"].standalone())
