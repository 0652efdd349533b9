"""The arguments of `bench check`, and its exit code."""

import json

import pytest

from bench.cli import main
from bench.conformance import CheckResult


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """Routers and options that checks were asked for; `hash` fails one of two checks."""
    seen: list[tuple[str, dict[str, object]]] = []

    def run_checks(entry, **options):
        seen.append((entry.name, options))
        failed = CheckResult("causal", "failed", "nothing moves", "token 3 moved", "look back only")
        return [CheckResult("priced", "passed"), *([failed] if entry.name == "hash" else [])]

    monkeypatch.setattr("bench.conformance.run_checks", run_checks)
    return seen


def test_options_seed_and_expected_failures_reach_the_checks(
    asked: list[tuple[str, dict[str, object]]], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--set", "width_ratio=0.5", "--seed", "3", "--expect-failure", "causal=known"]
    assert main(["check", "mlp_gate", *arguments]) == 0
    ((name, options),) = asked
    assert name == "mlp_gate"
    assert options == {
        "options": {"width_ratio": 0.5},
        "seed": 3,
        "expected_failures": {"causal": "known"},
    }
    assert "1 checks, 0 failed" in capsys.readouterr().out


def test_a_failed_check_is_explained_and_ends_with_1(
    asked: list[tuple[str, dict[str, object]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "hash"]) == 1
    said = capsys.readouterr().out
    for part in ("FAILED     causal", "nothing moves", "token 3 moved", "look back only"):
        assert part in said
    assert main(["check", "hash", "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["router"], report["passed"]) == ("hash", False)
    assert [check["status"] for check in report["checks"]] == ["passed", "failed"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "-1"], "--seed is -1: give a whole number from 0"),
        (["--seed", str(2**32)], "below 4294967296"),
        (["--set", "width_ratio"], "--set is 'width_ratio': give a name, an equals sign"),
        (["--expect-failure", "=x"], "--expect-failure is '=x': give a name"),
        (["--set", "widht_ratio=1"], "Did you mean 'width_ratio'?"),
    ],
)
def test_bad_arguments_end_with_2_before_any_check(
    asked: list[object], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "mlp_gate", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not asked
