"""Paths are those of docs/routing-paths.md, and each other combination is refused in one line."""

import re
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import UserError
from bench.routing.contract import Router, RouterInput, RoutingPlan
from bench.routing.paths import BLOCK_GATE, FFN_GATE, Paths, Site, experts, refusal
from bench.routing.registry import Entry
from tests.world import SEQ_LEN, model, run_of, tokens

PAGE = Path(__file__).resolve().parents[2] / "docs" / "routing-paths.md"
POOL = ("cheap", "full", "skip", "block", "expert0", "expert_b", "fast", "Expert0", "expert-1")
CASES = [
    (site, names, base, segment)
    for length in (1, 2, 3)
    for names in permutations(POOL, length)
    for site, base, segment in product(Site, (None, *names), (None, 4))
]


def in_table(site: Site, names: tuple[str, ...], base: str | None, segment: int | None) -> bool:
    """The table of the page, a line each."""
    bank = [name for name in names if re.fullmatch(r"expert\w*", name)]
    rest = set(names) - set(bank)
    gate = segment is None and (names, base) in (
        (("cheap", "full"), "cheap"),
        (("skip", "full"), "skip"),
    )
    beside = segment is None and rest <= {"skip", "cheap", "full"}
    chosen = base is None and bool(bank) and (beside or not rest)
    block = (names, base, segment) == (("skip", "block"), "skip", None)
    return gate or chosen if site is Site.FFN else block


def test_the_table_and_the_code_agree_on_every_combination() -> None:
    accepted = 0
    for case in CASES:
        said = refusal(*case)
        assert (not said) == in_table(*case), case
        assert "\n" not in said and (not said or said.endswith("See docs/routing-paths.md."))
        accepted += not said
    assert 0 < accepted < len(CASES)


def test_the_page_has_the_table() -> None:
    rows = re.findall(r"^\| .* \|$", PAGE.read_text("utf-8"), re.MULTILINE)[:6]
    said = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    assert said[0] == ["kind", "site", "names", "base", "segment", "the budget fixes"]
    literal = [row for row in said[1:] if row[2].startswith("`(")]
    assert {row[0] for row in literal} == {"gate", "block"}
    for _, site, names, base, _, free in literal:
        named, first = re.findall(r'"(\w+)"', names), base.strip('`"')
        Paths(Site(site.strip("`")), tuple(named), base=first)
        assert free == "capacity"
    assert [row[0] for row in said[1:] if row not in literal] == ["experts", "merged experts"]


@pytest.mark.parametrize(
    "paths",
    [
        FFN_GATE,
        BLOCK_GATE,
        experts(1),
        experts(3, segment=4),
        Paths(Site.FFN, ("skip", "full"), base="skip"),
        Paths(Site.FFN, ("expert0", "skip", "expert1", "cheap", "full")),
        Paths(Site.FFN, ("expert_shared", "expert_a")),
    ],
    ids=lambda paths: "-".join(paths.names),
)
def test_allowed_paths_are_built_priced_and_run(paths: Paths) -> None:
    """Tokens take the last path. Each step from budget to dispatch knows the cost."""

    class Last(Router):
        def __init__(self) -> None:
            super().__init__()
            self.paths = paths

        def forward(self, inputs: RouterInput) -> RoutingPlan:
            batch, seq = inputs.tokens.shape
            mask = torch.zeros(batch, seq, len(paths.names), dtype=torch.bool)
            mask[..., -1] = True
            segments = 0 if paths.segment is None else -(-seq // paths.segment)
            merge = torch.full((batch, segments, len(paths.names)), 1 / len(paths.names))
            return RoutingPlan(mask, merge=merge if segments else None)

    found = model(Entry("last", "tests", "", Last), routed_layers=(1,), budget=0.9)
    run = run_of(tokens(), "causal")
    found.decoder(run)
    (site,) = found.evaluation_ledger.sites
    last = (0,) * (len(paths.names) - 1) + (1,)
    assert site.active(run.counts[0]) == pytest.approx(3 * SEQ_LEN * site.at(last, SEQ_LEN))


BAD_NAMES: list[Any] = [("expert0", "expert0"), (), ["expert0"], "expert0", ("expert0", 1)]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"names": ("cheap", "fast")}, "names has 'fast'; allowed at an FFN site are skip, cheap"),
    ({"names": ("block", "skip")}, "names has 'block'"),
    ({"names": ("cheap", "full")}, "without a base.*Add base='cheap'"),
    ({"names": ("skip",)}, "without a base"),
    ({"names": ("cheap", "full"), "base": "full"}, "base='full'.*the first being the base"),
    ({"names": ("full", "cheap"), "base": "full"}, "allowed with a base are"),
    ({"names": ("skip", "cheap"), "base": "skip"}, "allowed with a base are"),
    ({"names": ("skip", "expert0"), "base": "skip"}, "Experts have no base: leave it out"),
    ({"names": ("cheap", "full"), "base": "cheap", "segment": 2}, "without a segment"),
    ({"names": ("expert0", "skip"), "segment": 2}, "only experts can be merged"),
    ({"names": ("expert0",), "segment": 0}, "segment is 0; allowed is a whole number from 1"),
    ({"names": ("expert0",), "segment": 1.5}, "segment is 1.5"),
    ({"names": ("expert0",), "site": "ffn"}, "site is 'ffn'; allowed are Site.FFN and"),
    ({"names": ("expert0",), "site": None}, "site is None"),
    *(({"names": names}, "a tuple of different strings") for names in BAD_NAMES),
    ({"names": ("expert0", "skip"), "always": ("cheap",)}, "always is .*allowed are some of"),
    ({"names": ("expert0", "skip"), "always": ["skip"]}, "always is .*allowed are some of"),
    ({"names": ("expert0", "skip"), "always": ("expert0",)}, "leaves no expert to choose"),
    ({"names": ("cheap", "full"), "base": "cheap", "always": ("cheap",)}, "without a base"),
    ({"names": ("expert0", "expert1"), "segment": 2, "always": ("expert0",)}, "or a segment"),
    *(
        ({"site": Site.BLOCK, **changes}, f"{said}.*allowed is BLOCK_GATE alone")
        for changes, said in (
            ({"names": ("block", "full"), "base": "block"}, "base='block'"),
            ({"names": ("skip", "block")}, "base=None"),
            ({"names": ("skip", "block"), "base": "skip", "segment": 4}, "segment=4"),
            ({"names": ("expert0", "expert1")}, "'expert0'"),
        )
    ),
]


@pytest.mark.parametrize(("given", "says"), REFUSED, ids=str)
def test_other_paths_are_refused_in_one_line(given: dict[str, Any], says: str) -> None:
    said = refusal(**{"site": Site.FFN, "base": None, "segment": None, **given})
    assert re.search(says, said) and "\n" not in said


def test_paths_themselves_refuse() -> None:
    with pytest.raises(ValueError, match=r"^Paths: names has 'fast'; allowed"):
        Paths(Site.FFN, ("cheap", "fast"))


def test_an_option_that_makes_such_paths_is_bad_input() -> None:
    class Optional(Router):
        def __init__(self, names: tuple[str, ...] = ("cheap", "fast")) -> None:
            super().__init__()
            self.paths = Paths(Site.FFN, names)

    with pytest.raises(UserError, match=r"refused the options .*names has 'fast'"):
        Entry("optional", "tests", "", Optional).make({})
