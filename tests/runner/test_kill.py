"""A cell that is killed again and again, in every phase of its run, ends like a cell that was left
alone.
"""

import multiprocessing
import random
import signal
from collections import Counter
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from bench.data import load_corpus
from bench.record import read_record, record_path
from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from tests import world
from tests.runner import killed
from tests.runner.killed import PHASES, Kill


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Processes that have torch loaded when they start, so that runs begin at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.runner.killed"])
    return context


def run(
    server: ForkServerContext, cell: Cell, root: Path, cache: Path, kill: Kill | None = None
) -> bool:
    """Run a cell in a process that may kill itself, and say whether it came to its end."""
    killed.forget_phases(root)
    root.mkdir(exist_ok=True)
    process = server.Process(target=killed.run, args=(cell, root, cache, kill))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


def check(server: ForkServerContext, folder: Path, router: str, kills: int) -> None:
    """Kill cells in one phase after another, and let them end, until there were enough kills and
    some in each phase.
    """
    draw = random.Random(router)
    cell = world.cell(world.write_text(folder), router)
    whole, cache = folder / "whole", folder / "cache"
    load_corpus(cell.suite.data, cache)
    assert run(server, cell, whole, cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(cache))
        resolved = resolve(cell)
    cell_id, key = resolved.cell_id, resolved.key
    seconds, open_phases = killed.phases_of(whole)
    assert not open_phases
    expected = world.without_clock(read_record(record_path(whole, cell_id)))
    hit, total = Counter[str](), 0
    for attempt in range(2 * kills):
        root = folder / f"killed-{attempt}"
        for phase in seconds:
            first = draw.randint(
                1, max(1, len(seconds[phase]) // 3)
            )  # a resumed run has fewer calls left
            # At first as a phase begins, which needs no clock, then at any moment of it.
            share = 0.0 if attempt == 0 else draw.uniform(0.0, 0.9)
            kill = Kill(phase, first, share * sum(seconds[phase]) / len(seconds[phase]))
            if run(server, cell, root, cache, kill):
                break
            total += 1
            hit.update(killed.phases_of(root)[1])
        assert run(server, cell, root, cache)
        assert world.without_clock(read_record(record_path(root, cell_id))) == expected
        assert (root / "digest.txt").read_text() == (whole / "digest.txt").read_text()
        left = sorted(path.name for path in root.rglob("*") if path.is_file())
        assert left == sorted(
            ["digest.txt", "seed-0.json", f"{key}.json", f"{key}.details.json.gz"]
        )
        if total >= kills and hit.keys() == seconds.keys():
            break
    assert total >= kills and hit.keys() == seconds.keys(), f"{total} kills: {hit}"
    assert seconds.keys() == PHASES.keys()


def test_a_cell_killed_once_in_each_phase_ends_the_same(
    server: ForkServerContext, tmp_path: Path
) -> None:
    check(server, tmp_path, "adaptive_moe", kills=5)


@pytest.mark.slow
@pytest.mark.parametrize("router", ["adaptive_moe", "mlp_gate", "random@ffn"])
def test_a_cell_killed_at_many_moments_ends_the_same(
    server: ForkServerContext, tmp_path: Path, router: str
) -> None:
    check(server, tmp_path, router, kills=20)
