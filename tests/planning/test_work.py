"""The work of a cell, against the record of the cell that was run."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.data import load_corpus
from bench.planning.work import batch_bytes, work_of
from bench.record import read_record
from bench.runner.resume_cell import resume_cell
from tests import world
from tests.runner.jobs import job, place


@pytest.mark.parametrize("router", ["mlp_gate", "hash", "dense"])
def test_flops_steps_and_parameters_are_those_of_the_record(
    text: Path, tmp_path: Path, router: str
) -> None:
    cell = world.cell(text, router)
    if router == "dense":  # on as many tokens as the others have
        cell = replace(cell, row=cell.row.model_copy(update={"role": "bracket"}))
    resume_cell(cell, job(tmp_path))
    record = read_record(place(cell, tmp_path))
    assert record.flops is not None and record.training is not None
    work = work_of(cell, load_corpus(cell.data))
    # A training ends with the step that spends its budget, so it is a step too long at most.
    step = work.flops / work.steps
    assert 0 <= record.flops.training_total - work.flops <= 1.2 * step
    assert record.training.steps - work.steps == pytest.approx(0.5, abs=0.8)
    assert work.parameters == record.training.parameters_total
    assert (work.expert_layers > 0) == (router == "hash")
    assert work.memory > 16 * work.parameters and work.checkpoints == 24 * work.parameters


def test_a_step_of_more_tokens_or_ids_keeps_more(text: Path) -> None:
    suite = world.suite(text).canonical()
    double = {**suite, "train": {**suite["train"], "batch_size": 2 * suite["train"]["batch_size"]}}
    assert batch_bytes(double, 256) == 2 * batch_bytes(suite, 256)
    assert batch_bytes(suite, 512) > batch_bytes(suite, 256)
    assert batch_bytes({**suite, "dtype": "bfloat16"}, 256) < batch_bytes(suite, 256)
