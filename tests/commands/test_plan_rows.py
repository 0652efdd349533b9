"""`bench plan`."""

import re
from pathlib import Path

import pytest
import yaml

from bench.cli import main
from bench.config.read_suite import load_suite
from bench.runner.resolve import resolve
from tests import world

pytestmark = pytest.mark.usefixtures("forked")
PLUGIN = """
from bench.routing import FFN_GATE, Router, gate_plan, register

@register("of_the_suite", family="tests")
class Mine(Router):
    paths = FFN_GATE

    def forward(self, inputs):
        return gate_plan(inputs.positions % 2 == 0, None)
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return world.write_suite(tmp_path / "tiny.yaml", world.write_text(tmp_path))


def test_one_impossible_row_does_not_end_the_plan(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    routers = "adaptive_moe,mlp_gate:width_ratio=32"
    assert main(["plan", "--suite", str(suite), "--routers", routers, "--budget", "0.05"]) == 1
    out = capsys.readouterr().out
    assert "impossible  mlp_gate@width_ratio=32: " in out
    assert any(line.split()[1:2] == ["ranked"] for line in out.splitlines())


def test_every_router_seed_is_a_cell_and_a_row_has_one_line(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = yaml.safe_load(suite.read_text(encoding="utf-8"))
    rows = [{"name": "mlp_gate", "router_seeds": [0, 2, 4]}, "hash"]
    suite.write_text(yaml.safe_dump({**data, "rows": rows, "seeds": 5}), encoding="utf-8")
    assert main(["plan", "--suite", str(suite)]) == 0
    out = capsys.readouterr().out
    # 15 cells of mlp_gate, 5 of hash, and 5 of each of the two controls that are added.
    found = re.search(r"training (\S+) FLOPs\n30 cells at 5 seeds\n", out)
    whole = re.search(r"^training +(\S+) FLOPs$", out, re.MULTILINE)
    assert found is not None and whole is not None
    assert float(whole[1]) == pytest.approx(30 * float(found[1]), rel=0.01)
    firsts = [line.split()[:1] for line in out.splitlines()]
    assert firsts.count(["mlp_gate"]) == firsts.count(["hash"]) == 1


def test_controls_that_are_made_and_rows_that_are_skipped_are_said(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    routers = "top2_moe:num_experts=16,planted_oracle"
    assert main(["plan", "--suite", str(suite), "--routers", routers]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[:2] for line in lines]
    made = rows.index(["top2_moe@num_experts=16", "ranked"])
    assert rows[made + 1] == ["random@experts-16-2", "control"]
    said = [line for line in lines if line.startswith(("skipped  ", "added  "))]
    assert said[0].startswith("skipped  planted_oracle: it needs the right path")
    assert said[1].startswith(
        "added  random@experts-16-2, the control of top2_moe@num_experts=16: "
    )


def test_a_suite_names_its_plugins(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They lie next to its file; they are no part of a key."""
    (suite.parent / "mine.py").write_text(PLUGIN, encoding="utf-8")
    before = load_suite(str(suite))
    data = yaml.safe_load(suite.read_text(encoding="utf-8"))
    suite.write_text(yaml.safe_dump({**data, "plugins": ["mine.py"]}), encoding="utf-8")
    after = load_suite(str(suite))
    assert after.plugins == ((suite.parent / "mine.py").as_posix(),)
    keys = {resolve(world.Cell(one, one.rows[0], 0)).key for one in (before, after)}
    assert len(keys) == 1
    assert main(["plan", "--suite", str(suite), "--routers", "of_the_suite"]) == 0
    assert "of_the_suite  ranked" in capsys.readouterr().out
