"""The beats of a running cell, by a clock of the test's own."""

from pathlib import Path

import pytest
import torch

from bench.runner import cell_phase as module
from bench.runner.cell_phase import PULSE, Beat, Pulse, read_beats
from bench.runner.resolve import resolve
from bench.runner.resume_cell import CHECKPOINTS, resume_cell
from tests import world
from tests.runner.jobs import files, job


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    for name in ("time", "monotonic"):
        monkeypatch.setattr(module.time, name, lambda: now[0])
    return now


def beat(folder: Path) -> Beat:
    (found,) = read_beats(folder)
    return found


def test_phases_are_written_and_measured(text: Path, tmp_path: Path, clock: list[float]) -> None:
    cell = world.cell(text)
    pulse = Pulse(cell, tmp_path / f"k{PULSE}")
    assert beat(tmp_path) == Beat(cell.digest, str(cell), "start", 0.0, None, 1000.0, 1000.0)
    clock[0] += 3
    pulse.enter("training")
    pulse.report(0.0, torch.tensor(5.0))
    clock[0] += 40
    pulse.report(0.5, 4.0)
    assert beat(tmp_path) == Beat(cell.digest, str(cell), "training", 0.5, 4.0, 1003.0, 1043.0)
    clock[0] += 40
    pulse.enter("evaluation")
    assert (beat(tmp_path).phase, beat(tmp_path).loss) == ("evaluation", 4.0)
    clock[0] += 7
    assert pulse.timing() == {"start": 3, "backbone": 0, "training": 80, "evaluation": 7}


def test_a_loss_is_read_once_a_second_at_most(
    text: Path, tmp_path: Path, clock: list[float]
) -> None:
    pulse = Pulse(world.cell(text), tmp_path / f"k{PULSE}")
    pulse.enter("training")
    for step in range(100):
        pulse.report(step / 100, float(step))
        clock[0] += 1 / 16
    assert beat(tmp_path).loss == 96.0, "after six whole seconds"


@pytest.mark.parametrize(("resumed_at", "whole"), [(0.25, 100.0), (0.8, None)])
def test_the_training_of_a_resumed_cell_is_scaled_or_not_believed(
    text: Path, clock: list[float], resumed_at: float, whole: float | None
) -> None:
    pulse = Pulse(world.cell(text))
    pulse.enter("training")
    pulse.report(resumed_at, 3.0)
    clock[0] += 75
    found = pulse.timing()
    assert (found and found["training"]) == whole


def test_a_beat_that_cannot_be_written_or_read_costs_nothing(text: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    Pulse(world.cell(text), tmp_path / "file" / "beat").enter("training")
    for name, torn in (("a", "{"), ("b", "[]"), ("c", '{"cell": "of an older version"}')):
        (tmp_path / f"{name}{PULSE}").write_text(torn, encoding="utf-8")
    assert list(read_beats(tmp_path)) == [] == list(read_beats(tmp_path / "nowhere"))


def test_a_cell_beats_in_every_phase_and_leaves_no_file(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[str] = []
    write = Pulse._write

    def noted(self: Pulse, share: float) -> None:
        write(self, share)
        phases.append(beat(tmp_path / CHECKPOINTS).phase)

    monkeypatch.setattr(Pulse, "_write", noted)
    cell = world.cell(text)
    outcome = resume_cell(cell, job(tmp_path))
    assert list(dict.fromkeys(phases)) == ["start", "training", "evaluation"]
    assert outcome.timing is not None
    assert sum(outcome.timing.values()) == pytest.approx(outcome.seconds, rel=0.5)
    assert not [name for name in files(tmp_path) if PULSE in name]
    assert resume_cell(cell, job(tmp_path)).timing is None, "a kept cell took no time"


def test_cells_of_a_run_have_their_own_digests(text: Path) -> None:
    cells = [world.cell(text), world.cell(text, seed=1), world.cell(text, "hash")]
    cells.append(world.cell(text, budget=0.4))
    assert len({cell.digest for cell in cells}) == 4
    assert world.cell(text).digest == cells[0].digest != resolve(cells[0]).key
