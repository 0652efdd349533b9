import json
from typing import Any

import pytest

from bench.record import RULES_VERSION
from bench.routing.load_routers import find, load_all
from tests.fingerprints import PATH, agrees, fingerprint, kept, rows

STORED: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))

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
    assert agrees(STORED["routers"][name], fingerprint(find(name))), WHAT_TO_DO


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
    assert agrees(STORED["rows"][said], fingerprint(find(name), options, training)), WHAT_TO_DO


def test_rounding_alone_keeps_a_stored_entry() -> None:
    """Another processor's rounding must not retire records; other numerics must."""
    was = {"losses": [4.0, 3.0], "active_flops": 7.0}
    rounded, moved = {**was, "losses": [4.0, 3.0 + 3e-7]}, {**was, "losses": [4.0, 3.0003]}
    assert kept({"a": was, "b": was}, {"a": rounded, "b": moved}) == {"a": was, "b": moved}
    assert not agrees(was, {**was, "active_flops": 8.0})
