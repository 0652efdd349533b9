"""Numbers and names as written."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.board import text


@given(st.floats(1e-3, 9.9e20))
def test_quantity_reads_back_within_half_a_unit_of_its_last_digit(value: float):
    shown = text.quantity(value)
    found = re.fullmatch(r"([\d.]+(?:e-\d+)?)([kMGTPE]?)", shown)
    assert found, shown
    scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}[found[2]]
    assert float(found[1]) * scale == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (999.4, "999"),
        (999.9, "1.00k"),
        (1e6, "1.00M"),
        (1.506e12, "1.51T"),
        (0.0, "0"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_quantity_at_the_edges(value, shown):
    assert text.quantity(value) == shown


@pytest.mark.parametrize(
    ("value", "signed", "shown"),
    [
        (-0.0004, True, "0.000"),
        (0.0006, True, "+0.001"),
        (-1.2345, False, "−1.234"),
        (math.inf, False, "–"),
        (None, True, "–"),
    ],
)
def test_number(value, signed, shown):
    assert text.number(value, 3, signed) == shown


@given(st.lists(st.integers(0, 40)))
def test_seeds_read_back(values: list[int]):
    shown = text.seeds(values)
    ends = [part.split("-") for part in shown.split(", ")] if values else []
    assert {seed for part in ends for seed in range(int(part[0]), int(part[-1]) + 1)} == set(values)


@given(st.text(), st.integers(2, 90))
def test_plain_is_one_printable_line_within_the_limit(value: str, limit: int):
    shown = text.plain(value, limit)
    assert len(shown) <= limit
    assert len(shown.splitlines()) <= 1
    assert shown == "" or all(char.isprintable() or not char.isascii() for char in shown)
    assert text.plain(shown, limit) == shown


def test_listing_counts_what_it_leaves_out():
    assert text.listing([]) == ""
    assert text.listing(["a"]) == "a"
    assert text.listing(["a", "b", "c"]) == "a, b and c"
    assert text.listing(list("abcdef"), 2) == "a, b and 4 more"


def test_a_name_in_backticks_stays_a_code_span_and_nothing_else_does():
    assert text.prose("Otherwise as `quick`, `random@ffn`: bytes.") == (
        "Otherwise as `quick`, `random@ffn`: bytes."
    )
    assert "`" not in text.prose("`a|b` ` `<img>` ``x y``")
