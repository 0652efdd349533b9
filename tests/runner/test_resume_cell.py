"""One cell and its record: kept, replaced, refused or failed, and said in one line."""

import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.ranks import World
from bench.record import read_record
from bench.runner.cells import plan_cells
from bench.runner.resolve import resolve
from bench.runner.resume_cell import Job, resume_cell
from tests import world
from tests.runner.jobs import files, from_plugin, job, kept, place


def test_a_record_of_the_same_key_is_kept_untouched(text: Path, tmp_path: Path) -> None:
    cell = world.cell(text)
    first = resume_cell(cell, job(tmp_path, "first"))
    before = kept(cell, tmp_path).read_bytes()
    second = resume_cell(cell, job(tmp_path, "second"))
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
    resume_cell(cell, job(tmp_path, "board"))
    assert resume_cell(cell, Job(study, tmp_path, "study")).status == "kept"
    assert read_record(place(cell, study)).provenance.command == "board"


def test_router_seeds_of_a_row_have_a_record_each_and_the_first_is_found_again(
    text: Path, tmp_path: Path
) -> None:
    resume_cell(world.cell(text), job(tmp_path, "before"))
    several = world.suite(text, rows=[{"name": "mlp_gate", "router_seeds": [0, 2]}])
    first, further = plan_cells(several, several.rows, [0])
    assert [resume_cell(one, job(tmp_path)).status for one in (first, further)] == ["kept", "ok"]
    assert [resume_cell(one, job(tmp_path)).status for one in (first, further)] == ["kept", "kept"]
    places = [place(one, tmp_path) for one in (first, further)]
    assert [path.name for path in places] == ["seed-0.json", "seed-0-router-2.json"]
    made = [read_record(path) for path in places]
    assert [one.row.router_seed for one in made] == [0, 2]
    assert made[0].provenance.command == "before" and made[0].loss != made[1].loss


def test_other_conditions_are_said_and_the_first_are_found_again(
    text: Path, tmp_path: Path
) -> None:
    one = world.cell(text)
    other = world.cell(text, train={"reference_tokens": 512, "batch_size": 4, "probes": 2})
    assert place(one, tmp_path) == place(other, tmp_path)
    resume_cell(one, job(tmp_path, "one"))
    before = kept(one, tmp_path).read_bytes()
    second = resume_cell(other, job(tmp_path, "other"))
    assert second.status == "ok" and "made under other conditions" in second.detail
    assert read_record(place(one, tmp_path)).key == resolve(other).key
    third = resume_cell(one, job(tmp_path, "again"))
    assert third.status == "kept" and kept(one, tmp_path).read_bytes() == before
    assert read_record(place(one, tmp_path)).key == resolve(one).key


def test_an_edited_record_is_told_of_and_left_alone(text: Path, tmp_path: Path) -> None:
    cell = world.cell(text)
    path = kept(cell, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("{}", encoding="utf-8")
    outcome = resume_cell(cell, job(tmp_path, "again"))
    assert outcome.status == "crashed" and str(path) in outcome.detail
    assert path.read_text(encoding="utf-8") == "{}"


def test_what_a_killed_run_left_is_tidied(text: Path, tmp_path: Path) -> None:
    cell = world.cell(text)
    path = kept(cell, tmp_path)
    path.parent.mkdir(parents=True)
    (path.parent / f".{path.name}.abc123").write_text("half a rec", encoding="utf-8")
    assert resume_cell(cell, job(tmp_path, "again")).status == "ok"
    assert not list(path.parent.glob(".*"))


def test_memory_and_divergence_are_said_in_one_line(
    text: Path, tmp_path: Path, harmful: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.runner.run_cell.checks_of", lambda *_: ())
    (greedy,) = from_plugin(text, harmful, "greedy")
    diverging = world.cell(text)
    diverging = replace(diverging, row=diverging.row.model_copy(update={"lr_scale": 1e38}))
    lack, nan = (resume_cell(cell, job(tmp_path)) for cell in (greedy, diverging))
    assert lack.status == "failed" and lack.detail.startswith(
        "MemoryError: tried to allocate 1 EiB (harmful.py:"
    )
    assert nan.status == "diverged" and nan.detail == "The training loss is not finite."
    assert read_record(place(diverging, tmp_path)).status == "diverged"
    assert resume_cell(diverging, job(tmp_path, "c")).status == "kept", "it would diverge again"


def test_a_place_that_cannot_be_written_is_said_in_one_line(text: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    outcome = resume_cell(world.cell(text), job(tmp_path / "file", "c"))
    assert (
        outcome.status == "crashed"
        and "Not a directory" in outcome.detail
        and "\n" not in outcome.detail
    )


def test_an_error_of_the_system_in_a_cell_ends_all_ranks(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are in the middle of the cell, where no answer of this rank reaches them."""

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(World, "here", World(0, 2))
    monkeypatch.setattr("bench.ranks.from_first", lambda value: value)
    monkeypatch.setattr("bench.runner.run_cell.train_cell", broken)
    with pytest.raises(RuntimeError, match="Input/output error"):
        resume_cell(world.cell(text, parallel="ddp", ranks=2), job(tmp_path))
    # In the way of the record it concerns this rank alone.
    (tmp_path / "file").write_text("", encoding="utf-8")
    before = resume_cell(world.cell(text, parallel="ddp", ranks=2), job(tmp_path / "file"))
    assert before.status == "crashed" and "cannot keep a record" in before.detail


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_said_in_one_line(text: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    outcome = resume_cell(world.cell(text), job(tmp_path / "out", "c"))
    tmp_path.chmod(0o700)
    assert (
        outcome.status == "crashed"
        and "Permission denied" in outcome.detail
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
        outcome = resume_cell(cell, job(tmp_path, "c", checkpoint_seconds=0))
    assert (outcome.status, outcome.detail) == (
        "crashed",
        f"cannot keep a record in {str(tmp_path)!r} (No space left on device); "
        "mend that and run the same command to resume",
    )
    assert not kept(cell, tmp_path).exists()
    assert not list(kept(cell, tmp_path).parent.glob(".*"))
    assert resume_cell(cell, job(tmp_path, "c")).status == "ok", "goes on from the last checkpoint"


def test_a_full_disk_is_said_before_the_training(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = world.cell(text)
    resolve(cell)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        patch.setattr("bench.runner.run_cell.train", lambda *_, **__: pytest.fail("was trained"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, limits[1]))
        try:
            outcome = resume_cell(cell, job(tmp_path, "c"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert outcome.status == "crashed" and "(File too large)" in outcome.detail
    assert not list(tmp_path.rglob("*.json"))
    assert resume_cell(cell, job(tmp_path, "c")).status == "ok"
