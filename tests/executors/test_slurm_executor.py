"""Slurm jobs, as processes of submitit's local executor. Needs the extra `slurm`."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("submitit")

from bench.errors import UserError
from bench.executors import slurm_executor
from bench.executors.executor import Executor, open_executor
from bench.record import read_record
from bench.runner import schedule
from bench.runner.schedule import run_cells
from tests import world
from tests.runner import conform, dying
from tests.runner.jobs import job, place, run_here

SECONDS = 300.0
"""Longest time to wait for a job, on a busy machine."""


def children_of(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    return [int(child) for child in listed.split()]


def jobs(folder: Path, workers: int = 2) -> Executor:
    return open_executor("slurm", workers, "cpu", {"cluster": "local"}, folder)


def test_what_does_not_fit_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="does not fit submitit"):
        open_executor("slurm", 1, "cpu", {"cluster": "local", "partitoin": "gpu"}, tmp_path)
    with pytest.raises(UserError, match="does not fit submitit"):
        open_executor("slurm", 1, "cpu", {"cluster": "slrum"}, tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no Slurm"):
        open_executor("slurm", 1, "cpu", {}, tmp_path)


def test_jobs_of_this_machine_are_no_more_than_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm_executor, "cores", lambda: 5)
    local, there = {"cluster": "local"}, tmp_path / "there"
    for workers, device, count in ((None, "cpu", 5), (3, "cpu", 3), (None, "cuda", 1)):
        with open_executor("slurm", workers, device, local, there) as executor:
            assert executor.workers == count
    assert capsys.readouterr().err == ""
    with open_executor("slurm", 64, "cpu", local, there) as executor:
        assert executor.workers == 5
    assert capsys.readouterr().err == "--workers is 64: using 5, one per core of this machine\n"
    monkeypatch.setattr("shutil.which", lambda name: name)
    with open_executor("slurm", None, "cpu", {}, there) as executor:
        assert executor.workers == slurm_executor.MOST_JOBS, "nodes have cores of their own"


@pytest.mark.slow
def test_records_are_the_same(text: Path, tmp_path: Path) -> None:
    with jobs(tmp_path / "there") as executor:
        conform.same_records(executor, text, tmp_path)
    assert not (tmp_path / "there" / slurm_executor.LOGS).exists()


@pytest.mark.slow
def test_a_killed_cell_goes_on(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with jobs(tmp_path / "killed") as executor:
        conform.goes_on_from_the_checkpoint(executor, text, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_goes_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, root = world.cell(text), tmp_path / "preempted"
    run_here([cell], job(tmp_path / "whole"), 0)
    monkeypatch.setattr(schedule, "resume_cell", dying.linger_once)
    with jobs(root) as executor, ThreadPoolExecutor(1) as thread:
        running = thread.submit(run_cells, [cell], job(root, checkpoint_seconds=0), executor)
        deadline = time.monotonic() + SECONDS
        while not dying.place_of(cell, root, "began").exists():
            assert time.monotonic() < deadline and not running.done()
            time.sleep(0.2)
        (submitted,) = executor._jobs  # type: ignore[attr-defined]
        # The job is a child of submitit's controller. Slurm signals it and all its processes.
        (task,) = children_of(int(submitted.job_id))
        for process in (*children_of(task), task):
            os.kill(process, signal.SIGUSR2)
        (result,) = running.result()
        assert len(executor._jobs) == 1, "the same job"  # type: ignore[attr-defined]
    assert result.status == "ok"
    assert dying.place_of(cell, root, "resumed").read_text().startswith("True")
    whole, resumed = (read_record(place(cell, one)) for one in (tmp_path / "whole", root))
    assert world.without_clock(whole) == world.without_clock(resumed)
