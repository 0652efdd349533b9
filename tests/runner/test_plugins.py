"""Routers from outside: never imported here, checked once, and no row where a rule is broken."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import conformance
from bench.cli import main
from bench.config.row import RowConfig
from bench.errors import UserError
from bench.record import read_record
from bench.runner import plugins
from bench.runner.cells import Cell
from bench.runner.plugins import OUTCOMES_FOLDER, describe_rows, offence
from bench.runner.resume_cell import Job
from tests.runner.jobs import run_here
from tests.world import suite, write_text

SOUND = """
import pathlib
from bench.routing import FFN_GATE, Router, gate_plan, register

print("a plugin that prints")
with pathlib.Path(__file__).with_suffix(".log").open("a") as log:
    log.write("imported\\n")

@register("{name}", family="tests", paper="arXiv:0000.00000")
class Mine(Router):
    paths = FFN_GATE

    def __init__(self, every: int = 2) -> None:
        super().__init__()
        self.every = every

    def forward(self, inputs):
        {body}
"""
BY_POSITION = "return gate_plan(inputs.positions % self.every == 0, None)"
BY_NEXT_TOKEN = "return gate_plan(inputs.tokens.roll(-1, 1) % self.every == 0, None)"
ENDS = "import sys; sys.exit(0)"


CHECK = plugins._check
FEW = {"builds_without_arguments", "plan_is_well_formed", "causal", "deterministic"}


@pytest.fixture
def few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run some checks. All of them run in `tests/conformance` and `tests/commands`."""
    few = tuple(check for check in conformance.CHECKS if check.name in FEW)
    monkeypatch.setattr(conformance, "CHECKS", few)


def counted_check(name: str, options: dict[str, Any], files: list[Path]) -> list[dict[str, Any]]:
    """Write into the log of the plugin that its checks run."""
    with files[0].with_suffix(".log").open("a") as log:
        log.write("checked\n")
    return CHECK(name, options, files)


def plugin(folder: Path, name: str, body: str = BY_POSITION) -> Path:
    path = folder / f"{name}.py"
    path.write_text(SOUND.format(name=name, body=body), encoding="utf-8")
    return path


@pytest.mark.usefixtures("forked")
def test_a_plugin_is_described_without_being_imported_here(tmp_path: Path) -> None:
    before = {name for name in sys.modules if name.startswith("router_plugin")}
    file = plugin(tmp_path, "mine")
    row = RowConfig.model_validate({"name": "mine", "options": {"every": 3}})
    (card,) = describe_rows([row], [file])
    assert (card.name, card.family, card.paths.names, card.outside) == (
        "mine",
        "tests",
        ("cheap", "full"),
        True,
    )
    after = {name for name in sys.modules if name.startswith("router_plugin")}
    assert after == before


@pytest.mark.usefixtures("forked")
def test_what_is_wrong_with_a_plugin_is_said_in_one_line(tmp_path: Path) -> None:
    file = plugin(tmp_path, "mine")
    unknown = RowConfig.model_validate({"name": "mine", "options": {"evry": 3}})
    with pytest.raises(UserError, match=r"'evry'.*Did you mean 'every'"):
        describe_rows([unknown], [file])
    with pytest.raises(UserError, match=r"Unknown router 'mien'. Did you mean 'mine'"):
        describe_rows([RowConfig.model_validate("mien")], [file])
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name", encoding="utf-8")
    with pytest.raises(UserError, match="failed to import: ModuleNotFoundError"):
        describe_rows([RowConfig.model_validate("mine")], [broken])


def test_our_routers_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "in_fresh_process", lambda *_: pytest.fail("a process"))
    inner = {"name": "partially_supervised", "options": {"inner": "mlp_gate"}}
    cards = describe_rows([RowConfig.model_validate(one) for one in ("mod", inner)], [])
    assert [card.outside for card in cards] == [False, False]


@pytest.mark.usefixtures("forked", "few_checks")
def test_a_plugin_is_checked_once_for_a_source_and_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(plugins, "_check", counted_check)
    config = suite(write_text(tmp_path), rows=["mine"])
    file, out = plugin(tmp_path, "mine"), tmp_path / "out"
    cells = [Cell(config, config.rows[0], seed, (file,), True) for seed in (0, 1)]
    results = run_here(cells, Job(out, out, "c"), 1)
    assert {result.status for result in results} <= {"ok", "off_budget"}, results
    assert len(list((out / OUTCOMES_FOLDER).glob("*.json"))) == 1
    # The process that checks is a copy here, and has the plugin of the cell that asks first.
    assert file.with_suffix(".log").read_text().split() == ["imported", "checked", "imported"]
    again = run_here(cells, Job(out, out, "c"), 1)
    assert {result.status for result in again} == {"kept"}
    (first, *_) = (out / "records").glob("??/*.json")
    checks = read_record(first).checks
    assert [(check.router, check.check) for check in checks] == [
        ("mine", check.name) for check in conformance.CHECKS
    ]
    assert offence(checks) == ""


@pytest.mark.usefixtures("forked", "few_checks")
def test_a_router_that_breaks_a_rule_gets_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    wrapped = {"router": "partially_supervised", "options": {"inner": "peeks"}, "name": "wrapped"}
    config = suite(write_text(tmp_path), rows=["peeks", wrapped])
    file, out = plugin(tmp_path, "peeks", BY_NEXT_TOKEN), tmp_path / "out"
    cells = [Cell(config, row, 0, (file,), True) for row in config.rows]
    for result in run_here(cells, Job(out, out, "c"), 1):
        assert result.status == "invalid"
        assert result.detail.startswith("`bench check peeks` fails causal")
        assert "\n" not in result.detail


@pytest.mark.usefixtures("forked")
def test_a_router_that_ends_the_program_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    config = suite(write_text(tmp_path), rows=["ends"])
    file, out = plugin(tmp_path, "ends", ENDS), tmp_path / "out"
    (result,) = run_here([Cell(config, config.rows[0], 0, (file,), True)], Job(out, out, "c"), 0)
    assert (result.status, "SystemExit" in result.detail) == ("invalid", True)
    assert main(["check", str(file), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "SystemExit" in json.dumps(found)


@pytest.mark.usefixtures("forked")
def test_a_row_of_the_suite_without_its_plugin_is_said_to_be_there() -> None:
    row = RowConfig.model_validate("shared_fine")
    with pytest.raises(UserError, match="The suite lists this row, and no plugin") as raised:
        describe_rows([row], [], {"shared_fine", "mlp_gate"})
    assert "Did you mean 'shared_fine'" not in str(raised.value)
