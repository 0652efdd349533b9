"""The leaderboard: its bytes, its tables as another parser reads them, and hostile names."""

import math
import random
import re
from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench.board.build import boards_of
from bench.board.text import anchor, code, escape, plain
from bench.pages import render_leaderboard
from bench.record import Record
from tests.board.synthetic import QUICK, Kind, failed, record, records

COMMAND = "python -m bench leaderboard"
NASTY = (
    *("a|b", "`x`", "<script>alert(1)</script>", "[x](http://evil.example)", "![i](//evil)"),
    *("new\nline\r\n| x |", "back\\slash", "***", "\x00\x1b[31m", "\u202ertl", "# h", "- [ ] t"),
    *("&lt;", "www.evil.example", "a@b.example", "$x$", "| --- |", "``|``", " ", "\u2028x"),
    *("http://evil.example/?a=1&b=2", "\\|", "1. x", "+ x", "=====", "<!-- x", ":smile:"),
    *("~~x~~", "_x_", "\ud800"),
)


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
            found[-1][-1].append(
                "".join(child.content for child in tokens[index + 1].children or [])
            )
    return found


def render(made) -> str:
    return render_leaderboard(boards_of(made), command=COMMAND)


def test_same_records_same_bytes_in_any_order():
    made = records()
    shuffled = random.Random(0).sample(made, len(made))
    assert render(made) == render(shuffled)


def test_figures_are_those_of_the_records():
    made = records()
    first, table = ({line[0]: line for line in found[1:]} for found in tables(render(made))[:2])
    gate = [one.loss or math.nan for one in made if one.cell.row == "mlp_gate"]
    control = [one.loss or math.nan for one in made if one.cell.row == "random@ffn"]
    mean = f"{sum(gate) / 3 / math.log(2):.3f}"
    assert first["mlp_gate"][2] == mean and table["mlp_gate"][3].startswith(f"{mean} [")
    difference = sum(a - b for a, b in zip(gate, control, strict=True)) / 3 / math.log(2)
    shown = f"{difference:+.3f}".replace("-", "−")
    assert first["mlp_gate"][3] == "random@ffn"
    assert first["mlp_gate"][4] == f"{shown} {table['mlp_gate'][5].split(' (')[0]}"
    assert table["mlp_gate"][4].startswith(f"{shown} [")
    assert table["mlp_gate"][6] == f"{sum(a < b for a, b in zip(gate, control, strict=True))}/3"


def test_every_table_row_has_every_column():
    for table in tables(render([*records(), *records(QUICK, match="tokens")])):
        assert len({len(row) for row in table}) == 1
        assert len(table) > 1


def test_sections_name_the_reason():
    kinds = {
        "failed": "out of memory",
        "invalid": "position 17 saw the future",
        "off_budget": "spends 1.04 of the budget",
    }
    text = render(
        [
            *records(),
            *(
                record(Kind(status, 2.1), seed, status=status, reason=why)
                for status, why in kinds.items()
                for seed in range(3)
            ),
        ]
    )
    for status, why in kinds.items():
        assert f"`{status}`" in text
        assert f"seeds 0-2: {why}." in text


def test_a_board_with_nothing_to_rank_still_renders():
    text = render([failed(QUICK[1], 0)])
    assert "No router can be ranked yet." in text
    single = render(records(seeds=[4]))
    assert "untestable" in single


def test_the_first_table_fits_a_screen_and_links_lead_to_headings() -> None:
    text = render([*records(), *records(QUICK, match="tokens")])
    assert max(map(len, tables(text)[0][0])) > 3
    lines = [line for line in text.splitlines() if line.startswith("|")]
    first = lines[: 2 + len([kind for kind in QUICK if kind.role not in ("bracket", "informed")])]
    assert max(map(len, first)) <= 140  # about 1,000 pixels in the letters of GitHub
    headings = {anchor(line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")}
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert len(links) > 5 and links <= headings


def test_the_first_sentences_give_one_finding_each_and_the_lines_below_their_reach() -> None:
    text = render(records())
    (said,) = re.findall(r"^\*\*(.*)\*\*$", text, re.MULTILINE)
    assert said.startswith("3 seeds. ")
    assert re.search(r"\d of 5 routers beats? random choice on the same paths\. ", said)
    lines = text.split(said)[1].split("| router")[0]
    assert re.search(r"^- Size: 256k active parameters per model, ", lines, re.MULTILINE)


def test_every_mark_and_column_of_a_table_is_explained_below_it() -> None:
    failed = [record(Kind("lost", 2.1), seed, status="off_budget", reason="x") for seed in (0, 1)]
    blocks = render([*records(), *failed, record(Kind("lost", 2.1), 2)]).split("\n\n")
    tables = [place for place, block in enumerate(blocks) if block.startswith("| router")]
    explained = [place for place in tables if blocks[place + 1].startswith("Marks. ")]
    assert len(explained) >= 4
    for place in explained:
        head, _, *lines = blocks[place].splitlines()
        below = " ".join(block for block in blocks[place + 1 : place + 4])
        titles = [title.strip() for title in head.split("|")[2:-1]]
        for title in titles:
            assert re.search(rf"\*([^*]*, )?{re.escape(title)}(, [^*]*)?\*: ", below), title
        signs = {sign for line in lines for sign in line.split("|")[1].split("`")[2].split()}
        assert signs and signs == set(re.findall(r"\*([†‡§¶○‖])\*: ", below))


def hostile(names: Sequence[str]) -> list[Record]:
    """For each name a ranked row and a failed one that use it wherever a plugin can."""
    made = records(QUICK[:1], [0])
    for index, name in enumerate(names):
        kind = Kind(
            f"{index}{name}{index}" if index % 2 else f"{name}{index}",
            2.1,
            family=name,
            paper=name,
            control=name,
        )
        made += [
            record(kind, 0),
            record(Kind(f"failed{index}{name}", 2.1), 0, status="failed", reason=name),
        ]
    return made


def test_hostile_names_and_errors_add_no_structure():
    calm, wild = (parse(render(hostile(names))) for names in (["name"] * len(NASTY), NASTY))
    assert [token.type for token in calm] == [token.type for token in wild]
    inline = [child for token in wild for child in token.children or []]
    allowed = {
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
    assert {child.type for child in inline} <= allowed
    links = [str(child.attrs["href"]) for child in inline if child.type == "link_open"]
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u2028\u202e\ud800]", render(hostile(NASTY)))


@given(st.text(max_size=60) | st.sampled_from(NASTY), st.sampled_from([code, escape]))
def test_any_text_is_one_inert_cell(text: str, write: Callable[[str], str]):
    source = f"| a | b |\n| --- | --- |\n| {write(text)} | end |\n\n- {write(text)} end"
    ((header, (cell, last)),) = tables(source)
    assert (header, last) == (["a", "b"], "end")
    tokens = [token.type for token in parse(source)]
    assert tokens == [
        token.type for token in parse("| a | b |\n| --- | --- |\n| x | end |\n\n- x end")
    ]
    inline = {child.type for token in parse(source) for child in token.children or []}
    assert inline <= {"text", "code_inline", "text_special"}
    shown = "".join(child.content for child in parse(source)[-4].children or []).removesuffix(
        " end"
    )
    assert cell == shown == (plain(text, 80 if write is code else 300) or "–")
