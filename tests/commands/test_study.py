"""`bench study` from cells to page, on cells of a second."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cli import main
from bench.record import read_records
from bench.runner import schedule
from tests import world
from tests.commands.starts import opened


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a tiny suite and a study of it."""
    monkeypatch.chdir(tmp_path)
    world.write_suite(tmp_path / "tiny.yaml", world.write_text(tmp_path))
    write(tmp_path)
    with world.own_registry():
        yield tmp_path


def write(place: Path, **changes: Any) -> None:
    data: dict[str, Any] = {
        "name": "wide-gate",
        "title": "Is a wider gate better?",
        "purpose": "tests",
        "scope": "tests",
        "settings": {"half": {"suite": "tiny.yaml"}},
        "rows": ["mlp_gate", {"name": "mlp_gate@wide", "options": {"width_ratio": 0.5}}],
        "claims": [
            {
                "text": "It is.",
                "source": "nobody",
                "comparisons": [
                    {"row": "mlp_gate@wide", "control": "mlp_gate", "expect": "lower", "margin": 10}
                ],
            }
        ],
        "sizes": {"small": {"seeds": 2, "core_minutes": 1}},
    }
    (place / "study.yaml").write_text(
        yaml.safe_dump(data | changes, sort_keys=False), encoding="utf-8"
    )


def study(*arguments: str) -> int:
    return main(["study", "study.yaml", "--out", "out", *arguments])


def run() -> int:
    return study("--workers", "0")


def test_cells_are_run_once_for_all_studies_and_the_page_is_what_they_give(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    folder = place / "out" / "studies" / "wide-gate"
    cells = {
        (record.cell.row, record.cell.seed) for _, record in read_records(folder / "small" / "half")
    }
    assert cells == {("mlp_gate", 0), ("mlp_gate", 1), ("mlp_gate@wide", 0), ("mlp_gate@wide", 1)}
    page = (folder / "README.md").read_bytes()
    assert (
        b"Is a wider gate better?" in page and b"**refuted**" in page
    )  # nothing reaches a margin of 10 nats
    capsys.readouterr()
    assert run() == 0
    assert capsys.readouterr().out.count(" kept ") == 4
    assert (folder / "README.md").read_bytes() == page
    assert study("--check") == 0
    # A study of one's own is known by its file alone.
    capsys.readouterr()
    assert main(["study", "--check", "--out", "out"]) == 0
    assert "passed over: the page of 'wide-gate'" in capsys.readouterr().out
    (folder / "README.md").write_bytes(page.replace(b"refuted", b"confirmed"))
    assert study("--check") == 1
    assert "does not agree with its records" in capsys.readouterr().out
    assert study("--render") == 0
    assert (folder / "README.md").read_bytes() == page
    write(place, name="other")
    capsys.readouterr()
    assert run() == 0
    said = capsys.readouterr().out
    assert "other, half: 4 cells, " in said and said.count(" kept ") == 4


def test_the_cells_of_all_settings_are_one_schedule(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dearest rows start first within a seed, and each setting has a tree of its own."""
    settings = {
        name: {"suite": "tiny.yaml", "set": {"match": "tokens", "budget": budget}}
        for name, budget in (("low", 0.25), ("half", 0.5))
    }
    gates = ["mlp_gate", {"name": "mlp_gate@wide", "options": {"width_ratio": 0.5}}]
    cheap, dense = ({"name": name, "role": "bracket"} for name in ("cheap", "dense"))
    write(place, settings=settings, rows=[cheap, *gates, dense])
    starts, calls = opened(monkeypatch), [0]
    real = schedule.run_cells

    def run_cells(*given: Any) -> Any:
        calls[0] += 1
        return real(*given)

    monkeypatch.setattr(schedule, "run_cells", run_cells)
    assert study("--dry-run") == 0
    dry = re.findall(r"^to run  (.*?)  ", capsys.readouterr().out, re.MULTILINE)
    assert not calls[0] and not (place / "out").exists()
    assert study() == 1
    assert calls == [1] and starts.names == dry
    places = [(setting, seed) for setting in settings for seed in range(2)]
    for number, (setting, seed) in enumerate(places):
        own = dry[4 * number : 4 * number + 4]
        assert all(name.endswith(f" seed {seed} in {setting}") for name in own)
        assert [own[0].split()[0], own[3].split()[0]] == ["dense", "cheap"]
    assert {job.root for job in starts.jobs} == {Path("out")}


def test_each_setting_has_its_records_and_shares_the_store(place: Path) -> None:
    """Two settings of the same suite share their records, though they are one schedule."""
    settings = {name: {"suite": "tiny.yaml"} for name in ("one", "two")}
    write(place, settings=settings)
    assert run() == 0
    folder = place / "out" / "studies" / "wide-gate" / "small"
    keys = [{record.key for _, record in read_records(folder / name)} for name in ("one", "two")]
    assert keys[0] == keys[1] and len(keys[0]) == 4
    assert len(list((place / "out" / "records").glob("*/*.json"))) == 4


STATUSES = {"ok": 0, "kept": 0, "off_budget": 0, "invalid": 1, "diverged": 1, "failed": 1}


@pytest.mark.parametrize(("status", "code"), STATUSES.items())
def test_a_study_with_a_broken_cell_ends_with_1(
    place: Path, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    opened(monkeypatch).status = status
    assert study() == code


def test_a_cell_that_breaks_ends_with_1_and_stands_on_the_page(place: Path) -> None:
    write(place, settings={"half": {"suite": "tiny.yaml", "set": {"train.adam_lr": 1e30}}})
    assert run() == 1
    assert "diverged: seeds 0-1" in (place / "out/studies/wide-gate/README.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "Unknown study 'nothing'."),
        (["absent.yaml"], "does not exist"),
        ([], "Name the study to run"),
        (["study.yaml", "--size", "huge"], "Unknown size 'huge'."),
        (["study.yaml", "--official", "--out", "out"], "drop --out"),
    ],
)
def test_what_a_user_gets_wrong_is_told_in_one_line(
    place: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_row_that_a_suite_cannot_run_is_refused_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place, rows=["mlp_gate", {"name": "mlp_gate@wide", "options": {"breadth": 0.5}}])
    assert run() == 2
    assert "breadth" in capsys.readouterr().err
