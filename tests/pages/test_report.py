"""The report as a file: well formed, self-contained, inert, complete."""

import random
import re

import html5lib
import pytest

from bench.board.build import boards_of
from bench.pages import render_report
from tests.board.synthetic import QUICK, Kind, failed, record, records, row_of, swept
from tests.pages.test_leaderboard import NASTY

FEW = [kind for kind in QUICK if kind.row not in ("mlp_gate@twin", "mod", "hash", "random@block")]
"""At least one row of each kind. Every row costs a drawing."""
COMPETING = [kind for kind in FEW if kind.role in ("ranked", "control", "twin")]
WILD = [name for name in NASTY if re.search(r"[<&\x00-\x1f\u2028\u202e\ud800$\\]", name)]
"""Names with signs that mean something to HTML or to matplotlib."""
HTML = "{http://www.w3.org/1999/xhtml}"


def render(made) -> str:
    return render_report(boards_of(made))


def parse(text: str):
    """The document; a strict parser raises on the first error."""
    return html5lib.HTMLParser(strict=True).parse(text)


@pytest.fixture(scope="module")
def full() -> str:
    failed = [
        record(Kind("broken", 2.1), seed, status="failed", reason="out of memory")
        for seed in range(3)
    ]
    apart = [record(Kind("elsewhere", 2.1), seed, provenance={"threads": 2}) for seed in range(3)]
    sweep = [swept("top2_moe", factor) for factor in (0.5, 1.0, 2.0)]
    return render([*records(FEW), *records(COMPETING, match="tokens"), *failed, *apart, *sweep])


def test_well_formed_with_unique_ids_and_whole_links(full: str):
    document = parse(full)
    ids = [element.get("id") for element in document.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    targets = [
        link.get("href")[1:]
        for link in document.iter(f"{HTML}a")
        if link.get("href").startswith("#")
    ]
    assert targets and set(targets) <= set(ids)


def test_loads_nothing_from_anywhere(full: str):
    document = parse(full)
    loads = [
        element
        for element in document.iter()
        if isinstance(element.tag, str) and (element.get("src") or element.get("srcset"))
    ]
    assert not loads
    assert [link.get("href") for link in document.iter(f"{HTML}link")] == ["data:,"]
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|<iframe|<object|<embed", full)
    outside = {
        element.get("href")
        for element in document.iter(f"{HTML}a")
        if not element.get("href").startswith("#")
    }
    assert outside and all(address.startswith("https://arxiv.org/abs/") for address in outside)


@pytest.mark.usefixtures("undrawn")
def test_same_records_same_bytes():
    made = records(FEW[:4])
    assert render(made) == render(random.Random(1).sample(made, len(made)))


def test_everything_promised_is_there(full: str):
    text = "".join(parse(full).itertext())
    for heading in (
        "Board",
        "Comparisons",
        "Cost",
        "Audit",
        "Not ranked",
        "Figures",
        "Routing",
        "Equal FLOPs and equal tokens",
        "Routers",
        "Budget audit",
        "Provenance",
    ):
        assert heading in text
    for figure in (
        *("Differences to the controls", "Ranks that each row may hold"),
        *("Loss against training FLOPs", "Loss against training tokens"),
        *("Loss against wall-clock", "Loss against inference FLOPs", "Loss against measured time"),
        *("Loss against spend around the budget", "Loss by domain", "Loss against parameters"),
        *("Load by layer and expert", "Upgraded tokens by layer", "Where the tokens go"),
        *("Sensitivity to the learning rate", "How routing settles", "norm of the gradient"),
        *("A passage of code", "Differences by domain"),
    ):
        assert figure in text, figure
    assert "out of memory" in text and "threads 2, the board has 1" in text


def test_what_was_not_measured_is_said():
    bare = [
        one.model_copy(
            update={"curve": (), "monitors": (), "passage": None, "domain_loss": {}, "budget": None}
        )
        for one in records(FEW)
    ]
    text = " ".join("".join(parse(render(bare)).itertext()).split())
    assert "Sensitivity to the learning rate: not measured" in text
    assert "Not measured: there are no records of the other mode." in text
    assert "This row makes no choice among paths." in text
    assert "Routing Not measured in these records." in text


def test_every_figure_has_a_role_a_name_and_a_description(full: str):
    drawings = list(parse(full).iter("{http://www.w3.org/2000/svg}svg"))
    assert len(drawings) > 10
    for drawing in drawings:
        assert drawing.get("role") == "img" and drawing.get("aria-label")
        assert drawing.find("{http://www.w3.org/2000/svg}desc").text
    for table in parse(full).iter(f"{HTML}table"):
        assert table.find(f"{HTML}caption") is not None


def test_hostile_names_stay_text():
    def hostile(names) -> str:
        made = records(QUICK[:1], [0])
        for index, name in enumerate(names):
            kind = Kind(
                f"{name}{index}",
                2.1,
                family=f"{name}f",
                paper=name,
                control=name,
                paths=(f"{name}a", f"{name}b"),
            )
            domains = {f"{name}d": 2.0}
            made.append(
                record(
                    kind,
                    0,
                    domain_loss=domains,
                    row=row_of(kind, options={name: name}),
                    auxiliary={name: 1.0},
                    **({} if index < 2 else {"monitors": ()}),  # each costs a drawing
                    provenance={"command": name},
                )
            )
            made.append(record(Kind(f"failed{index}{name}", 2.1), 0, status="failed", reason=name))
        return render(made)

    wild = parse(hostile(WILD))
    assert len(list(wild.iter(f"{HTML}script"))) == 1
    assert not [link for link in wild.iter(f"{HTML}a") if not link.get("href").startswith("#")]
    assert not [
        element for element in wild.iter() if any(name.startswith("on") for name in element.attrib)
    ]
    tags = {element.tag for element in parse(hostile(["name"] * len(WILD))).iter()}
    assert {element.tag for element in wild.iter()} == tags


def test_a_board_with_nothing_ranked_still_renders():
    parse(render([failed(QUICK[1], 0)]))
    parse(render(records(FEW[:2], [3])))
