import multiprocessing
import random
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from bench.data import load_corpus
from bench.record import Record
from tests import tiny
from tests.runner import killed


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Processes that have torch loaded when they start, so that the kills fall into the run and not into imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.runner.killed"])
    return context


def run(server: ForkServerContext, arguments: tuple[Any, ...], limit: float | None = None) -> bool:
    """Run a cell in a process, kill it after `limit` seconds, and say whether it came to its end."""
    process = server.Process(target=killed.run, args=arguments)
    process.start()
    process.join(limit)
    if alive := process.is_alive():
        process.kill()
        process.join()
    else:
        assert process.exitcode == 0
    return not alive


def check(server: ForkServerContext, folder: Path, router: str, kills: int) -> None:
    """Kill a cell again and again until it is through, and begin anew until there were enough kills."""
    draw = random.Random(router)
    cell = tiny.cell(tiny.write_text(folder), router)
    whole, cache = folder / "whole", folder / "cache"
    whole.mkdir()
    load_corpus(cell.suite.data, cache)
    started = time.monotonic()
    assert run(server, (cell, whole, cache))
    duration = time.monotonic() - started
    expected = tiny.without_clock(Record.read(cell.path(whole)))
    attempt = 0
    while kills > 0:
        attempt += 1
        root = folder / f"killed-{attempt}"
        root.mkdir()
        while not run(server, (cell, root, cache), draw.uniform(0.05, 0.6 * duration) if kills > 0 else None):
            kills -= 1
        assert tiny.without_clock(Record.read(cell.path(root))) == expected
        assert (root / "digest.txt").read_text() == (whole / "digest.txt").read_text()
        left = sorted(path.name for path in root.rglob("*") if path.is_file())
        assert left == ["digest.txt", "seed-0.json"], "nothing is left lying about"


def test_a_cell_killed_at_five_moments_ends_the_same(server: ForkServerContext, tmp_path: Path) -> None:
    check(server, tmp_path, "adaptive_moe", kills=5)


@pytest.mark.slow
@pytest.mark.parametrize("router", ["adaptive_moe", "mlp_gate", "random@ffn"])
def test_a_cell_killed_at_many_moments_ends_the_same(server: ForkServerContext, tmp_path: Path, router: str) -> None:
    check(server, tmp_path, router, kills=20)
