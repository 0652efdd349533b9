"""The command line on several ranks: the launch is read, refused in one line, and shares cells."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from bench.commands.parallel import KINDS, Launch
from bench.config.suite import SuiteConfig
from bench.errors import UserError
from bench.ranks import world as world_of_ranks
from bench.record import Record, read_record
from tests import world
from tests.ranks import on_ranks

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "1",
}


@pytest.fixture
def suite(tmp_path: Path) -> SuiteConfig:
    return world.suite(world.write_text(tmp_path))


def test_the_launch_is_that_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    assert Launch.read() == Launch()
    monkeypatch.setenv("RANK", "1")
    assert Launch.read() == Launch(), "another launcher's variable says nothing"
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert Launch.read() == Launch(rank=1, size=2, local=1)


def test_a_launch_fixes_ranks_and_kind(suite: SuiteConfig) -> None:
    two = Launch(0, 2)
    assert two.overrides(None, suite) == {"parallel": "ddp", "ranks": 2}
    assert two.overrides("fsdp", suite) == {"parallel": "fsdp", "ranks": 2}
    sharded = suite.model_copy(update={"parallel": "fsdp"})
    assert two.overrides(None, sharded) == {"parallel": "fsdp", "ranks": 2}
    assert Launch().overrides(None, suite) == {}


def test_ranks_without_torchrun_are_refused(suite: SuiteConfig) -> None:
    with pytest.raises(UserError, match=r"--parallel is 'fsdp', and this is one process.*torchrun"):
        Launch().overrides("fsdp", suite)
    with pytest.raises(UserError, match=r"ranks is 2, and this is one process"):
        Launch().overrides(None, suite.model_copy(update={"ranks": 2}))


def test_ranks_take_no_executor_but_their_own_processes() -> None:
    assert Launch().executor("ray", 3) == ("ray", 3)
    assert Launch(0, 2).executor("local", 3) == ("local", 0)
    with pytest.raises(UserError, match=r"--executor is 'ray', and torchrun has started 2 ranks"):
        Launch(0, 2).executor("ray", None)


def refused(suite: SuiteConfig) -> str:
    """Start two ranks on a machine with one GPU, and return the error of this rank."""
    rank = world_of_ranks().rank
    with patch("torch.cuda.device_count", lambda: 1):
        try:
            Launch(rank, 2, rank).overrides(None, suite)
        except UserError as error:
            return str(error)
    return ""


def test_a_rank_without_a_gpu_is_refused_by_all(suite: SuiteConfig) -> None:
    """Rank 0 has a GPU, and it alone prints."""
    for said in on_ranks(refused, suite.model_copy(update={"device": "cuda"})):
        assert "fewer GPUs than ranks; that of rank 0 has 1, for 2 ranks" in said


def test_other_ranks_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Launch(1, 2).console().print("second")
    Launch(0, 2).console().print("first")
    assert capsys.readouterr().out == "first\n"


def command(folder: Path, *more: str, ranks: int = 2) -> list[str]:
    suite = str(folder / "suite.yaml")
    run = ["run", "--suite", suite, "--seeds", "1", "--out", str(folder / "out"), *more]
    if ranks == 1:
        return [sys.executable, "-m", "bench", *run, "--workers", "0"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, f"--nproc-per-node={ranks}", "-m", "bench", *run]


def start(folder: Path, *more: str, **options: Any) -> "subprocess.Popen[str]":
    environment = os.environ | {
        "TOKEN_ROUTING_BENCH_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        command(folder, *more, **options),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def records(folder: Path) -> dict[str, Record]:
    found = map(read_record, (folder / "out" / "records").glob("*/*.json"))
    return {record.cell.row: record for record in found}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_give_the_record_of_one_process_also_after_a_kill(tmp_path: Path, kind: str) -> None:
    """Compare two ranks that were killed once with one process, for a router and its control."""
    text = world.write_text(tmp_path)
    found: dict[int, dict[str, Record]] = {}
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        world.write_suite(folder / "suite.yaml", text, rows=["top2_moe"])
        more = () if ranks == 1 else ("--parallel", kind, "--checkpoint-seconds", "0")
        if ranks == 2:
            killed = start(folder, *more)
            while killed.poll() is None and not list(folder.glob("out/.checkpoints/*/step-*3")):
                time.sleep(0.02)
            # torchrun ends its ranks, which do not get to do anything more.
            killed.terminate()
            killed.communicate()
            assert not records(folder), "the run was killed before its first record"
        process = start(folder, *more, ranks=ranks)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        assert said.count("top2_moe seed 0              ok") == 1, "one rank prints"
        found[ranks] = records(folder)
        assert not list(folder.glob("out/.checkpoints/*/step-*")), "checkpoints are cleared"
    assert found[1].keys() == found[2].keys() and len(found[1]) == 2
    for row, alone in found[1].items():
        shared = found[2][row]
        assert shared.key != alone.key
        assert shared.provenance.config["parallel"] == kind
        assert shared.provenance.config["ranks"] == 2 and "ranks" not in alone.provenance.config
        assert shared.loss == pytest.approx(alone.loss, abs=1e-5)
        assert shared.flops is not None and alone.flops is not None
        assert shared.flops.training == pytest.approx(alone.flops.training, rel=1e-12)
        for ours, theirs in zip(shared.curve, alone.curve, strict=True):
            assert ours.loss == pytest.approx(theirs.loss, abs=1e-5)
