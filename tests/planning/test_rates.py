"""Rates, from trainings whose seconds follow a rule of the test's own."""

import random
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.planning.rates import (
    CORE_FLOPS,
    UTILISATION,
    Measured,
    Rates,
    rates_for,
    read_measured,
)
from bench.planning.work import Work
from bench.runner.resume_cell import resume_cell
from tests import world
from tests.runner.jobs import job


def work(row: str, flops: float = 1e12, parameters: float = 3e5, experts: int = 0) -> Work:
    return Work("s", row, flops, 340.0, parameters, experts, batch_bytes=5e7)


def seconds(done: Work) -> float:
    """The rule: 50 GFLOP/s, an optimiser, dispatches to experts, and a time for each step."""
    steps = done.steps
    return done.flops / 5e10 + steps * (1e-8 * done.parameters + 2e-3 * done.expert_layers + 0.01)


def measured(done: Work, noise: float = 1.0, device: str = "cpu") -> Measured:
    took = noise * seconds(done)
    memory = 7e8 + done.memory
    return Measured(done, took, took / 10, memory, device, "made up", "float32", 20_000)


def grid(noise: float = 0.0, device: str = "cpu") -> list[Measured]:
    draw = random.Random(0)
    return [
        measured(
            work(f"row{number}", draw.uniform(5e11, 3e12), draw.uniform(2e5, 8e5), number % 3),
            draw.uniform(1 - noise, 1 + noise),
            device,
        )
        for number in range(12)
    ]


def test_the_rule_is_found_and_holds_for_another_row() -> None:
    rates, other = Rates(grid()), work("other", 7e12, 1e6, 3)
    assert rates.training_seconds(other) == pytest.approx(seconds(other), rel=1e-6)
    # An evaluation takes a tenth of the training, and all else a quarter of both.
    assert rates.seconds(other) == pytest.approx(1.25 * 1.1 * seconds(other), rel=1e-6)
    assert rates.memory(other) == pytest.approx(7e8 + other.memory)
    assert rates.stored() == 20_000


def test_a_row_with_records_is_predicted_from_them() -> None:
    slow = measured(work("slow"), noise=3.0)
    rates = Rates([*grid(), slow])
    twice = work("slow", flops=2e12)
    assert rates.training_seconds(twice) == pytest.approx(2 * slow.seconds)


def test_a_device_without_records_is_assumed_and_says_so() -> None:
    for device, dtype, peak in (
        ("h100", "bfloat16", 989e12),
        ("cuda:NVIDIA H100 80GB HBM3", "float32", 67e12),
        ("cuda:made up", "bfloat16", 312e12),
    ):
        rates = rates_for(device, dtype, grid())
        assert "assumed" in rates.basis and not rates.measured
        expected = 1e15 / (UTILISATION * peak)
        assert rates.training_seconds(work("a", 1e15)) == pytest.approx(expected)
        assert rates.pretraining_seconds(1e15) == pytest.approx(expected)
    assert rates_for("cpu", "float32", []).training_seconds(work("a")) == 1e12 / CORE_FLOPS
    with pytest.raises(UserError, match=r"--device is 'k80'.*Give cpu or one of"):
        rates_for("k80", "float32", [])


def test_a_small_cell_without_records_takes_the_time_and_memory_of_its_surroundings() -> None:
    small = work("a", flops=1e9)
    gpu, cpu = rates_for("h100", "bfloat16", []), rates_for("cpu", "float32", [])
    assert gpu.training_seconds(small) == pytest.approx(340 * 5e-3), "340 steps of kernels"
    assert cpu.training_seconds(small) == 1e9 / CORE_FLOPS
    assert gpu.memory(small) == small.memory, "the memory of the GPU, not of the process"
    assert cpu.memory(small) == pytest.approx(0.7e9 + small.memory)


def test_records_of_the_device_and_the_processor_are_preferred() -> None:
    own, other = grid(), [measured(one.work, 5.0) for one in grid(device="cuda:NVIDIA H100")]
    gpu = grid(device="cuda:NVIDIA H100")
    assert rates_for("h100", "float32", [*own, *gpu]).measured == gpu
    assert "assumed" in rates_for("h100", "bfloat16", [*own, *gpu]).basis
    assert len(rates_for("cpu", "float32", [*own, *gpu, *other], "made up").measured) == 24
    assert len(rates_for("cpu", "float32", own, "another").measured) == 12


def test_records_are_read_once_and_damaged_ones_passed_over(text: Path, tmp_path: Path) -> None:
    resume_cell(world.cell(text), job(tmp_path))
    (path,) = (tmp_path / "records").glob("*/*.json")
    (found,) = read_measured(tmp_path, tmp_path)
    assert found.work.row == "mlp_gate" and found.seconds > 0 and found.evaluation > 0
    assert found.stored > path.stat().st_size
    path.write_text("{", encoding="utf-8")
    assert not list(read_measured(tmp_path))
