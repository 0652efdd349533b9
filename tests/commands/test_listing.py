"""The tables of `bench list`."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from bench.cli import main
from bench.commands import listing
from bench.commands.listing import first_line
from bench.config.read_suite import suite_names
from bench.routing.load_routers import ENTRY_POINT_GROUP, load_all


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


def test_a_list_is_kept_until_a_source_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "routers" / "gate.py"
    source.parent.mkdir()
    source.write_text("1", encoding="utf-8")
    monkeypatch.setattr(listing, "state_of_sources", partial(listing.state_of_sources, tmp_path))
    made: list[int] = []

    def make() -> list[list[int]]:
        made.append(1)
        return [made]

    assert [listing.kept("routers", make) for _ in range(2)] == [[[1]], [[1]]]
    source.write_text("12", encoding="utf-8")
    assert listing.kept("routers", make) == [[1, 1]]
    (tmp_path / "routers" / "new.py").touch()
    assert listing.kept("routers", make) == [[1, 1, 1]]
    assert listing.kept("suites", make) == [[1, 1, 1, 1]]
    assert len([*(tmp_path / "cache" / "lists").iterdir()]) == 2
    # Routers of other distributions may change unseen.
    monkeypatch.setattr(listing, "entry_points", lambda group: [group])
    assert [len(listing.kept("routers", make)[0]) for _ in range(2)] == [5, 6]


def test_the_group_of_entry_points_is_that_of_the_registry() -> None:
    assert listing.ENTRY_POINT_GROUP == ENTRY_POINT_GROUP


def test_a_list_without_a_cache_is_made_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "file"))
    assert listing.kept("routers", lambda: [["a"]]) == [["a"]]


class Plain:
    pass


class Said:
    """
    On the second line.
    """


def test_a_router_without_a_docstring_is_listed() -> None:
    assert (first_line(Plain), first_line(Said)) == ("", "On the second line.")


@pytest.mark.slow
def test_lists_and_checks_need_no_docstrings() -> None:
    """`python -OO` takes them away."""
    code = "import bench.conformance; from bench.cli import main; main(['list', 'routers'])"
    done = subprocess.run(
        [sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mlp_gate" in done.stdout
