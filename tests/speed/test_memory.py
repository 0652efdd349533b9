"""The peak memory of training steps, against a count of every allocation by hand."""

import os
import signal
from pathlib import Path

import pytest
import torch

from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from bench.speed import memory
from bench.speed.memory import measure_memory
from bench.speed.subject import Subject
from tests import world

MIB = 2**20


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    text = world.write_text(tmp_path)
    return [world.cell(text, "random@ffn", seq_len=length) for length in (32, 64)]


@pytest.mark.usefixtures("forked")
def test_weights_are_in_the_peak_and_activations_grow_with_the_text(cells: list[Cell]) -> None:
    said: list[str] = []
    short, long = (measure_memory([cell], said.append)["random@ffn"] for cell in cells)
    assert said == ["memory of random@ffn"] * 2
    decoder = Subject(resolve(cells[0])).model.decoder
    weights = sum(p.numel() * 4 for p in decoder.parameters()) / MIB
    # Weights, their gradients, a momentum of each; and the logits of a step with their gradient.
    logits = 2 * 4 * 32 * decoder.config.vocab_size * 4 / MIB
    assert short.tensors_mb > 3 * weights + logits
    # All but those is twice as large at twice the length.
    steps = short.tensors_mb - 3 * weights
    assert 1.6 * steps < long.tensors_mb - 3 * weights < 2.2 * steps
    assert short.process_mb is not None and short.process_mb > short.tensors_mb


def killed(_: Cell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("forked")
def test_a_row_whose_process_died_has_no_figure(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(memory, "memory_of", killed)
    assert measure_memory(cells[:1], said.append) == {}
    assert said[1:] == ["memory of random@ffn: unknown, because its process died"]


def test_the_peak_is_the_most_bytes_that_lived_at_one_time(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(resolved: object) -> None:
        before = torch.zeros(3 * MIB, dtype=torch.uint8)  # larger than any step, and before them
        del before
        kept = torch.zeros(MIB, dtype=torch.uint8)
        with torch.profiler.record_function(memory.STEPPING):
            for _ in range(3):
                second = torch.zeros(MIB // 2, dtype=torch.uint8)
                del second
        del kept

    monkeypatch.setattr(memory, "_train", work)
    found = memory.memory_of(cells[0])
    assert found.tensors_mb == pytest.approx(1.5, abs=0.01)
