"""Which check answers for which offence of the proof."""

import pytest

from bench.conformance.causality_check import batch_invariant, causal, tags_are_causal
from bench.conformance.check import Check, examine_one
from bench.conformance.subject import Subject
from bench.record import Causality
from bench.routing.load_routers import find


def examine(check: Check, detail: str, passed: bool = False) -> tuple[str, str]:
    """Status of a check on a proof with this end, and the finding or the reason of exemption."""
    subject = Subject(find("mlp_gate"))
    vars(subject)["proof"] = Causality(passed=passed, trials=256, detail=detail)
    found = examine_one(check, subject, {})
    return found.status, found.seen or found.reason


@pytest.mark.parametrize(
    ("detail", "guilty", "other"),
    [
        ("Suffix trial: a weight of layer 1 differs", causal, batch_invariant),
        ("Decoding: the plan of layer 1 differs", causal, batch_invariant),
        ("Batch mates: the plan of layer 1 differs", batch_invariant, causal),
        ("Batch size 5: the plan of layer 1 differs", batch_invariant, causal),
    ],
)
def test_the_check_of_the_trial_fails_and_the_other_does_not_apply(
    detail: str, guilty: Check, other: Check
) -> None:
    assert examine(guilty, detail) == ("failed", detail)
    status, why = examine(other, detail)
    assert status == "exempt" and why.endswith(f"since the proof stopped at: {detail}")


@pytest.mark.parametrize("check", [causal, batch_invariant])
def test_a_proof_that_went_through_passes(check: Check) -> None:
    assert examine(check, "256 suffix trials", passed=True)[0] == "passed"


def test_tags_do_not_concern_a_router_that_does_not_ask_for_them() -> None:
    found = examine_one(tags_are_causal, Subject(find("mlp_gate")), {})
    assert (found.status, found.reason) == ("exempt", "the router does not ask for tags")
