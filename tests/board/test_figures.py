"""Figures: marks against the numbers that they stand for, bytes, digests, colours."""

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.board import write_figures
from bench.board.build import boards_of
from bench.board.charts import domains, forest, loads, rank_intervals, settling
from bench.board.drawing import NUM_SERIES, PALETTE, Figure, digest_of
from bench.board.figures import (
    NUM_FOCUS,
    figures,
    looks,
    loss_curves,
    pareto,
    sensitivity,
    series,
    spend_sweep,
)
from tests.board.synthetic import QUICK, Kind, many, record, records, swept
from tests.board.test_markdown import NASTY

BOARD = boards_of(records())[0]


def titled(figure: Figure) -> dict[str, ET.Element]:
    """Hover title -> the group of its mark, the last one of a title."""
    groups = figure.element.iter("g")
    return {title: group for group in groups if (title := group.findtext("title")) is not None}


def centre(group: ET.Element) -> float:
    """Where along x a marker lies."""
    use = next(group.iter("use"))
    return float(use.attrib["x"])


def test_forest_places_means_by_one_linear_scale_and_shows_the_declared_numbers() -> None:
    (figure,) = forest(BOARD)
    control = BOARD.matched_control
    marks = {
        title.split(" to ")[0]: group
        for title, group in titled(figure).items()
        if f" to {control}: " in title
    }
    rows = [row for row in BOARD.ranked if row.role == "ranked"]
    assert set(marks) == {row.name for row in rows}
    outcomes = [BOARD.outcome(row, control) for row in rows]
    means = np.array([one.difference for one in outcomes if one]) / math.log(2)
    pixels = np.array([centre(marks[row.name]) for row in rows])
    fit = np.polynomial.Polynomial.fit(means, pixels, 1)
    assert fit(means) == pytest.approx(pixels, abs=0.2)
    shown = figure.data[figure.data["control"] == control].set_index("row")
    for row, outcome in zip(rows, outcomes, strict=True):
        assert outcome is not None
        assert shown.loc[row.name, ["difference", "low", "high"]].tolist() == pytest.approx(
            [outcome.difference / math.log(2), *(end / math.log(2) for end in outcome.interval)]
        )


def test_an_interval_is_wider_than_its_dot() -> None:
    (figure,) = forest(BOARD)
    bars = [
        path.attrib["d"]
        for group in figure.element.iter("g")
        if group.find("title") is not None
        for path in group.findall("path")
    ]
    ends = [[float(x) for x in re.findall(r"[ML](-?[\d.]+)", bar)] for bar in bars]
    assert len(ends) == len(figure.data)
    assert all(right - left > 8 for left, right in ends)


def test_ranks_and_tiers_are_those_of_the_judgement() -> None:
    (figure,) = rank_intervals(BOARD)
    ranks = BOARD.judgement.ranks
    for one in figure.data.to_dict("records"):
        rank = ranks[one["row"]]
        assert (one["low"], one["high"], one["tier"]) == (rank.low, rank.high, rank.tier)
    assert list(figure.data["order"]) == list(range(1, len(BOARD.ranked) + 1))


def test_heat_is_strongest_for_the_best_row_of_each_domain() -> None:
    (figure,) = domains(BOARD)
    wide = figure.table.set_index("row")
    cells: dict[tuple[float, float], float] = {}
    for path in figure.element.iter("path"):
        if "var(--heat)" in path.get("style", ""):
            x, y = re.findall(r"-?[\d.]+", path.attrib["d"])[:2]
            opacity = re.findall(r"fill-opacity:([\d.]+)", path.attrib["style"])
            cells[float(x), float(y)] = float(opacity[0])
    columns = sorted({x for x, _ in cells})
    assert len(columns) == len(wide.columns)
    top = min(y for _, y in cells)
    height = min(y for _, y in cells if y > top) - top
    for column, name in zip(columns, wide.columns, strict=True):
        shades = {y: shade for (x, y), shade in cells.items() if x == column}
        best = next(y for y in shades if round((y - top) / height) == wide[name].argmin())
        assert shades[best] == max(shades.values()) > min(shades.values())
    loss = np.mean([one.domain_loss["code"] for one in records() if one.cell.row == "hash"])
    assert wide.loc["hash", "code"] == pytest.approx(loss / math.log(2))


def test_few_rows_are_coloured_and_every_line_has_a_hover_title() -> None:
    board = boards_of(records(many(30)))[0]
    figure = loss_curves(board)[0]
    assert set(titled(figure)) == {row.name for row in (*board.ranked, *board.brackets)}
    focus = [name for name, look in looks(board).items() if not look.faint]
    routers = [row.name for row in board.ranked if row.role == "ranked"]
    assert [name for name in routers if name in focus] == routers[:NUM_FOCUS]


def test_rows_differ_without_colour() -> None:
    shown = [look.marker for look in looks(BOARD).values() if not look.faint]
    assert len(shown) == len(set(shown)) >= 8
    lines = [(look.dashes, look.marker) for look in map(series, range(NUM_SERIES))]
    assert len(set(lines)) == NUM_SERIES


def test_the_legend_lies_beside_the_lines() -> None:
    for figure in (*loss_curves(BOARD), *spend_sweep(BOARD), *pareto(BOARD)):
        clip = next(figure.element.iter("clipPath")).find("rect")
        assert clip is not None
        right = float(clip.attrib["x"]) + float(clip.attrib["width"])
        names = {row.name for row in BOARD.ranked}
        texts = [one for one in figure.element.iter("text") if one.text in names]
        assert len(texts) > 2
        assert all(float(one.attrib["x"]) > right for one in texts)


def test_a_curve_is_the_mean_over_seeds_at_its_end() -> None:
    figure = loss_curves(BOARD)[0]
    ends = [one.curve[-1].loss for one in records() if one.cell.row == "hash"]
    shown = figure.table.set_index("row")
    assert shown.loc["hash", "loss"] == pytest.approx(np.mean(ends) / math.log(2))


def test_the_front_joins_no_rows_of_equal_cost() -> None:
    for figure in pareto(BOARD):
        best = figure.data[figure.data["front"]].sort_values("cost")
        assert (best["cost"].to_numpy()[1:] > 1.0099 * best["cost"].to_numpy()[:-1]).all()
        assert (np.diff(best["loss"]) < 0).all()
        for one in figure.data.to_dict("records"):
            beaten = (best["cost"] <= one["cost"] * 1.011) & (best["loss"] <= one["loss"])
            assert beaten.any(), one["row"]
    flops = pareto(BOARD)[0].data
    assert flops[flops["cost"].between(0.6, 0.64)]["front"].sum() == 1, "the best at the budget"


def test_sensitivity_is_drawn_where_it_was_measured() -> None:
    assert not sensitivity(BOARD)
    sweep = [swept("hash", factor, loss) for factor, loss in ((0.5, 2.3), (1, 2.1), (2, 2.2))]
    (figure,) = sensitivity(boards_of([*records(), *sweep])[0])
    assert figure.data["factor"].tolist() == [0.5, 1, 2]
    assert figure.data["above"].tolist() == pytest.approx(
        [0.2 / math.log(2), 0, 0.1 / math.log(2)], abs=1e-9
    )


def test_loads_are_means_over_seeds_of_experts_and_of_upgrades() -> None:
    experts, gates = loads(BOARD)
    made = [one for one in records() if one.cell.row == "top2_moe"]
    wanted = np.mean([one.monitors[1].load[2] for one in made])
    cell = experts.data.set_index(["row", "layer", "index"]).loc[("top2_moe", 2, 2), "load"]
    assert cell == pytest.approx(wanted)
    gate = [one.monitors[0].load[1] for one in records() if one.cell.row == "mlp_gate"]
    share = gates.data.set_index(["row", "layer"]).loc[("mlp_gate", 1), "load"]
    assert share == pytest.approx(np.mean(gate))


def test_settling_has_a_line_a_layer_and_the_gradients_of_both() -> None:
    (figure,) = settling(next(row for row in BOARD.ranked if row.name == "mlp_gate"))
    parts = figure.data.groupby(["layer", "part"]).size()
    assert set(parts.index) == {
        (layer, part) for layer in (1, 2, 3) for part in ("choices", "router", "paths")
    }
    paths = figure.data[(figure.data["layer"] == 1) & (figure.data["part"] == "paths")]
    assert paths["value"].iloc[0] == pytest.approx(0.3)
    last = figure.data[figure.data["part"] == "choices"].groupby("layer")["value"].last()
    assert (last == 1).all()


def test_files_are_the_same_bytes_and_load_nothing(tmp_path: Path) -> None:
    made = records()
    first, second = (
        write_figures(boards_of(order), tmp_path / name)
        for name, order in (("a", made), ("b", made[::-1]))
    )
    assert [path.name for path in first] == [path.name for path in second]
    assert len(first) >= 11
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        text = one.read_text()
        assert not re.findall(r"(?:src=|url\((?!#)|@import|href=\"[^#])", text)
        assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}
        assert not re.findall(r"#[0-9a-f]{6}", text.split("</style>")[1]), "a colour has no theme"


def test_figures_that_the_records_no_longer_give_are_removed(tmp_path: Path) -> None:
    for stale in ("stale.svg", "b25/stale.svg", "kept.txt"):
        (tmp_path / stale).parent.mkdir(exist_ok=True)
        (tmp_path / stale).write_text("old", encoding="utf-8")
    made = write_figures(boards_of(records()), tmp_path)
    assert set(tmp_path.rglob("*.*")) == {*made, tmp_path / "kept.txt"}


def test_every_figure_speaks_to_a_screen_reader() -> None:
    for figure in figures(BOARD):
        root = ET.fromstring(figure.standalone())
        space = "{http://www.w3.org/2000/svg}"
        assert root.get("role") == "img" and root.get("aria-label") == figure.title
        assert root.findtext(f"{space}title") == figure.title
        assert len(root.findtext(f"{space}desc") or "") > 60
        assert len(figure.table) and digest_of(figure.standalone()) == figure.digest


def test_the_digest_changes_with_the_data_and_not_with_the_drawing() -> None:
    (figure,) = rank_intervals(BOARD)

    def draw(data: pd.DataFrame):
        raise AssertionError("a digest needs no drawing")

    same = Figure(figure.slug, figure.title, figure.description, figure.data, draw)
    assert same.digest == figure.digest
    moved = figure.data.assign(low=figure.data["low"] + 1)
    other = Figure(figure.slug, figure.title, figure.description, moved, draw)
    assert other.digest != figure.digest


def test_hostile_names_stay_text() -> None:
    made = records(QUICK[:1], [0, 1]) + [
        record(Kind(f"{name}{index}", 2.1, control="dense_matched"), seed)
        for index, name in enumerate(NASTY[:12])
        for seed in (0, 1)
    ]
    for figure in figures(boards_of(made)[0]):
        root = ET.fromstring(figure.standalone())
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        known = "svg title desc style g path use text defs clipPath rect tspan"
        assert tags <= set(known.split())


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("name", [name for name in PALETTE if name not in ("surface", "rule")])
@pytest.mark.parametrize("dark", [0, 1])
def test_colours_reach_the_contrast_for_text(name: str, dark: int) -> None:
    pair = sorted(luminance(PALETTE[key][dark]) for key in (name, "surface"))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5
