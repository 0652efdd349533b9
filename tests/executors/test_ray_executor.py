"""A Ray cluster of several local nodes. Needs the extra `ray`."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.cluster_utils import Cluster

from bench.errors import UserError
from bench.executors.executor import Executor, open_executor
from bench.record import read_record
from bench.runner import schedule
from bench.runner.schedule import run_cells
from tests import world
from tests.runner import conform, dying
from tests.runner.jobs import job, place, run_here

pytestmark = [
    pytest.mark.slow,
    # Ray's own threads, sockets and futures.
    pytest.mark.filterwarnings("ignore"),
]
SECONDS = 300.0
"""Longest time to wait for a task, on a busy machine."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores and two nodes with one each, as processes of this machine."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def test_a_cluster_is_started_here_and_gives_each_cell_a_process_with_its_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the cluster of the other tests. The GPUs exist in the books of Ray alone."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with open_executor("ray", 64, "cuda", {"num_cpus": 1, "num_gpus": 1}) as executor:
        assert executor.workers == 1
        assert executor.run(os.getpid) != executor.run(os.getpid), "no context on a GPU is kept"
    said = capsys.readouterr().err.splitlines()
    assert "--workers is 64: using 1, one per GPU of the Ray cluster" in said


def open_ray(cluster: Any, workers: int | None = None) -> Executor:
    return open_executor("ray", workers, "cpu", {"address": cluster.address})


def test_all_cores_of_the_cluster_are_used_or_fewer(cluster: Any) -> None:
    with open_ray(cluster) as executor:
        assert executor.workers == 2
    with open_ray(cluster, 1) as executor:
        assert executor.workers == 1
    with pytest.raises(UserError, match="no GPU"):
        open_executor("ray", None, "cuda", {"address": cluster.address})
    with pytest.raises(UserError, match="No Ray cluster"):
        open_executor("ray", None, "cpu", {"adress": "auto"})


def test_records_are_the_same(cluster: Any, text: Path, tmp_path: Path) -> None:
    with open_ray(cluster) as executor:
        conform.same_records(executor, text, tmp_path)


def test_a_killed_cell_goes_on(
    cluster: Any, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ray(cluster) as executor:
        conform.goes_on_from_the_checkpoint(executor, text, tmp_path, monkeypatch)


def test_cells_of_a_dead_node_go_on_elsewhere(
    cluster: Any, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [world.cell(text), world.cell(text, "hash")]
    lost, killed, whole = cells[0], tmp_path / "killed", tmp_path / "whole"
    run_here(cells, job(whole), 0)
    monkeypatch.setattr(schedule, "resume_cell", dying.linger_once)
    # The other cell runs through, on its own node.
    dying.place_of(cells[1], killed, "began").parent.mkdir(parents=True)
    dying.place_of(cells[1], killed, "began").touch()
    with open_ray(cluster) as executor, ThreadPoolExecutor(1) as thread:
        running = thread.submit(run_cells, cells, job(killed, checkpoint_seconds=0), executor)
        deadline = time.monotonic() + SECONDS
        while not (began := dying.place_of(lost, killed, "began")).exists():
            assert time.monotonic() < deadline and not running.done()
            time.sleep(0.2)
        dead = began.read_text()
        (node,) = (one for one in cluster.worker_nodes if one.node_id == dead)
        cluster.remove_node(node, allow_graceful=False)
        results = running.result()
    assert {result.status for result in results} == {"ok"}, results
    resumed, node_id = dying.place_of(lost, killed, "resumed").read_text().split()
    assert resumed == "True" and node_id != dead
    for cell in cells:
        one, other = (read_record(place(cell, root)) for root in (whole, killed))
        assert world.without_clock(one) == world.without_clock(other)
