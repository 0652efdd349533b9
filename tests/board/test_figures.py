"""Figures: positions against the numbers they stand for, bytes, colours."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.board import write_figures
from bench.board.build import boards_of
from bench.board.charts import domains, forest, rank_intervals
from bench.board.curves import loss_curves, sensitivity, spend_sweep
from bench.board.details import passage, routes
from bench.board.figures import figures
from bench.board.model import Row
from bench.board.svg import PALETTE, Figure, Scale
from tests.board.synthetic import QUICK, Kind, many, record, records


def drawing(figure: Figure) -> ET.Element:
    return ET.fromstring(figure.svg)


def marks(figure: Figure, tag: str = "circle") -> list[tuple[str, ET.Element]]:
    """(title of the group, mark) of every mark in a titled group."""
    groups = [group for group in drawing(figure).iter("g") if group.find("title") is not None]
    return [
        (group.findtext("title") or "", mark) for group in groups for mark in group.findall(tag)
    ]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
def test_ticks_are_round_evenly_spaced_and_inside(low: float, span: float, count: int):
    scale = Scale(low, low + span, 0, 100)
    ticks = scale.ticks(count)
    assert len(ticks) <= count + 1
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in ticks)
    if len(ticks) > 1:
        steps = np.diff(ticks)
        assert steps == pytest.approx(np.full(len(steps), steps[0]), rel=1e-3)
        assert float(f"{steps[0]:.3e}"[0]) in (1, 2, 5) or f"{steps[0]:.3e}".startswith(
            ("9.99", "4.99", "1.99")
        )


def test_forest_places_means_by_one_linear_scale_and_marks_the_undecided():
    board = boards_of(records())[0]
    (figure,) = forest(board)
    found = [
        (title, mark) for title, mark in marks(figure) if f" to {board.matched_control}: " in title
    ]
    assert len(found) == len([row for row in board.ranked if row.role == "ranked"])
    numbers = [float(title.split(": ")[1].split(" ")[0].replace("−", "-")) for title, _ in found]
    pixels = [float(mark.attrib["cx"]) for _, mark in found]
    fit = np.polynomial.Polynomial.fit(numbers, pixels, 1)
    assert fit(np.array(numbers)) == pytest.approx(np.array(pixels), abs=0.6)
    assert all(
        (mark.attrib["class"] == "hollow") == ("inconclusive" in title) for title, mark in found
    )


def test_rank_bars_span_the_ranks():
    board = boards_of(records())[0]
    (figure,) = rank_intervals(board)
    spans = {
        title.split(":")[0]: float(bar.attrib["x2"]) - float(bar.attrib["x1"])
        for title, bar in marks(figure, "line")
        if ": rank " in title
    }
    ranks = board.judgement.ranks
    per_rank = max(
        spans[name] / (ranks[name].high - ranks[name].low)
        for name in spans
        if ranks[name].high > ranks[name].low
    )
    assert spans == pytest.approx(
        {name: per_rank * (ranks[name].high - ranks[name].low) for name in spans}, abs=0.2
    )


def test_heat_is_strongest_for_the_best_row_of_each_domain():
    board = boards_of(records())[0]
    (figure,) = domains(board)
    for domain in figure.header[1:]:
        cells = {
            title.split(",")[0]: float(cell.attrib["fill-opacity"])
            for title, cell in marks(figure, "rect")
            if f", {domain}: " in title
        }
        losses = {line[0]: float(line[1 + figure.header[1:].index(domain)]) for line in figure.data}
        assert cells[min(losses, key=lambda name: losses[name])] == max(cells.values()) == 0.5
        assert min(cells.values()) == 0.0


def test_only_a_few_lines_are_coloured_and_every_line_is_named():
    board = boards_of(records(many(30)))[0]
    for figure in loss_curves(board):
        titles = {title for title, _ in marks(figure, "path")}
        assert titles == {row.name for row in (*board.ranked, *board.brackets)}
        coloured = [
            group
            for group in drawing(figure).iter("g")
            if "faint" not in (group.get("class") or "faint")
        ]
        assert len(coloured) <= 12


def test_names_of_lines_do_not_overlap():
    for figure in (*loss_curves(boards_of(records())[0]), *spend_sweep(boards_of(records())[0])):
        heights = sorted(
            float(text.attrib["y"])
            for text in drawing(figure).iter("text")
            if "tag" in (text.get("class") or "")
        )
        assert np.diff(heights).min() >= 13
        assert heights[0] >= 0 and heights[-1] <= float(drawing(figure).attrib["height"])


def test_sensitivity_is_drawn_where_it_was_measured():
    assert not sensitivity(boards_of(records())[0])
    swept = [
        record(Kind(f"hash@lr{factor}", loss), 90, spread=0)
        for factor, loss in ((0.5, 2.3), (1, 2.1), (2, 2.2), (0, 2.0))
    ]
    (figure,) = sensitivity(boards_of([*records(), *swept])[0])
    assert [line[:2] for line in figure.data] == [("hash", "0.5×"), ("hash", "1×"), ("hash", "2×")]


def test_routes_show_the_share_of_each_path():
    made = tuple(record(QUICK[4], seed) for seed in range(3))
    figure = routes(Row("top2_moe", made))
    assert figure is not None
    mean = sum(one.monitors[0].load[0] for one in made) / 3
    assert figure.data[0][:2] == ("layer 1, expert0", f"{100 * mean:.1f} %")
    assert len(figure.data) == 3 * 4
    assert routes(Row("dense_matched", (record(QUICK[0], 0),))) is None


def test_a_passage_keeps_every_token_and_its_path():
    one = record(QUICK[4], 0)
    assert one.passage is not None
    for layer in passage(Row("x", (one,))):
        assert "".join(run.text for run in layer.runs) == "".join(one.passage.tokens)
        names = [
            one.passage.legend[layer.layer][choice] for choice in one.passage.choices[layer.layer]
        ]
        assert [run.name for run in layer.runs] == [
            name for index, name in enumerate(names) if index == 0 or names[index - 1] != name
        ]


def test_files_are_the_same_bytes_and_load_nothing(tmp_path: Path):
    made = records()
    first, second = (
        write_figures(boards_of(order), tmp_path / name)
        for name, order in (("a", made), ("b", made[::-1]))
    )
    assert [path.name for path in first] == [path.name for path in second]
    assert len(first) >= 8
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        text = one.read_text()
        root = ET.fromstring(text)
        assert (
            root.tag == "{http://www.w3.org/2000/svg}svg"
            and root.get("role") == "img"
            and root.get("aria-label")
        )
        assert "var(" not in text and not re.findall(r"(?:href|src|url\(|@import)", text)
        assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]


def test_figures_that_the_records_no_longer_give_are_removed(tmp_path: Path):
    for stale in ("stale.svg", "b25/stale.svg", "kept.txt"):
        (tmp_path / stale).parent.mkdir(exist_ok=True)
        (tmp_path / stale).write_text("old", encoding="utf-8")
    made = write_figures(boards_of(records()), tmp_path)
    assert set(tmp_path.rglob("*.*")) == {*made, tmp_path / "kept.txt"}


def test_every_figure_has_words_and_data_to_stand_in_for_it():
    for figure in figures(boards_of(records())[0]):
        assert len(figure.description) > 60
        assert figure.data and all(len(line) == len(figure.header) for line in figure.data)


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("name", [name for name in PALETTE if name not in ("surface", "rule")])
@pytest.mark.parametrize("dark", [0, 1])
def test_colours_reach_the_contrast_for_text(name: str, dark: int):
    pair = sorted(luminance(PALETTE[key][dark]) for key in (name, "surface"))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5
