"""Read the templates of pages, and the filters that they use.

Plugins choose names and error texts, so a template writes each of them through a filter: in
Markdown `code` or `md`, in HTML `plain` beside jinja's own escaping.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.board import text
from bench.board.columns import Column, TableCell
from bench.board.model import Board, Row
from bench.pages.legends import legends, mark

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(package: str, folder: str, html: bool = False) -> "Environment":
    """Return the templates of a folder in a package; `html` escapes all values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(package, folder),
        autoescape=html,
        # A misspelt value is an error, not an empty place on the page.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "anchor": text.anchor,
        "cell": _value,
        "code": text.code,
        "figure": shown_figure,
        "listing": text.listing,
        "md": text.escape,
        "prose": text.prose,
        "number": text.number,
        "percent": text.percent,
        "plain": _plain,
        "seeds": text.seeds,
        "source": source_link,
        "table": text.table,
    }
    made.filters.update(filters)
    return made


def markdown(package: str, folder: str, name: str, context: Mapping[str, Any]) -> str:
    """Render a Markdown page; gaps that empty parts leave are closed."""
    page = environment(package, folder).get_template(name).render(context)
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def row_table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Write a Markdown table of rows by columns, each row's name first."""
    header = [text.escape(one.title) if one.foreign else one.title for one in columns]
    lines = [
        [text.code(row.name) + mark(row), *(_cell(one.cell(row)) for one in columns)]
        for row in rows
    ]
    # Numbers line up at the right; the first column is the name.
    align = "".join("r" if column.numeric else "l" for column in columns)
    return text.table(lines, ["router", *header], "l" + align)


def explained(board: Board, rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Write a Markdown table, and below it the legends of its marks, verdicts and columns."""
    if not rows or not columns:
        return ""
    lines = [
        f"{legend.name}. " + " ".join(f"*{name}*: {meaning}." for name, meaning in legend.entries)
        for legend in legends(board, rows, columns, text.escape)
    ]
    return "\n\n".join([row_table(rows, columns), *lines])


def _cell(cell: TableCell) -> str:
    if cell.link:
        return f"[{cell.text}]({cell.link})"
    if cell.name:
        return text.code(cell.text)
    return text.escape(cell.text) if cell.foreign else cell.text


def _plain(said: object, limit: int = 400) -> str:
    return text.plain(str(said), limit)


def _value(value: Any) -> str:
    """Write a value of a frame: numbers to four digits."""
    return text.plain(f"{value:.4g}" if isinstance(value, float) else str(value), 80)


def shown_figure(declared: str) -> str:
    """Escape a declared figure, but for its decimal point."""
    return re.sub(r"(?<=\d)&#46;(?=\d)", ".", text.escape(declared, 300))


def source_link(declared: str) -> str:
    """Write a source with its arXiv number as a link."""
    link = r"[arXiv:\1](https://arxiv.org/abs/\1)"
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", link, text.escape(declared))
