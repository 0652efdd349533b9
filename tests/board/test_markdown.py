"""The leaderboard: bytes, tables as another parser reads them, and nothing that a name could break."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench.board import render_leaderboard
from bench.board.build import boards_of
from tests.board.synthetic import QUICK, Kind, record, records

COMMAND = "python -m bench leaderboard"
NASTY = (
    "a|b", "`x`", "<script>alert(1)</script>", "[x](http://evil.example)", "![i](//evil)", "new\nline\r\n| x |", "back\\|slash", "\x00\x1b[31m",
    "‮rtl", "***", "# h", "- [ ] t", "&lt;", "www.evil.example", "a@b.example", "$x$", "| --- |", "``|``", " ", "\u2028x",
)  # fmt: skip


def parse(text: str):
    """Tokens of a strict GitHub-flavoured reading, links guessed from text included."""
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(text)


def tables(text: str) -> list[list[list[str]]]:
    """Each table as rows of cell texts, entities decoded."""
    found: list[list[list[str]]] = []
    tokens = parse(text)
    for index, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("td_open", "th_open"):
            found[-1][-1].append("".join(child.content for child in tokens[index + 1].children or []))
    return found


def render(made) -> str:
    return render_leaderboard(boards_of(made), command=COMMAND)


def test_same_records_same_bytes_in_any_order():
    made = records()
    shuffled = random.Random(0).sample(made, len(made))
    assert render(made) == render(shuffled)


def test_figures_are_those_of_the_records():
    made = records()
    cells = {line[1]: line for line in tables(render(made))[0][1:]}
    gate = [one.loss for one in made if one.cell.row == "mlp_gate"]
    control = [one.loss for one in made if one.cell.row == "random@ffn"]
    assert cells["mlp_gate"][2].startswith(f"{sum(gate) / 3 / math.log(2):.3f} [")
    difference = sum(a - b for a, b in zip(gate, control, strict=True)) / 3 / math.log(2)
    assert cells["mlp_gate"][3].startswith(f"{difference:+.3f}".replace("-", "−") + " [")
    assert cells["mlp_gate"][5] == f"{sum(a < b for a, b in zip(gate, control, strict=True))}/3"


def test_every_table_row_has_every_column():
    for table in tables(render([*records(), *records(QUICK, match="tokens")])):
        assert len({len(row) for row in table}) == 1
        assert len(table) > 1


def test_sections_name_the_reason():
    kinds = {"failed": "out of memory", "invalid": "position 17 saw the future", "off_budget": "spends 1.04 of the budget"}
    text = render(
        [*records(), *(record(Kind(status, 2.1), seed, status=status, reason=why) for status, why in kinds.items() for seed in range(3))]
    )
    for status, why in kinds.items():
        assert f"`{status}`" in text
        assert f"seeds 0-2: {why}." in text


def test_a_board_with_nothing_to_rank_still_renders():
    text = render([record(QUICK[1], 0, status="failed", reason="x", loss=None, budget=0.5, flops=None, training=None, causality=None)])
    assert "No router can be ranked yet." in text
    single = render(records(seeds=[4]))
    assert "untestable" in single


def check_name(name: str, reason: str) -> None:
    """A hostile row, ranked and failed, adds no structure: only its own cells and lines."""
    calm = render(
        [
            *records(QUICK[:3]),
            *(record(Kind("calm", 2.1, control=None), s) for s in range(3)),
            record(Kind("bad", 2.2), 0, status="failed", reason="r"),
        ]
    )
    kind = Kind(name, 2.1, family=name, paper=name, control=None)
    wild = render(
        [*records(QUICK[:3]), *(record(kind, s) for s in range(3)), record(Kind(name + "2", 2.2), 0, status="failed", reason=reason)]
    )
    kinds = [[token.type for token in parse(text)] for text in (calm, wild)]
    assert kinds[0] == kinds[1]
    inline = [child.type for token in parse(wild) for child in token.children or []]
    assert set(inline) <= {
        "text",
        "code_inline",
        "strong_open",
        "strong_close",
        "em_open",
        "em_close",
        "link_open",
        "link_close",
        "softbreak",
        "text_special",
    }
    links = [child.attrs["href"] for token in parse(wild) for child in token.children or [] if child.type == "link_open"]
    assert all(str(link).startswith("https://arxiv.org/abs/") for link in links)


def test_known_nasty_names_are_inert():
    for name in NASTY:
        check_name("n" + name, name)
        check_name(name + "n", name)


@given(st.text(min_size=1, max_size=30), st.text(max_size=60))
def test_any_name_and_error_is_inert(name: str, reason: str):
    check_name(name, reason)
