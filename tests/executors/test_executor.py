"""Executors are opened by name, and wrong options are refused in one line."""

import os
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.errors import UserError
from bench.executors import executor, pool
from bench.executors.executor import EXECUTORS, MODULES, ROOT, open_executor, worker_environment
from bench.executors.pool import Pool


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_a_missing_package_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=rf"needs the package {MODULES[name]}.* '\.\[{name}\]'"):
        open_executor(name, 2, "cpu")  # type: ignore[arg-type]


def test_options_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "find_spec", lambda package: package)
    with pytest.raises(UserError, match="drop it"):
        open_executor("local", 2, "cpu", {"address": "auto"})
    for name in EXECUTORS[1:]:
        with pytest.raises(UserError, match="needs 1 or more"):
            open_executor(name, 0, "cpu")
        with pytest.raises(UserError, match=r"device is 'cuda:1'.*Set it to cuda"):
            open_executor(name, 1, "cuda:1")


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_the_module_of_a_cluster_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The packages are extras, so the module itself may not be importable here.
    monkeypatch.setattr(executor, "find_spec", lambda package: package)
    asked: list[str] = []

    def found(module: str) -> SimpleNamespace:
        asked.append(module)
        return SimpleNamespace(open_cluster=lambda workers, gpu, settings, folder: Pool(workers))

    monkeypatch.setattr(executor, "import_module", found)
    with open_executor(name, 2, "cpu", {"a": 1}) as opened:  # type: ignore[arg-type]
        assert isinstance(opened, Pool) and opened.workers == 2
    assert find_spec(asked[0]) is not None


def test_the_default_is_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "cores", lambda: 3)
    with open_executor("local", 3, "cpu") as opened:
        assert isinstance(opened, Pool) and opened.workers == 3


def test_workers_get_our_sources_first_and_the_cache_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", "cache")
    monkeypatch.setenv("PYTHONPATH", "mine")
    found = worker_environment()
    assert found["PYTHONPATH"] == os.pathsep.join([str(ROOT), "mine"])
    assert found["TOKEN_ROUTING_BENCH_CACHE"] == str(tmp_path / "cache")
    assert found["OMP_NUM_THREADS"] == "1" and (ROOT / "bench/executors/executor.py").is_file()
