"""Kept weights give the same model again, to the last bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import Diverged, UserError
from bench.evaluation.evaluate import evaluate
from bench.record import Record, read_record
from bench.runner.fill_record import provenance_of
from bench.runner.probes import cut
from bench.runner.resolve import resolve
from bench.runner.resume_cell import resume_cell
from bench.runner.run_cell import evaluate_cell, train_cell
from bench.runner.weights import keep_weights, load_model, weights_path
from tests import world
from tests.runner.jobs import files, job, kept

ROWS: list[dict[str, Any]] = [
    {"name": "mod", "options": {"causal": "quantile"}},
    {"name": "top2_moe", "options": {"balance": "sign_bias"}},
    {"name": "top2_moe", "training": {"balance_bias": 0.01, "noise": "noisy_top_k"}},
    {"name": "expert_threshold"},
    {"name": "surprisal"},
    {"name": "jepa_gate"},
    {"name": "partially_supervised", "options": {"inner": "adaptive_moe", "share": 0}},
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_a_model_comes_back_to_the_last_bit(
    text: Path, tmp_path: Path, row: dict[str, Any]
) -> None:
    cell = world.cell(text, row["name"], rows=[row])
    resolved = resolve(cell)
    trained = train_cell(resolved)
    expected = evaluate_cell(resolved, trained).headline.evaluation.nats
    before = trained.model.decoder.state_dict()
    keep_weights(trained.model.decoder, tmp_path, resolved.key)
    provenance = provenance_of(resolved, "command", "today")
    record = Record(
        key=resolved.key,
        status="ok",
        cell=resolved.cell_id,
        row=cell.row,
        provenance=provenance,
    )
    found = load_model(record, tmp_path)
    after = found.model.decoder.state_dict()
    assert before.keys() == after.keys() and not found.remarks
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    windows = cut(resolved, "validation", cell.suite.evaluation.validation_windows)
    again = evaluate(found.model, windows, cell.suite.evaluation.batch_size).nats
    assert (again == expected).all()


def test_a_run_keeps_weights_on_request_alone_and_trains_again_for_them(
    text: Path, tmp_path: Path
) -> None:
    cell = world.cell(text)
    assert resume_cell(cell, job(tmp_path)).status == "ok"
    record = read_record(path := kept(cell, tmp_path))
    before = path.read_bytes()
    with pytest.raises(UserError, match="No weights of mlp_gate seed 0 are kept"):
        load_model(record, tmp_path)
    assert resume_cell(cell, job(tmp_path, keep_weights=True)).status == "kept"
    # The record stays as it was, and the folder is named by its key.
    assert path.read_bytes() == before
    folder = weights_path(tmp_path, record.key)
    assert folder.name == record.key and (folder / "weights.safetensors").is_file()
    written = files(folder)
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    assert resume_cell(cell, job(tmp_path, keep_weights=True)).status == "kept"
    assert files(folder) == written and (folder / "manifest.json").stat().st_mtime_ns == stamp
    found = load_model(record, tmp_path).model
    windows = cut(resolve(cell), "validation", cell.suite.evaluation.validation_windows)
    spent = evaluate(found, windows, 4).active / found.solution.target
    assert spent == pytest.approx(record.budget.validation_spend if record.budget else None)


def test_a_training_for_the_weights_that_breaks_is_no_kept_cell(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise Diverged("The loss is not finite.")

    cell = world.cell(text)
    resume_cell(cell, job(tmp_path))
    before = (path := kept(cell, tmp_path)).read_bytes()
    monkeypatch.setattr("bench.runner.run_cell.train", broken)
    found = resume_cell(cell, job(tmp_path, keep_weights=True))
    assert (found.status, found.detail, found.bad) == ("diverged", "The loss is not finite.", True)
    assert path.read_bytes() == before, "the record stays"
    assert resume_cell(cell, job(tmp_path)).status == "kept"


def test_damaged_weights_and_a_changed_router_are_told_of(text: Path, tmp_path: Path) -> None:
    cell = world.cell(text)
    resume_cell(cell, job(tmp_path, keep_weights=True))
    record = read_record(kept(cell, tmp_path))
    provenance = record.provenance.model_copy(update={"router_hash": "other"})
    other = record.model_copy(update={"provenance": provenance})
    (remark,) = load_model(other, tmp_path).remarks
    assert "'mlp_gate' has changed since commit" in remark
    file = weights_path(tmp_path, record.key) / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"cannot be used .*does not match its digest"):
        load_model(record, tmp_path)


def test_a_full_disk_costs_the_weights_and_not_the_record(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.runner.weights.write_state", full)
    cell = world.cell(text)
    assert resume_cell(cell, job(tmp_path, keep_weights=True)).status == "ok"
    assert "No space left on device. The record is kept." in caplog.text
    assert read_record(kept(cell, tmp_path)).status == "ok"
