"""Routers from outside are checked where their rows are made; what breaks a rule gets no loss."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main
from bench.conformance import CHECKS
from bench.conformance.admission import inadmissible
from bench.conformance.check import examine_one
from bench.conformance.subject import Subject
from bench.routing.registry import Entry, find
from bench.runner.cells import Cell
from bench.runner.execute import run_cell
from bench.runner.pool import work
from tests.world import suite, write_text

Plugins = Callable[[Path], dict[str, Entry]]


def test_a_router_that_cheats_gets_no_row(
    gallery: Callable[[str], dict[str, Entry]], tmp_path: Path
) -> None:
    gallery("memory")
    config = suite(write_text(tmp_path))
    record = run_cell(Cell(config, config.row("memory_in_global"), 0), "test")
    assert (record.status, record.loss) == ("invalid", None)
    assert (
        record.reason.startswith("`bench check` fails no_hidden_state: expected ")
        and "\n" not in record.reason
    )


@pytest.mark.parametrize("inner", ["memory_in_global", {"router": "memory_in_global"}])
def test_a_cheater_in_a_wrapper_of_ours_gets_no_row(
    gallery: Callable[[str], dict[str, Entry]], tmp_path: Path, inner: object
) -> None:
    gallery("memory")
    config = suite(
        write_text(tmp_path),
        rows=[{"name": "wrapped", "router": "partially_supervised", "options": {"inner": inner}}],
    )
    cell = Cell(config, config.rows[0], 0)
    assert cell.outside and not cell.entry.outside
    record = run_cell(cell, "test")
    assert (record.status, record.loss) == ("invalid", None)
    assert record.reason.startswith(
        "Wrapped router 'memory_in_global': `bench check` fails no_hidden_state: "
    )


def test_what_a_wrapped_router_remembers_is_seen_through_the_wrapper(
    gallery: Callable[[str], dict[str, Entry]],
) -> None:
    gallery("memory")
    (check,) = [check for check in CHECKS if check.name == "no_hidden_state"]
    outcome = examine_one(
        check, Subject(find("partially_supervised"), {"inner": "memory_in_global"}), {}
    )
    assert outcome.status == "failed" and "SEEN" in outcome.seen


def test_what_may_fail_with_a_reason_refuses_nobody(
    gallery: Callable[[str], dict[str, Entry]],
) -> None:
    assert inadmissible(gallery("careless")["score_without_gradient"], {}) == ""
    assert "plan_is_well_formed" in inadmissible(gallery("careless")["weight_not_finite"], {})


def test_ours_are_held_to_it_by_the_tests() -> None:
    assert not find("mlp_gate").outside
    assert inadmissible(find("mlp_gate"), {"estimator": "soft"}) == ""


LEAVING = """
import sys
from bench.routing.contract import FFN_GATE, Router
from bench.routing.registry import register

@register("leaving", family="test")
class Leaving(Router):
    paths = FFN_GATE

    def forward(self, inputs):
        sys.exit(0)
"""


def test_a_router_that_ends_the_program_fails_alone(
    plugins: Plugins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "leaving.py"
    file.write_text(LEAVING, encoding="utf-8")
    assert main(["check", str(file)]) == 1
    assert "SystemExit" in capsys.readouterr().out
    assert plugins(file)["leaving"].outside
    config = suite(write_text(tmp_path))
    outcome = work(Cell(config, config.row("leaving"), 0), tmp_path / "runs", "test")
    assert (outcome.status, "SystemExit" in outcome.detail) == ("invalid", True)
