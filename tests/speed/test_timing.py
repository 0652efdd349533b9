"""Rounds that alternate, against calls and times written out."""

import pytest
import torch

from bench.speed import timing

CPU = torch.device("cpu")


def test_works_alternate_and_the_first_rounds_are_not_timed(monkeypatch: pytest.MonkeyPatch):
    called: list[str] = []
    clock = 0.0

    def read() -> float:
        return clock

    def work(name: str, cost: float):
        def call() -> None:
            nonlocal clock
            called.append(name)
            # Each later call costs more, so a lost or an extra round shows.
            clock += cost * called.count(name)

        return call

    monkeypatch.setattr(timing.time, "process_time", read)
    found = timing.alternate({"a": work("a", 1.0), "b": work("b", 10.0)}, 2, CPU)
    assert called == ["a", "b"] * (timing.WARM_UP + 2)
    first = timing.WARM_UP + 1
    assert found == {"a": [first, first + 1], "b": [10.0 * first, 10.0 * (first + 1)]}


def test_a_gpu_is_waited_for_and_a_cpu_is_not(monkeypatch: pytest.MonkeyPatch):
    waited: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.synchronize", waited.append)
    for device in (CPU, torch.device("cuda:1")):
        timing.wait_for(device)
    assert waited == [torch.device("cuda:1")]


def test_a_slow_round_slows_both_sides_and_moves_no_ratio():
    quiet = timing.relative([3.0, 3.0, 3.0], [2.0, 2.0, 2.0])
    assert timing.relative([3.0, 30.0, 6.0], [2.0, 20.0, 4.0]) == pytest.approx(quiet) == 1.5
