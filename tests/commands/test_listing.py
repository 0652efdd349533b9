"""What `bench list` shows."""

import subprocess
import sys

import pytest

from bench.cli import main
from bench.commands.listing import first_line
from bench.config.read_suite import suite_names
from bench.routing.registry import load_all


def test_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "studies"]) == 0
    assert "a3-util-rank" in capsys.readouterr().out


def test_every_router_has_a_line_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "routers"]) == 0
    said = capsys.readouterr().out
    names = {line.split()[0] for line in said.splitlines() if line[:1].strip(" -")}
    assert names == {"router", *load_all()}
    (line,) = (line for line in said.splitlines() if line.startswith("mod "))
    assert "mixture_of_depths" in line and "arXiv:2404.02258" in line and "layers, capacity" in line


def test_all_three_tables_are_there_unless_one_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "suites"]) == 0
    suites = capsys.readouterr().out
    assert all(f"\n{name} " in suites for name in suite_names())
    assert main(["list"]) == 0
    everything = capsys.readouterr().out
    assert suites in everything
    for header in ("router ", "suite ", "study "):
        assert f"\n{header}" in f"\n{everything}"


class Plain:
    pass


class Said:
    """
    On the second line.
    """


def test_a_router_without_a_docstring_is_listed() -> None:
    assert (first_line(Plain), first_line(Said)) == ("", "On the second line.")


def test_lists_and_checks_need_no_docstrings() -> None:
    """`python -OO` takes them away."""
    code = "import bench.conformance; from bench.cli import main; main(['list', 'routers'])"
    done = subprocess.run(
        [sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mlp_gate" in done.stdout
