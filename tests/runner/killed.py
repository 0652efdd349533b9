"""Cells that run in a process of their own, to be killed; imported by the processes, so it holds no test."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench.runner.execute
from bench.runner.cells import Cell
from bench.runner.pool import work
from tests import tiny


def run(cell: Cell, root: Path, cache: Path) -> None:
    """Run a cell with a checkpoint at every step; leave the digest of its final state beside the record before that is written."""
    os.environ["TOKEN_ROUTING_BENCH_CACHE"] = str(cache)
    train = bench.runner.execute.train

    def watched(model: Any, *arguments: Any, **options: Any) -> Any:
        trained = train(model, *arguments, **options)
        state = {name: part.state_dict() for name, part in options["checkpoints"].parts.items()}
        final = tiny.digest([model.decoder.state_dict(), state, replace(trained, seconds=0.0)])
        (root / "digest.txt").write_text(final, encoding="utf-8")
        return trained

    bench.runner.execute.train = watched
    try:
        outcome = work(cell, root, "killed", checkpoint_seconds=0)
    finally:
        bench.runner.execute.train = train
    assert outcome.status in ("ok", "off_budget", "kept"), outcome.detail
