"""The executors of this machine."""

import os
from pathlib import Path

import pytest

from bench.executors import pool
from bench.executors.executor import WorkerDied
from bench.executors.pool import InProcess, Pool, local_executor
from tests.runner import conform

pytestmark = pytest.mark.usefixtures("forked")


def test_records_are_the_same(text: Path, tmp_path: Path) -> None:
    with local_executor(2) as executor:
        conform.same_records(executor, text, tmp_path)


def test_a_killed_cell_goes_on(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with local_executor(1) as executor:
        conform.goes_on_from_the_checkpoint(executor, text, tmp_path, monkeypatch)


def test_a_process_is_kept_until_it_ran_a_plugin_or_died() -> None:
    with Pool(1) as executor:
        first = executor.run(os.getpid)
        assert executor.run(os.getpid, fresh=True) == first != os.getpid()
        second = executor.run(os.getpid)
        with pytest.raises(WorkerDied, match="out of memory, or killed"):
            executor.run(os._exit, 3)
        assert len({first, second, executor.run(os.getpid)}) == 3


def test_this_process_runs_all_but_plugins() -> None:
    with InProcess() as executor:
        assert executor.run(os.getpid) == os.getpid() != executor.run(os.getpid, fresh=True)


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "gpus", lambda: ["GPU-a", "3"])
    with local_executor(8, "cuda") as executor:
        assert executor.workers == 2, "no second cell on a GPU"
        seen = [executor.run(os.getenv, "CUDA_VISIBLE_DEVICES") for _ in range(2)]
    assert seen == ["GPU-a", "3"]
    assert local_executor(None, "cuda").workers == 2
    assert local_executor(8, "cuda:1").workers == 1


def test_there_are_no_more_processes_than_cores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "cores", lambda: 5)
    assert local_executor(None).workers == 5 and local_executor(3).workers == 3
    assert capsys.readouterr().err == ""
    assert local_executor(64).workers == 5
    assert capsys.readouterr().err == "--workers is 64: using 5, one per core of this machine\n"


def test_every_process_has_one_thread() -> None:
    with Pool(1) as executor:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        assert [executor.run(os.getenv, name) for name in names] == ["1", "1"]
