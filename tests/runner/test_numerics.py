"""The set-up of a process, for cells and for their times."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data import load_corpus
from bench.runner.numerics import fix_numerics
from bench.runner.resume_cell import resume_cell
from bench.speed import measure, memory
from tests import world
from tests.runner.jobs import job


class SetUp(Exception):
    """Ends the work when the process is set up."""


def test_sums_and_kernels_are_those_of_any_machine() -> None:
    torch.use_deterministic_algorithms(False)
    fix_numerics("cpu")
    assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("device", "chosen"), [("cpu", []), ("cuda", []), ("cuda:3", [3])])
def test_a_gpu_with_a_number_becomes_the_present_one(
    device: str, chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr("torch.cuda.set_device", lambda place: seen.append(place.index))
    fix_numerics(device)
    assert seen == chosen


def test_cells_speeds_and_memory_are_measured_in_such_a_process(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, seen = world.cell(text, device="cuda:3"), list[str]()

    def fixed(device: str) -> None:
        seen.append(device)
        raise SetUp

    for module in ("bench.runner.numerics", "bench.speed.measure", "bench.speed.memory"):
        monkeypatch.setattr(f"{module}.fix_numerics", fixed)
    assert "SetUp" in resume_cell(cell, job(tmp_path)).detail
    corpus: Any = load_corpus(cell.suite.data)
    with pytest.raises(SetUp):
        measure.measure_speeds([cell], corpus, 1, 1, "command")
    with pytest.raises(SetUp):
        memory.memory_of(cell)
    assert seen == ["cuda:3"] * 3
