"""The display of a run, by a clock of the test's own: on a terminal, narrow, plain and piped."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.commands.progress import Progress, beat_line, in_words, shortened_name
from bench.runner.cell_phase import PULSE, Beat
from bench.runner.cells import Cell
from bench.runner.resume_cell import CellResult, resume_cell
from tests import world
from tests.runner.jobs import PLUGINS, admit, from_plugin, job

ROOT = Path(__file__).parents[2]
SECONDS = {"start": 0.0, "backbone": 0.0, "training": 30.0, "evaluation": 10.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("bench.commands.progress.time.time", lambda: now[0])
    return now


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person looks at the terminal, not a CI."""
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def cells(folder: Path, count: int) -> list[Cell]:
    return [world.cell(folder / "text.jsonl", seed=seed) for seed in range(count)]


def progress(
    folder: Path, planned: Sequence[Cell], terminal: bool = False, **options: Any
) -> tuple[Progress, io.StringIO]:
    world.write_text(folder)
    written = io.StringIO()
    shown = Console(**{"file": written, "force_terminal": terminal, "width": 200} | options)
    return Progress(shown, planned, folder, folder, workers=1), written


def finish(cell: Cell, status: str = "ok") -> CellResult:
    timing = None if status in ("kept", "failed") else SECONDS
    return CellResult(cell, status, "2.5 nats a byte", 40.0, timing)  # type: ignore[arg-type]


def leave_beat(folder: Path, cell: Cell, name: str = "", **changes: Any) -> None:
    values = {"phase": "training", "share": 0.25, "loss": 3.0, "since": 1000.0, "written": 1000.0}
    beat = Beat(digest=cell.digest, cell=name or str(cell), **values | changes)
    (folder / f"{cell.digest}{PULSE}").write_text(json.dumps(asdict(beat)), encoding="utf-8")


def test_each_cell_is_a_line_at_its_start_and_end(tmp_path: Path, clock: list[float]) -> None:
    planned = cells(tmp_path, 4)
    shown, written = progress(tmp_path, planned)
    with shown:
        shown(finish(planned[0], "kept"))
        for cell in (planned[1], planned[1], planned[2]):
            shown.starting(cell)
        shown(finish(planned[1]))
        shown(finish(planned[2], "failed"))
        shown(finish(planned[3]))
    lines = written.getvalue().splitlines()
    first = "time left: after the first cell"
    assert [line.split()[0] for line in lines] == ["1/4", *["mlp_gate"] * 2, "2/4", "3/4", "4/4"]
    assert "left" not in lines[0], "a kept cell took no time, and changes nothing"
    assert lines[1].endswith(f"mlp_gate seed 1              started     ({first})")
    assert lines[3].endswith("2.5 nats a byte  (time left: about 80 s)"), "two cells of 40 s"
    assert lines[4].endswith("(time left: about 40 s)")
    assert "left" not in lines[5]


def test_a_record_that_is_known_beforehand_is_no_start_and_no_time(
    tmp_path: Path, clock: list[float]
) -> None:
    planned = cells(tmp_path, 3)
    world.write_text(tmp_path)
    resume_cell(planned[2], job(tmp_path))
    shown, written = progress(tmp_path, planned)
    with shown:
        shown(finish(planned[0]))
        shown.starting(planned[2])
    assert written.getvalue().count("\n") == 1
    assert shown.time_left() == "time left: about 40 s", "one cell, since the other is kept"


@pytest.mark.usefixtures("person")
@pytest.mark.parametrize(("width", "line"), [
    (80, " random@experts-1.2 seed 0    training    25% loss 3.0000"),
    (40, " random@ex..1.2 seed 0 train  25%  3.000"),
])  # fmt: skip
def test_the_display_fits_its_terminal(
    tmp_path: Path, clock: list[float], width: int, line: str
) -> None:
    planned = cells(tmp_path, 5)
    shown, _ = progress(tmp_path, planned, terminal=True, width=width)
    for cell, status in zip(planned, ("kept", "ok", "failed"), strict=False):
        shown(finish(cell, status))
    leave_beat(tmp_path, planned[3], "random@experts-1.2 seed 0")
    leave_beat(tmp_path, planned[4], phase="evaluation", share=0.0, loss=2.0)
    record = Console(record=True, width=width, file=io.StringIO())
    record.print(shown.running())
    lines = record.export_text().splitlines()
    assert all(len(line) <= width and line.isascii() for line in lines)
    head = " ".join(" ".join(lines[:-2]).split())
    assert "5 cells: 2 done (1 failed), 1 kept, 2 left" in head
    assert "time left: about" in head
    assert lines[-2].rstrip() == line
    assert "mlp_gate seed 4" in lines[-1] and "eval" in lines[-1]


def test_beats_of_others_are_passed_over(tmp_path: Path, clock: list[float]) -> None:
    planned = cells(tmp_path, 3)
    shown, _ = progress(tmp_path, planned[:2])
    leave_beat(tmp_path, planned[0])
    leave_beat(tmp_path, planned[1], written=999.0)  # by a run that was killed
    leave_beat(tmp_path, planned[2])  # of another run
    (tmp_path / f"torn{PULSE}").write_text("{", encoding="utf-8")
    assert list(shown.beats()) == [planned[0].digest]
    shown(finish(planned[0], "crashed"))
    assert not shown.beats(), "its process died and left the file"


@pytest.mark.parametrize("width", range(1, 120, 7))
def test_a_line_is_as_wide_as_the_terminal_at_most(width: int) -> None:
    beat = Beat("", "a_router_of_a_long_name seed 0 router 3", "evaluation", 0.0, 12.3456, 0.0, 0.0)
    assert len(beat_line(beat, width)) <= max(width, 27)


def test_a_name_is_cut_in_its_middle() -> None:
    assert shortened_name("random@experts-1.2 seed 10", 16) == "random@..seed 10"
    assert shortened_name("mlp seed 1", 12) == "mlp seed 1  "


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5300, "88 min"), (9000, "2.5 h")],
)
def test_times_are_said_in_a_fitting_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.usefixtures("person")
@pytest.mark.parametrize(
    ("changes", "live"),
    [({}, True), ({"CI": "true"}, False), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_the_display_changes_only_before_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], live: bool
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    planned = cells(tmp_path, 1)
    shown, written = progress(tmp_path, planned, terminal=True)
    with shown:
        shown.starting(planned[0])
        shown(finish(planned[0]))
    assert ("\x1b[2K" in written.getvalue()) is live
    assert ("started" in written.getvalue()) is not live


PRINTS = PLUGINS.replace("    def harm(self):\n        pass", """    def harm(self):
        import sys
        print("said by the plugin")
        print("and to stderr", file=sys.stderr)""")  # fmt: skip


@pytest.mark.usefixtures("person")
def test_a_plugin_that_prints_stands_above_the_display(tmp_path: Path) -> None:
    """Run on a pseudo-terminal of 60 columns. The screen at the end holds whole lines alone."""
    text, file = world.write_text(tmp_path), tmp_path / "plugin.py"
    suite = world.write_suite(tmp_path / "tiny.yaml", text)
    file.write_text(PRINTS, encoding="utf-8")
    (tmp_path / "runs").mkdir()
    with world.own_registry():
        admit(tmp_path / "runs", *from_plugin(text, file, "harmless"))
    command = ["run", "--suite", str(suite), "--plugin", "plugin.py", "--routers", "harmless"]
    output = on_terminal(tmp_path, *command, "--seeds", "1", "--workers", "1")
    lines = screen(output)
    assert "said by the plugin" in lines and "and to stderr" in lines
    assert any(line.startswith("   1/1     harmless seed 0") for line in lines)
    assert not any("cells:" in line or "time left" in line for line in lines), "it is transient"


def on_terminal(place: Path, *arguments: str) -> str:
    """Run short cells with a terminal as stdout and stderr, and return all that is written to it.

    Its workers, and the processes of its plugins, are new ones.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.short", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "LINES": "30"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            found = os.read(ours, 65536)
        except OSError:  # the terminal has no other end any more
            break
        if not found:
            break
        written += found
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()


def screen(output: str) -> list[str]:
    """Return the lines that a terminal shows at the end."""
    lines: dict[int, str] = {}
    row = column = 0
    for code, text in re.findall(r"(\x1b\[[0-9;?]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", output):
        if text:
            before = lines.get(row, "").ljust(column)
            lines[row] = before[:column] + text + before[column + len(text) :]
            column += len(text)
        elif code in "\r\n":
            row, column = row + (code == "\n"), 0
        elif code.endswith("A"):
            row -= int(code[2:-1])
        elif code.endswith("K"):
            lines[row] = ""
    return [lines[number].rstrip() for number in sorted(lines)]
