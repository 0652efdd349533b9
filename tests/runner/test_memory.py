"""Peak memory is that of what was measured, whatever the process held before."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.runner import memory
from bench.runner.memory import PeakMemory

CPU = torch.device("cpu")
LARGE = 200  # MiB


def use(megabytes: int) -> None:
    np.ones(megabytes * 2**17).sum()


def test_an_earlier_high_water_mark_is_not_the_next_cells_own() -> None:
    first = PeakMemory(CPU)
    use(LARGE)
    large = first.megabytes()
    second = PeakMemory(CPU)
    use(1)
    small = second.megabytes()
    assert large is not None
    # unknown is right where the system cannot forget; a number must be the smaller one's own
    assert small is None if not second.forgotten else small and large - small > LARGE / 2


def test_where_the_system_cannot_forget_only_a_new_peak_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path)  # a folder: it cannot be written
    before = PeakMemory(CPU)
    use(LARGE)
    after = before.megabytes()
    again = PeakMemory(CPU)
    use(1)
    assert not again.forgotten and again.megabytes() is None
    assert after is None or after >= LARGE


@pytest.mark.parametrize(("platform", "unit"), [("linux", 2**10), ("darwin", 2**20)])
def test_the_unit_of_the_system(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    class Usage:
        ru_maxrss = 7 * unit

    monkeypatch.setattr(memory.sys, "platform", platform)
    monkeypatch.setattr(memory.resource, "getrusage", lambda _: Usage())
    assert memory._highest() == 7
