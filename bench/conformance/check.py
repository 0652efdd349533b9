"""What a check is, and what may come of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.conformance.subject import Subject
from bench.errors import let_through, told, unknown

Status = Literal["passed", "failed", "exempt", "expected_failure", "not_run"]


class Violation(Exception):
    """A rule was broken: what was expected, and what was seen."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(f"expected {expected}; saw {seen}")
        self.expected, self.seen = expected, seen


class Exempt(Exception):
    """The rule does not apply to this router, and why."""


def demand(holds: bool, expected: str, seen: object) -> None:
    """Raise a `Violation` unless the rule holds."""
    if not holds:
        raise Violation(expected, str(seen))


@dataclass(frozen=True)
class Check:
    """A named rule.

    Attributes:
        name: how reports, tests and `expected_failures` call it.
        rule: what it asks for, one sentence.
        hint: what usually breaks it and how to mend that.
        examine: raises `Violation` where the rule is broken and `Exempt` where it does not apply.
        essential: later checks mean nothing once this one fails.
        waivable: a router may list it among its expected failures. Rules that keep a row honest are
            not.
    """

    name: str
    rule: str
    hint: str
    examine: Callable[[Subject], None]
    essential: bool = False
    waivable: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of one check; `expected`, `seen` and `hint` are empty unless it failed."""

    check: str
    status: Status
    expected: str = ""
    seen: str = ""
    hint: str = ""
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.status not in ("failed", "not_run")

    def as_dict(self) -> dict[str, Any]:
        """Plain data, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value}


def rule(
    hint: str, *, essential: bool = False, waivable: bool = False
) -> Callable[[Callable[[Subject], None]], Check]:
    """Decorator that makes a function into a check.

    Its name and the first line of its docstring are the check's.
    """

    def make(examine: Callable[[Subject], None]) -> Check:
        return Check(
            examine.__name__,
            (examine.__doc__ or "").splitlines()[0],
            hint,
            examine,
            essential,
            waivable,
        )

    return make


def examine_one(check: Check, subject: Subject, expected_failures: Mapping[str, str]) -> Outcome:
    """Run one check. Whatever a plugin raises is a failure of the check, never of the bench."""
    reason = expected_failures.get(check.name, "")
    try:
        check.examine(subject)
    except Exempt as exempt:
        if not reason:
            return Outcome(check.name, "exempt", reason=str(exempt))
        expected, seen = (
            "a failure, since it is listed as expected",
            f"the check does not apply: {exempt}",
        )
        return Outcome(
            check.name,
            "failed",
            expected,
            seen,
            "Take the check off the list of expected failures.",
            reason,
        )
    except Violation as violation:
        expected, seen = violation.expected, violation.seen
    except BaseException as error:
        let_through(error)
        expected, seen = check.rule, told(error)
    else:
        if not reason:
            return Outcome(check.name, "passed")
        expected, seen = "a failure, since it is listed as expected", "no failure"
        return Outcome(
            check.name,
            "failed",
            expected,
            seen,
            "Take the check off the list of expected failures.",
            reason,
        )
    if reason:
        return Outcome(check.name, "expected_failure", expected, seen, reason=reason)
    return Outcome(check.name, "failed", expected, seen, check.hint)


def validate_waivers(checks: Sequence[Check], expected_failures: Mapping[str, str]) -> None:
    """Raise a `UserError` for an expected failure that names no check, or one that cannot be
    waived.
    """
    waivable = [check.name for check in checks if check.waivable]
    for name in expected_failures:
        if name not in waivable:
            raise unknown(
                "check among the expected failures",
                name,
                waivable,
                "Other checks cannot be waived.",
            )


def examine_all(
    checks: Sequence[Check], subject: Subject, expected_failures: Mapping[str, str]
) -> list[Outcome]:
    """Run checks in order; after an essential one fails the rest are listed as not run.

    Raises:
        UserError: an expected failure that names no check, or one that cannot be waived.
    """
    validate_waivers(checks, expected_failures)
    outcomes: list[Outcome] = []
    broken = ""
    for check in checks:
        if broken:
            outcomes.append(Outcome(check.name, "not_run", reason=f"{broken} failed"))
            continue
        outcomes.append(examine_one(check, subject, expected_failures))
        if check.essential and not outcomes[-1].ok:
            broken = check.name
    return outcomes
