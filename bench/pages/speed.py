"""Show the files of `bench speed` as tables, on the console and in the report."""

from typing import Any

from bench.board.text import MISSING, percent
from bench.record.speed import SpeedRun

Table = tuple[list[str], list[list[str]]]
"""Titles of the columns, and the lines."""


def title(run: SpeedRun) -> str:
    """Return the conditions of a run in one line."""
    precision = f"{run.dtype}, compiled" if run.compiled else run.dtype
    sizes = f"{run.backbone}, {run.batch_size} x {run.seq_len} tokens a step"
    machine = f"{run.device}, {run.processor}, {run.threads} thread{'s' * (run.threads > 1)}"
    return f"{run.suite}: {sizes}, {precision}, {machine}, {run.rounds} rounds by {run.clock}"


def tables(run: SpeedRun) -> list[Table]:
    """Return all tables of a run: each kind of work, memory, decoding, parts, yardsticks."""
    kinds = dict.fromkeys(kind for row in run.rows for kind in row.works)
    works = [work_table(run, kind) for kind in kinds]
    decoding = [decode_table(run)] if run.decoding else []
    memory = [memory_table(run)] if any(row.memory for row in run.rows) else []
    return [*works, *memory, *decoding, part_table(run), yardstick_table(run)]


def work_table(run: SpeedRun, kind: str) -> Table:
    """Return the time and the FLOPs of one kind of work, divided by those of the reference.

    The last column is time over executed FLOPs, and both include the optimiser of a step.
    """
    works = {row.row: row.works[kind] for row in run.rows if kind in row.works}
    header = [kind, "ms", f"time / {run.reference}", "active FLOPs", "executed FLOPs"]
    # Only a training step has an optimiser.
    optimised = any(work.optimizer for work in works.values())
    reference_flops = works[run.reference].executed + works[run.reference].optimizer
    lines: list[list[str]] = []
    for name, work in works.items():
        figures = [work.relative, work.active, work.executed, *[work.optimizer] * optimised]
        # Muon pays by parameters, so a row with many experts has more FLOPs than it executes.
        figures.append(work.relative / ((work.executed + work.optimizer) / reference_flops))
        lines.append([name, f"{work.milliseconds:.2f}", *(f"{one:.2f}" for one in figures)])
    return [*header, *["optimiser FLOPs"] * optimised, "time over FLOPs"], lines


def memory_table(run: SpeedRun) -> Table:
    """Return the peak memory of training steps: of the tensors alone, and of the process."""
    found = {row.row: row.memory for row in run.rows if row.memory}
    base = found[run.reference]
    header = ["memory of a step", "tensors MiB", f"/ {run.reference}", "process MiB"]
    lines: list[list[str]] = []
    for name, one in found.items():
        ratio = f"{one.tensors_mb / base.tensors_mb:.2f}"
        process = MISSING if one.process_mb is None else f"{one.process_mb:.0f}"
        lines.append([name, f"{one.tensors_mb:.1f}", ratio, process])
    return header, lines


def decode_table(run: SpeedRun) -> Table:
    """Return the decoding of each row against the reference at the same batch size."""
    header = ["decoding", "batch", "tokens/s", "± %", f"speed / {run.reference}", "FLOPs", "cache"]
    header += ["cache kB", "reserved kB", "router kB"]
    base = {one.batch: one for one in run.decoding if one.row == run.reference}
    lines: list[list[str]] = []
    for one in run.decoding:
        other = base[one.batch]
        lines.append(
            [
                one.row,
                str(one.batch),
                f"{one.tokens_per_second:.0f}",
                f"{100 * one.spread:.1f}",
                f"{one.tokens_per_second / other.tokens_per_second:.2f}",
                f"{one.flops / other.flops:.2f}",
                f"{one.cache_bytes / other.cache_bytes:.2f}",
                f"{one.cache_bytes / 1e3:.1f}",
                f"{one.reserved_bytes / 1e3:.1f}",
                f"{one.router_bytes / 1e3:.1f}",
            ]
        )
    return header, lines


def part_table(run: SpeedRun) -> Table:
    """Return the shares of the parts of a training step."""
    parts = list(dict.fromkeys(part for row in run.rows for part in row.parts))
    lines = [[row.row, *(percent(row.parts.get(part), 1) for part in parts)] for row in run.rows]
    return ["share of a step", *parts], lines


def yardstick_table(run: SpeedRun) -> Table:
    """Return the yardsticks."""
    lines = [[one.name, f"{one.value:.3g}", one.unit] for one in run.yardsticks]
    return ["yardstick", "value", "unit"], lines


def section(run: SpeedRun) -> dict[str, Any]:
    """Return the values that the report shows of a run."""
    made = [f"{run.command}", f"commit {run.commit[:12]}" + " with uncommitted changes" * run.dirty]
    versions = [f"{name} {version}" for name, version in sorted(run.versions.items())]
    return {
        "name": run.name,
        "title": title(run),
        "made": ", ".join([*made, run.started, *versions]),
        "tables": tables(run),
    }
