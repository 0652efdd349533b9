"""Measure a suite's rows: all alternate in one process, step by step."""

import datetime
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import torch

from bench.data import Corpus
from bench.evaluation.evaluate import window_tensors
from bench.record.speed import DecodeSpeed, RowSpeed, SpeedRun, Work, Yardstick
from bench.runner.cells import Cell
from bench.runner.numerics import fix_numerics
from bench.runner.provenance import commit_state, processor
from bench.runner.resolve import resolve
from bench.speed.decode import measure_decode
from bench.speed.memory import measure_memory
from bench.speed.parts import shares
from bench.speed.plain import plain_step
from bench.speed.subject import PROGRESS, Cost, Subject
from bench.speed.timing import alternate, clock_name, relative
from bench.speed.yardsticks import expert_layers, median_ms, peaks, rates

PLAIN = "plain loop"
PROFILED = 5
"""Steps of each row that are divided among their parts."""

Seconds = dict[str, list[float]]


def measure_speeds(
    cells: Sequence[Cell],
    corpus: Corpus,
    rounds: int,
    windows: int,
    command: str,
    decode: bool = False,
    memory: bool = False,
    told: Callable[[str], None] = lambda text: None,
) -> SpeedRun:
    """Time the rows of some cells and the yardsticks.

    Args:
        cells: one cell for each row, all of one suite. The others are compared with the first.
        corpus: the text of the suite.
        rounds: timed calls of each work of each row.
        windows: validation windows of an evaluation, for each domain.
        command: the command line, for the file.
        decode: whether to time decoding too.
        memory: whether to measure the peak memory of training steps too.
        told: called with the name of each part of the work.
    """
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    told(f"preparing {len(cells)} rows")
    subjects = _subjects(cells, corpus)
    reference = cells[0].row.name
    told("training steps")
    works = {"step": _steps(subjects, reference, rounds)}
    told("evaluations")
    works["evaluation"] = _evaluations(subjects, rounds, windows)
    if decode:
        told("decoding")
    decoding = _decoding(subjects, reference, rounds) if decode else []
    told("parts of a step")
    rows = [_row(name, one, works, reference) for name, one in subjects.items()]
    if memory:
        memories = measure_memory(cells, told)
        rows = [row.model_copy(update={"memory": memories.get(row.row)}) for row in rows]
    told("yardsticks")
    return SpeedRun(
        **_about(subjects[reference]),
        command=command,
        started=started,
        rounds=rounds,
        reference=reference,
        rows=tuple(rows),
        yardsticks=tuple(_yardsticks(subjects[reference], *works["step"], reference, rounds)),
        decoding=tuple(decoding),
    )


def _subjects(cells: Sequence[Cell], corpus: Corpus) -> dict[str, Subject]:
    """Return the rows by name, in a process that is set up as for the cells of a run."""
    fix_numerics(cells[0].suite.device)
    return {cell.row.name: Subject(resolve(cell, corpus)) for cell in cells}


def _steps(
    subjects: dict[str, Subject], reference: str, rounds: int
) -> tuple[Seconds, dict[str, Cost]]:
    """Time a training step of each row, and of the plain loop of the reference."""
    dense = subjects[reference]
    config = dense.resolved.cell.suite.train
    plain, step = plain_step(dense.model.decoder, config, dense.dtype), count()
    works: dict[str, Callable[[], object]] = {name: one.step for name, one in subjects.items()}
    # The plain loop draws its batches as the others do.
    works[PLAIN] = lambda: plain(torch.from_numpy(dense.order.batch(next(step), PROGRESS).tokens))
    seconds = alternate(works, rounds, dense.loop.device)
    return seconds, {name: one.cost_of_step() for name, one in subjects.items()}


def _evaluations(
    subjects: dict[str, Subject], rounds: int, windows: int
) -> tuple[Seconds, dict[str, Cost]]:
    """Time a causal evaluation of each row at the budget."""
    # The rows have been trained for some steps, and no later step moves a knob's spend.
    for one in subjects.values():
        one.calibrate()
        one.set_windows(windows)
    device = next(iter(subjects.values())).loop.device
    works = {name: one.evaluation for name, one in subjects.items()}
    seconds = alternate(works, rounds, device)
    return seconds, {name: one.cost_of_evaluation() for name, one in subjects.items()}


def _decoding(subjects: dict[str, Subject], reference: str, rounds: int) -> list[DecodeSpeed]:
    """Time the decoding of validation text, after a prompt of a quarter of a sequence."""
    dense = subjects[reference]
    tokens, tags = window_tensors(dense.windows, dense.loop.device)
    # The last token of a window is a target only.
    models = {name: one.model for name, one in subjects.items()}
    prompt = tags.shape[1] // 4
    return measure_decode(models, tokens[:, :-1], prompt, tags, repeats=rounds, dtype=dense.dtype)


def _row(
    name: str, one: Subject, works: dict[str, tuple[Seconds, dict[str, Cost]]], reference: str
) -> RowSpeed:
    """Return the figures of one row, and the parts of its step."""
    return RowSpeed(
        row=name,
        works={kind: _work(*found, name, reference) for kind, found in works.items()},
        parts=shares(one.step, one.model.decoder, PROFILED),
    )


def _work(seconds: Seconds, costs: dict[str, Cost], name: str, reference: str) -> Work:
    """Return the figures of one kind of work of a row."""
    own, other = costs[name], costs[reference]
    return Work(
        milliseconds=median_ms(seconds[name]),
        relative=relative(seconds[name], seconds[reference]),
        active=own.active / other.active,
        executed=own.executed / other.executed,
        optimizer=own.optimizer / other.executed,
    )


def _yardsticks(
    dense: Subject, seconds: Seconds, costs: dict[str, Cost], reference: str, rounds: int
) -> list[Yardstick]:
    """Return the yardsticks, and what the reference reaches of them in a training step."""
    suite, device = dense.resolved.cell.suite, dense.loop.device
    tokens = suite.train.batch_size * suite.seq_len
    found = peaks(rounds, device)
    peak = next(one.value for one in found if one.name.endswith(suite.dtype))
    # Both did the same steps on the same batches.
    plain = relative(seconds[PLAIN], seconds[reference])
    flops = costs[reference].active * tokens
    return [
        *rates(median_ms(seconds[reference]), flops, plain, peak),
        *found,
        *expert_layers(dense.model.decoder.config, tokens, dense.dtype, rounds, device),
    ]


def _about(dense: Subject) -> dict[str, Any]:
    """Return the conditions of a run."""
    suite, machine = dense.resolved.cell.suite, dense.resolved.machine
    commit, dirty = commit_state()
    return {
        "suite": suite.name,
        "backbone": suite.backbone,
        "batch_size": suite.train.batch_size,
        "seq_len": suite.seq_len,
        "compiled": suite.compile,
        "processor": processor(),
        "commit": commit,
        "dirty": dirty,
        "clock": clock_name(dense.loop.device),
        **machine,
    }
