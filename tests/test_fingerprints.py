import json
from typing import Any

import pytest

from bench.record import RULES_VERSION
from bench.routing.registry import find, load_all
from tests.fingerprints import PATH, fingerprint, rows

STORED: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))

LOSS_TOLERANCE = 1e-5
"""Relative.

Instruction sets that sum in another order (plain, AVX2, AVX-512) move these losses by 1.2e-7 at
most; a momentum of
0.94 instead of 0.95 moves them by 2e-5 at least, 1 % of Muon's learning rate by 2e-4, of AdamW's by
2e-3.
"""

WHAT_TO_DO = """
The numbers of a run have changed. If that was not meant, mend it. If it was:
  1. raise RULES_VERSION in bench/record/schema.py if the numbers of all routers moved;
  2. python -m tests.fingerprints, and commit routers/fingerprints.json: the records of routers that
     moved then retire;
  3. run `make official` again, or retire the rows, since a board takes records of one version only;
  4. say so in CHANGELOG.md."""


def test_the_file_is_of_this_rules_version() -> None:
    assert STORED["rules_version"] == RULES_VERSION, WHAT_TO_DO


def test_every_router_has_a_fingerprint_and_none_is_left_over() -> None:
    assert set(STORED["routers"]) == set(load_all()), (
        "New or removed routers: python -m tests.fingerprints (the others must not move)."
    )


@pytest.mark.parametrize("name", sorted(STORED["routers"]))
def test_no_router_computes_anything_else_than_it_did(name: str) -> None:
    was, found = STORED["routers"][name], fingerprint(find(name))
    assert found.pop("losses") == pytest.approx(was.pop("losses"), rel=LOSS_TOLERANCE), WHAT_TO_DO
    assert found == was, WHAT_TO_DO


def test_every_row_of_suites_and_studies_has_one_too() -> None:
    assert set(STORED["rows"]) == set(rows()), (
        "New or removed rows: python -m tests.fingerprints (the others must not move)."
    )


@pytest.mark.parametrize("said", sorted(STORED["rows"]))
def test_no_row_of_a_suite_or_study_computes_anything_else_than_it_did(said: str) -> None:
    """Estimators, oracle labels, supervision and options of router training, which the defaults
    above leave out.
    """
    name, options, training = rows()[said]
    was, found = STORED["rows"][said], fingerprint(find(name), options, training)
    assert found.pop("losses") == pytest.approx(was.pop("losses"), rel=LOSS_TOLERANCE), WHAT_TO_DO
    assert found == was, WHAT_TO_DO
