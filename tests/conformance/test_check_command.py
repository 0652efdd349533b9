"""`bench check` and the examples of both README files, as a newcomer meets them."""

import json
import re
import sys
import unittest
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main
from bench.conformance import CHECKS, checks_for
from bench.errors import UserError
from bench.routing.registry import Entry

pytestmark = pytest.mark.usefixtures("forked")
ROOT = Path(__file__).resolve().parent.parent.parent


def examples() -> dict[str, str]:
    """Router name -> source, of the complete plugins in the README files."""
    pages = (ROOT / "README.md", ROOT / "routers" / "README.md")
    text = "".join(page.read_text("utf-8") for page in pages)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return {name[1]: block for block in blocks if (name := re.search(r'@register\("(\w+)"', block))}


@pytest.fixture
def example(tmp_path: Path, plugins: Callable[[Path], dict[str, Entry]]) -> Path:
    """The gate of routers/README.md, as a file."""
    file = tmp_path / "my_router.py"
    file.write_text(examples()["linear_gate"], "utf-8")
    assert set(plugins(file)) == {"linear_gate"}
    return file


@pytest.mark.parametrize("name", ["my_moe", "linear_gate", "linear_moe"])
def test_every_example_of_the_readme_passes(
    name: str,
    tmp_path: Path,
    plugins: Callable[[Path], dict[str, Entry]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert set(examples()) == {"my_moe", "linear_gate", "linear_moe"}
    file = tmp_path / "my_router.py"
    file.write_text(examples()[name], "utf-8")
    assert set(plugins(file)) == {name}
    assert main(["check", str(file)]) == 0
    out = capsys.readouterr().out
    assert f"{len(CHECKS)} checks, 0 failed" in out
    assert all(check.name in out for check in CHECKS)


@pytest.mark.parametrize("source", examples().values(), ids=examples())
def test_an_example_is_short(source: str) -> None:
    assert len(source.split("@register")[1].strip().splitlines()) <= 30


def test_failure_is_explained_and_gives_exit_code_1(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = example.with_name("broken.py")
    broken.write_text(
        example.read_text("utf-8")
        .replace("(1 - p, p)", "(1 - p, p / 0)")
        .replace("linear_gate", "broken_gate"),
        "utf-8",
    )
    assert main(["check", str(broken), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)[0]
    assert (report["router"], report["passed"]) == ("broken_gate", False)
    failed = {check["check"]: check for check in report["checks"] if check["status"] == "failed"}
    assert {"expected", "seen", "hint"} <= failed["plan_is_well_formed"].keys()
    assert failed["plan_is_well_formed"]["seen"] == "nan or infinity"
    assert ".forward (broken.py:" in failed["plan_is_well_formed"]["expected"]
    assert set(failed) == {"plan_is_well_formed"}
    assert main(["check", str(broken)]) == 1
    said = capsys.readouterr().out
    assert f"{len(CHECKS)} checks, 1 failed, {len(CHECKS) - 2} not run" in said
    assert "expected: finite weight" in said and "hint:     mask is bool" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_router"], "no_such_router"),
        (["no_such_file.py"], "no_such_file.py"),
        (["mlp_gate", "--set", "width_ratio"], "width_ratio"),
        (["mlp_gate", "--set", "no_such_option=1"], "no_such_option"),
        (["mlp_gate", "--set", "width_ratio=-1"], "-1"),
        (["mlp_gate", "--set", "width_ratio=["], "not valid YAML"),
        (
            ["mlp_gate", "--set", "width_ratio=2024-99-99"],
            "'2024-99-99' is not valid YAML: month must be in 1..12",
        ),
        (["mlp_gate", "--seed", "-1"], "-1"),
        (["mlp_gate", "--seed", "4294967296"], "below 4294967296"),
        (["mlp_gate", "--expect-failure", "no_such_check=because"], "no_such_check"),
        (["mlp_gate", "--expect-failure", "causal=because"], "cannot be waived"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_checks_are_importable_for_pytest(example: Path) -> None:
    bound = checks_for(example)
    assert [str(check) for check in bound] == [check.name for check in CHECKS]
    bound[0]()
    with pytest.raises(AssertionError, match="bfloat16_agrees: expected a failure"):
        next(
            check
            for check in checks_for(example, expected_failures={"bfloat16_agrees": "on purpose"})
            if str(check) == "bfloat16_agrees"
        )()
    with pytest.raises(UserError, match="cannot be waived"):
        checks_for(example, expected_failures={"causal": "on purpose"})


def test_a_check_that_depends_on_a_failed_one_is_skipped_in_pytest(example: Path) -> None:
    source = example.read_text("utf-8").replace("(1 - p, p)", "(1 - p, q)")
    broken = example.with_name("broken.py")
    broken.write_text(source.replace("linear_gate", "typo_gate"), "utf-8")
    bound = {str(check): check for check in checks_for(broken)}
    bound["builds_without_arguments"]()
    with pytest.raises(unittest.SkipTest, match="plan_is_well_formed failed"):
        bound["causal"]()
    with pytest.raises(AssertionError, match=r"'q' is not defined in \w+\.forward \(broken\.py:"):
        bound["plan_is_well_formed"]()


DRAWS_FROM_PYTHON = """
import random

from bench.routing.registry import register
from routers.gates import MLPGate


@register("draws_from_python", family="cheater")
class DrawsFromPython(MLPGate):
    def forward(self, inputs):
        random.random()
        return super().forward(inputs)
"""


def test_a_draw_from_pythons_own_generator_is_seen_where_no_type_checker_draws_from_it(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here it does, but not from code that runs without the checks of shapes."""
    monkeypatch.delitem(sys.modules, "beartype")
    honest = {str(check): check for check in checks_for(example)}
    honest["deterministic"]()
    file = example.with_name("plugin.py")
    file.write_text(DRAWS_FROM_PYTHON, encoding="utf-8")
    assert main(["check", str(file), "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    failed = [check["check"] for check in report["checks"] if check["status"] == "failed"]
    assert failed == ["deterministic"]
