import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from bench.data import load_corpus
from bench.record import read_record, record_path, store_path
from bench.routing.registry import find, load_file
from bench.runner.cells import Cell
from bench.runner.plugins import checks_path
from bench.runner.pool import run_cells
from bench.runner.resolve import resolve
from bench.runner.work import CHECKPOINTS, CellResult, Job, work
from tests import world

ROOT = Path(__file__).parents[2]

PLUGINS = """
import os
import signal
from bench.routing.contract import FFN_GATE, Router
from bench.routing.registry import register
from bench.routing.select import gate_plan


class Base(Router):
    paths = FFN_GATE

    def forward(self, inputs):
        if inputs.hidden.requires_grad and inputs.progress > 0:
            self.harm()
        return gate_plan(inputs.positions % 2 == 0, None)

    def harm(self):
        pass


@register("harmless", family="tests")
class Harmless(Base):
    pass


@register("killed", family="tests")
class Killed(Base):
    def harm(self):
        os.kill(os.getpid(), signal.SIGKILL)


@register("greedy", family="tests")
class Greedy(Base):
    def harm(self):
        raise MemoryError("tried to allocate\\n1 EiB")

"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: Any) -> Iterator[Path]:
    """The tiny corpus, built once for all tests of this file and their processes."""
    folder: Path = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(folder / "cache"))
        path = world.write_text(folder)
        load_corpus(world.suite(path).data)
        yield path


@pytest.fixture
def harmful(tmp_path: Path) -> Iterator[Path]:
    """A file of routers that do harm once training is under way."""
    path = tmp_path / "harmful.py"
    path.write_text(PLUGINS, encoding="utf-8")
    with world.own_registry():
        yield path


def from_plugin(text: Path, plugin: Path, *routers: str) -> list[Cell]:
    return [
        replace(world.cell(text, router), plugin_files=(plugin,), outside=True)
        for router in routers
    ]


def admit(root: Path, *cells: Cell) -> None:
    """Leave word that the checks of these plugins found nothing, so that they need not run."""
    for cell in cells:
        (file,) = cell.plugin_files
        load_file(file)
        path = checks_path(find(cell.row.router), cell.row.options, root)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[]", encoding="utf-8")


def job(root: Path, command: str = "c", **changes: Any) -> Job:
    return Job(root, root, command, **changes)


def place(cell: Cell, root: Path) -> Path:
    """Where the reference to the cell's record lies."""
    return record_path(root, resolve(cell).cell_id)


def kept(cell: Cell, root: Path) -> Path:
    """Where the record itself lies."""
    return store_path(root, resolve(cell).key)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_record_of_the_same_key_is_kept_untouched(text: Path, tmp_path: Path) -> None:
    cell = world.cell(text)
    first = work(cell, job(tmp_path, "first"))
    before = kept(cell, tmp_path).read_bytes()
    second = work(cell, job(tmp_path, "second"))
    assert (first.status, second.status) == ("ok", "kept")
    assert first.detail == second.detail
    assert kept(cell, tmp_path).read_bytes() == before
    key = resolve(cell).key
    assert files(tmp_path) == [
        f"records/{key[:2]}/{key}.details.json.gz",
        f"records/{key[:2]}/{key}.json",
        "tiny/mlp_gate/b50-flops/seed-0.json",
    ]


def test_two_trees_share_a_store_and_a_cell_is_run_once(text: Path, tmp_path: Path) -> None:
    """As the settings of a study do with the board of their suite."""
    cell, study = world.cell(text), tmp_path / "studies" / "s" / "small"
    work(cell, job(tmp_path, "board"))
    assert work(cell, Job(study, tmp_path, "study")).status == "kept"
    assert read_record(place(cell, study)).provenance.command == "board"


def test_other_conditions_are_said_and_the_first_are_found_again(
    text: Path, tmp_path: Path
) -> None:
    one = world.cell(text)
    other = world.cell(text, train={"reference_tokens": 512, "batch_size": 4, "probes": 2})
    assert place(one, tmp_path) == place(other, tmp_path)
    work(one, job(tmp_path, "one"))
    before = kept(one, tmp_path).read_bytes()
    second = work(other, job(tmp_path, "other"))
    assert second.status == "ok" and "made under other conditions" in second.detail
    assert read_record(place(one, tmp_path)).key == resolve(other).key
    third = work(one, job(tmp_path, "again"))
    assert third.status == "kept" and kept(one, tmp_path).read_bytes() == before
    assert read_record(place(one, tmp_path)).key == resolve(one).key


def test_an_edited_record_is_told_of_and_left_alone(text: Path, tmp_path: Path) -> None:
    cell = world.cell(text)
    path = kept(cell, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("{}", encoding="utf-8")
    outcome = work(cell, job(tmp_path, "again"))
    assert outcome.status == "crashed" and str(path) in outcome.detail
    assert path.read_text(encoding="utf-8") == "{}"


def test_what_a_killed_run_left_is_tidied(text: Path, tmp_path: Path) -> None:
    cell = world.cell(text)
    path = kept(cell, tmp_path)
    path.parent.mkdir(parents=True)
    (path.parent / f".{path.name}.abc123").write_text("half a rec", encoding="utf-8")
    assert work(cell, job(tmp_path, "again")).status == "ok"
    assert not list(path.parent.glob(".*"))


def test_a_cell_in_other_hands_is_left_to_them_and_seen_to_at_the_end(
    text: Path, tmp_path: Path
) -> None:
    first, second = world.cell(text), world.cell(text, seed=1)
    lock = FileLock(tmp_path / CHECKPOINTS / f"{resolve(first).key}.lock")
    seen: list[str] = []

    def report(outcome: CellResult) -> None:
        seen.append(f"{outcome.cell} {outcome.status}")
        lock.release(force=True)

    (tmp_path / CHECKPOINTS).mkdir()
    with lock:
        assert work(first, job(tmp_path, "now"), wait=False).status == "busy"
        run_cells([first, second], job(tmp_path, "both"), 0, report)
    assert seen == ["mlp_gate seed 1 ok", "mlp_gate seed 0 ok"]


def test_two_runs_on_one_tree_share_the_cells(text: Path, tmp_path: Path) -> None:
    suite = world.write_suite(tmp_path / "suite.yaml", text, rows=["mlp_gate", "hash"])
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "bench",
        "run",
        "--suite",
        str(suite),
        "--seeds",
        "2",
        "--workers",
        "0",
        "--out",
        str(out),
    ]
    runs = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    words = Counter(
        word for output in outputs for word in output.split() if word in ("ok", "kept", "crashed")
    )
    assert words == {"ok": 4, "kept": 4}, outputs
    assert sum(path.name.startswith("seed-") for path in out.rglob("*.json")) == 4


@pytest.mark.slow
def test_processes_do_as_one_process_does(text: Path, tmp_path: Path) -> None:
    cells = [world.cell(text, router) for router in ("mlp_gate", "hash")]
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    run_cells(cells, job(inside, "c"), 0)
    run_cells(cells, job(outside, "c"), 2)
    for cell in cells:
        assert world.without_clock(read_record(place(cell, inside))) == world.without_clock(
            read_record(place(cell, outside))
        )


def test_a_cell_whose_process_dies_takes_no_other_with_it(
    text: Path, tmp_path: Path, harmful: Path
) -> None:
    cells = from_plugin(text, harmful, "killed", "harmless")
    admit(tmp_path / "out", *cells)
    outcomes = {
        outcome.cell.row.name: outcome
        for outcome in run_cells(cells, job(tmp_path / "out", "c"), 1)
    }
    assert outcomes["killed"].status == "crashed" and "process died" in outcomes["killed"].detail
    assert outcomes["harmless"].status in ("ok", "off_budget")
    assert not place(cells[0], tmp_path / "out").exists()


def test_memory_and_divergence_are_said_in_one_line(
    text: Path, tmp_path: Path, harmful: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.runner.run_cell.checks_of", lambda *_: ())
    (greedy,) = from_plugin(text, harmful, "greedy")
    diverging = world.cell(text)
    diverging = replace(diverging, row=diverging.row.model_copy(update={"lr_scale": 1e38}))
    lack, nan = (work(cell, job(tmp_path)) for cell in (greedy, diverging))
    assert lack.status == "failed" and lack.detail.startswith(
        "MemoryError: tried to allocate 1 EiB (harmful.py:"
    )
    assert nan.status == "diverged" and nan.detail == "The training loss is not finite."
    assert read_record(place(diverging, tmp_path)).status == "diverged"
    assert work(diverging, job(tmp_path, "c")).status == "kept", "it would diverge again"


def test_a_failure_in_another_run_meanwhile_is_not_repeated(text: Path, tmp_path: Path) -> None:
    # a budget out of reach
    first, failing = world.cell(text), world.cell(text, seed=1, budget=0.01)
    path = place(failing, tmp_path)
    work(failing, job(tmp_path, "before"))
    seen: list[str] = []

    def report(outcome: CellResult) -> None:
        if not seen:  # the other run, while this one is at its first cell
            work(failing, job(tmp_path, "beside"))
        seen.append(outcome.status)

    run_cells([first, failing], job(tmp_path, "both"), 0, report)
    assert seen == ["ok", "failed"]
    assert read_record(path).provenance.command == "beside"
    run_cells([failing], job(tmp_path, "after"), 0)
    assert read_record(path).provenance.command == "after"


def test_a_place_that_cannot_be_written_is_said_in_one_line(text: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    outcome = work(world.cell(text), job(tmp_path / "file", "c"))
    assert (
        outcome.status == "crashed"
        and "NotADirectoryError" in outcome.detail
        and "\n" not in outcome.detail
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_said_in_one_line(text: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    outcome = work(world.cell(text), job(tmp_path / "out", "c"))
    tmp_path.chmod(0o700)
    assert (
        outcome.status == "crashed"
        and "PermissionError" in outcome.detail
        and "\n" not in outcome.detail
    )


def test_the_disk_is_full_when_the_record_is_written(
    text: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    cell = world.cell(text)
    with monkeypatch.context() as patch:
        patch.setattr("bench.files.os.fdopen", full)
        outcome = work(cell, job(tmp_path, "c", checkpoint_seconds=0))
    assert (
        outcome.status == "crashed"
        and "No space left on device" in outcome.detail
        and "\n" not in outcome.detail
    )
    assert not kept(cell, tmp_path).exists()
    assert not list(kept(cell, tmp_path).parent.glob(".*"))
    assert work(cell, job(tmp_path, "c")).status == "ok", "goes on from the last checkpoint"
