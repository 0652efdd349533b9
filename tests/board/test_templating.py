"""Filters and tables of pages, against the text that a reader must see."""

import pytest
from jinja2 import UndefinedError

from bench.board.build import boards_of
from bench.board.columns import Column, TableCell
from bench.board.templating import environment, row_table, shown_figure, source_link
from tests.board.synthetic import records

BOARD = boards_of(records())[0]


def test_an_arxiv_number_is_a_link_and_nothing_else_is() -> None:
    link = "[arXiv:2404.02258](https://arxiv.org/abs/2404.02258)"
    assert source_link("arXiv:2404.02258, Section 3").startswith(f"{link}, Section 3")
    assert "](" not in source_link("[x](http://evil.example)") and "<" not in source_link("<b>")


def test_the_point_of_a_declared_figure_stays_and_markup_does_not() -> None:
    assert shown_figure("0.1 nats") == "0.1 nats"
    assert "|" not in shown_figure("1.5 | 2.5") and "1.5" in shown_figure("1.5 | 2.5")


def test_a_table_has_a_line_a_row_and_marks_their_roles() -> None:
    columns = [
        Column("plain", "", lambda row: TableCell("a*b", link="https://x.example")),
        Column("foreign", "", lambda row: TableCell("a|b", foreign=True)),
    ]
    lines = row_table(BOARD.rows, columns).splitlines()
    assert len(lines) == 2 + len(BOARD.rows)
    assert all(line.count("|") == 4 for line in lines), "no name opens a cell"
    assert "[a*b](https://x.example)" in lines[2]
    marks = {line.split("`")[1]: line.split("`")[2].split("|")[0].strip() for line in lines[2:]}
    wanted = {"mlp_gate": "", "mlp_gate@twin": "‡", "random@ffn": "†", "tag": "§", "dense": "¶"}
    assert {name: marks[name] for name in wanted} == wanted


def test_a_value_that_a_template_lacks_is_an_error_and_html_is_escaped() -> None:
    made = environment("bench.board", "templates", html=True)
    assert made.from_string("{{ x }}").render(x="<i>") == "&lt;i&gt;"
    assert made.from_string("{{ x | cell }}").render(x=1 / 3) == "0.3333"
    with pytest.raises(UndefinedError):
        made.from_string("{{ y }}").render()
