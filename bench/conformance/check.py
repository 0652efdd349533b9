"""Define checks, run them on a router, and return their results."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.conformance.subject import Subject
from bench.errors import let_through, located, told, unknown

CheckStatus = Literal["passed", "failed", "exempt", "expected_failure", "not_run"]


class Violation(Exception):
    """A broken rule, with the expected and the seen value."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(f"expected {expected}; saw {seen}")
        self.expected, self.seen = expected, seen


class Exempt(Exception):
    """The reason why a rule does not apply to this router."""


def demand(holds: bool, expected: str, seen: object) -> None:
    """Raise a `Violation` unless the rule holds."""
    if not holds:
        raise Violation(expected, str(seen))


@dataclass(frozen=True)
class Check:
    """A named rule.

    Attributes:
        name: name in reports, tests and `expected_failures`.
        rule: the rule in one sentence.
        hint: the usual mistake and its correction.
        examine: raises `Violation` if the rule is broken and `Exempt` if it does not apply.
        essential: all later checks depend on this one.
        waivable: a router may list it among its expected failures. Rules that keep a row honest
            cannot be waived.
    """

    name: str
    rule: str
    hint: str
    examine: Callable[[Subject], None]
    essential: bool = False
    waivable: bool = False


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. `expected`, `seen` and `hint` are empty unless it failed."""

    check: str
    status: CheckStatus
    expected: str = ""
    seen: str = ""
    hint: str = ""
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the check neither failed nor was skipped."""
        return self.status not in ("failed", "not_run")

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, without empty fields."""
        return {name: value for name, value in asdict(self).items() if value}


def rule(
    hint: str, *, essential: bool = False, waivable: bool = False
) -> Callable[[Callable[[Subject], None]], Check]:
    """Turn a function into a check, with its name and the first line of its docstring."""

    def make(examine: Callable[[Subject], None]) -> Check:
        # There are no docstrings under `python -OO`.
        said = (examine.__doc__ or examine.__name__).splitlines()[0]
        return Check(examine.__name__, said, hint, examine, essential, waivable)

    return make


def fault(error: BaseException, subject: Subject) -> str:
    """Describe an exception, with the line of the router's own source that led to it."""
    # The cause says more than the error that the harness made of it.
    while error.__cause__ is not None:
        error = error.__cause__
    # Walk the traceback and keep the frames of the router's own files; the last one is nearest.
    places = [
        f"{frame.f_code.co_qualname} ({Path(frame.f_code.co_filename).name}:{line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename in subject.sources
    ]
    if not places:
        return located(error)
    return told(error) if places[-1] in told(error) else f"{told(error)} in {places[-1]}"


def examine_one(
    check: Check, subject: Subject, expected_failures: Mapping[str, str]
) -> CheckResult:
    """Run one check. Any error that a plugin raises is a failure of the check."""
    found = _examine(check, subject)
    reason = expected_failures.get(check.name, "")
    if not reason:
        return found
    # A failure is expected; a pass, or a rule that does not apply, makes the waiver wrong.
    if found.status == "failed":
        return CheckResult(check.name, "expected_failure", found.expected, found.seen, "", reason)
    seen = f"the check does not apply: {found.reason}" if found.reason else "no failure"
    expected = "a failure, since it is listed as expected"
    advice = "Take the check off the list of expected failures."
    return CheckResult(check.name, "failed", expected, seen, advice, reason)


def _examine(check: Check, subject: Subject) -> CheckResult:
    try:
        check.examine(subject)
    except Exempt as exempt:
        return CheckResult(check.name, "exempt", reason=str(exempt))
    except Violation as broken:
        return CheckResult(check.name, "failed", broken.expected, broken.seen, check.hint)
    except BaseException as error:
        let_through(error)
        seen, advice = fault(error, subject), "Correct the line that raises the error."
        return CheckResult(check.name, "failed", "no error", seen, advice)
    return CheckResult(check.name, "passed")


def validate_waivers(checks: Sequence[Check], expected_failures: Mapping[str, str]) -> None:
    """Raise a `UserError` for an expected failure that is no check or cannot be waived."""
    waivable = [check.name for check in checks if check.waivable]
    for name in expected_failures:
        if name not in waivable:
            kind, advice = "check among the expected failures", "Other checks cannot be waived."
            raise unknown(kind, name, waivable, advice)


@dataclass
class Examination:
    """The checks of one router. Each runs once, after the essential ones before it.

    Attributes:
        checks: the checks in order.
        subject: the router.
        expected_failures: check -> reason.

    Raises:
        UserError: an expected failure is no check or cannot be waived.
    """

    checks: Sequence[Check]
    subject: Subject
    expected_failures: Mapping[str, str]
    _results: dict[str, CheckResult] = field(default_factory=dict[str, CheckResult])

    def __post_init__(self) -> None:
        validate_waivers(self.checks, self.expected_failures)

    def result(self, check: Check) -> CheckResult:
        """Return the result of a check: "not_run" if an essential one before it failed."""
        if check.name not in self._results:
            broken = next((one for one in self._before(check) if not self.result(one).ok), None)
            self._results[check.name] = (
                examine_one(check, self.subject, self.expected_failures)
                if broken is None
                else CheckResult(check.name, "not_run", reason=f"{broken.name} failed")
            )
        return self._results[check.name]

    def _before(self, check: Check) -> Iterator[Check]:
        for earlier in self.checks[: self.checks.index(check)]:
            if earlier.essential:
                yield earlier

    def results(self) -> list[CheckResult]:
        """Run all checks in order."""
        return [self.result(check) for check in self.checks]
