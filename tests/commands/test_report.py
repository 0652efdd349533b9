"""The page that `bench report` writes, and where."""

from pathlib import Path

import pytest

from bench.cli import main
from bench.record.speed import write_speed
from tests.record.test_speed import speed_run


def test_the_page_lies_in_the_tree_or_where_it_is_wanted_and_is_opened_on_request(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    write_speed(speed_run(processor="a timed processor"), runs)
    assert main(["report", "--results", str(runs)]) == 0
    page = (runs / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>") and "mlp_gate" in page
    assert "a timed processor" in page
    assert not opened
    assert main(["report", "--results", str(runs), "--out", "page.html", "--open"]) == 0
    assert Path("page.html").read_text(encoding="utf-8") == page
    assert opened == [Path("page.html").resolve().as_uri()]


def test_a_place_that_cannot_be_written_is_told_in_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "report.html").mkdir()
    assert main(["report", "--results", str(runs)]) == 2
    told = capsys.readouterr().err
    assert "'runs/report.html' cannot be written" in told and "give another --out" in told
    assert told.count("\n") == 1
