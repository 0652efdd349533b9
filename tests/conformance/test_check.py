"""Every router that ships keeps every rule: no false alarm, whatever the seed."""

import json

import pytest
import torch

from bench.config.read_suite import load_suite
from bench.conformance import CHECKS, run_checks
from bench.routing.load_routers import load_all
from tests.fingerprints import rows

SEEDS, MORE_SEEDS = range(1), range(1, 20)
ROUTERS = load_all()
OPTIONS = {row.name: (row.router, row.options) for row in load_suite("quick").rows if row.options}
ROWS = {name: (name, {}) for name in ROUTERS} | OPTIONS
"""Every router with its defaults, and every row of the main suite that sets options."""

REPEATED = {"random@ffn", "random@experts", "random@experts-1", "partially_supervised@gate"}
"""Rows that only repeat a kind of another row: `random`, `random@experts-1.2` and
`partially_supervised`. The fast tests leave them out."""

EXPECTED = {
    "tag": {
        "capacity_is_kept_in_training": "a domain's sequences take one path throughout; the share "
        "is kept over the batch"
    },
    "fixed_layers": {
        "capacity_is_kept_in_training": "a layer is full or cheap; the share is kept over all "
        "routed layers"
    },
}
"""Router -> checks that it is meant to fail, and why."""


def failures(row: str, seed: int) -> list[str]:
    router, options = ROWS[row]
    torch.set_num_threads(1)
    results = run_checks(
        ROUTERS[router], options=options, seed=seed, expected_failures=EXPECTED.get(router)
    )
    return [
        f"{found.check}: expected {found.expected}; saw {found.seen}"
        for found in results
        if not found.ok
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=pytest.mark.slow) if row in REPEATED else row for row in ROWS],
)
def test_router_conforms(row: str, seed: int) -> None:
    assert not failures(row, seed)


@pytest.mark.slow
@pytest.mark.usefixtures("full_proof")
@pytest.mark.parametrize("seed", MORE_SEEDS)
@pytest.mark.parametrize("row", ROWS)
def test_router_conforms_at_more_seeds(row: str, seed: int) -> None:
    assert not failures(row, seed)


VARIANTS = {
    f"{name} {json.dumps(options, sort_keys=True)}": (name, options)
    for name, options, _ in rows().values()
    if options
}
STRICT = {check.name for check in CHECKS if not check.waivable}


@pytest.mark.slow
@pytest.mark.usefixtures("full_proof")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("said", VARIANTS)
def test_every_row_of_suites_and_studies_keeps_the_rules_that_cannot_be_waived(
    said: str, seed: int
) -> None:
    """Estimators that are over budget on purpose, or too noisy to learn in a hundred steps, may
    fail the others.
    """
    name, options = VARIANTS[said]
    torch.set_num_threads(1)
    results = run_checks(ROUTERS[name], options=options, seed=seed)
    assert not [
        f"{found.check}: {found.seen}"
        for found in results
        if found.status == "failed" and found.check in STRICT
    ]
