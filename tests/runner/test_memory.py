"""Peak memory counts the measured work alone, not the earlier memory of the process."""

import ctypes
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.record import read_record
from bench.runner import memory
from bench.runner.isolation import in_fresh_process
from bench.runner.memory import PeakMemory
from bench.runner.resume_cell import resume_cell
from tests import world
from tests.runner.jobs import job, place

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


def test_a_small_cell_after_a_large_one_states_its_own_peak(text: Path, tmp_path: Path) -> None:
    """Both run in one process, as in one worker."""
    peaks: list[float | None] = []
    for batch_size in (4, 512, 4):
        train = {"reference_tokens": 1024, "batch_size": batch_size, "probes": 2}
        cell = world.cell(
            text, "dense_matched", seed=len(peaks), train=train, rows=["dense_matched"]
        )
        assert resume_cell(cell, job(tmp_path)).status == "ok"
        training = read_record(place(cell, tmp_path)).training
        assert training is not None
        peaks.append(training.peak_memory_mb)
    before, large, after = peaks
    if PeakMemory(CPU).forgotten:
        assert before and large and after
        assert large - max(before, after) > LARGE
    else:
        assert after is None, "unknown where the system cannot forget the large one"


def test_memory_of_a_gpu_is_that_of_its_tensors_since_the_cell_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, peak = torch.device("cuda", 1), {"cuda:1": 900 * 2**20}
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda of: peak.update({str(of): 5 * 2**20})
    )
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda of: peak[str(of)])
    assert PeakMemory(device).megabytes() == 5


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


def count_faults() -> tuple[int, int]:
    """Count new pages of memory that is used again: by glibc's default, and with memory kept."""

    def use() -> None:
        _ = [torch.ones(megabytes * 2**18) for megabytes in (1, 4, 16)]

    def faults() -> int:
        for _ in range(5):
            use()
        start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            use()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

    # Without thresholds of their own, small blocks teach the allocator to keep large ones, so the
    # first count gives them the documented defaults.
    libc = ctypes.CDLL(None)
    libc.mallopt(memory.MMAP_THRESHOLD, 128 * 1024)
    libc.mallopt(memory.TRIM_THRESHOLD, 128 * 1024)
    first = faults()
    memory.keep_freed_memory()
    return first, faults()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no allocator of glibc")
@pytest.mark.usefixtures("forked")
def test_kept_memory_is_used_again_without_new_pages() -> None:
    by_default, kept = in_fresh_process(count_faults)
    # A page has 4 KiB, and each time 21 MiB are used.
    assert by_default > 20 * 21 * 256 / 2 > 10 * kept
