"""Predict seconds and memory of cells, from records of the same kind of device or from a table.

The seconds of a training are a sum of its FLOPs, its optimiser's work (parameters times steps), its
dispatches to experts and its steps, each with a rate that is at least 0. The rates fit the records.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from bench.errors import UserError
from bench.planning.work import Work, batch_bytes
from bench.record.store import STORE

PEAKS: dict[str, tuple[float, float]] = {
    "v100": (125e12, 15.7e12),
    "a100": (312e12, 19.5e12),
    "l40s": (362e12, 91.6e12),
    "h100": (989e12, 67e12),
    "h200": (989e12, 67e12),
    "b200": (2250e12, 80e12),
}
"""Device -> peak FLOP/s of dense products in 16 bits and in float32, as its maker states them."""
UNKNOWN_GPU = "a100"
"""The GPU whose peak is assumed for a GPU that the table lacks."""
UTILISATION = 0.2
"""Assumed share of the peak that a training reaches, where there are no records."""
CORE_FLOPS = 40e9
"""Assumed FLOP/s of a core in training, where there are no records."""
STEP_SECONDS = 5e-3
"""Assumed least time of a training step on a GPU. A step of `tiny` starts 760 kernels with `dense`
and 2,000 with `top2_moe`, and the start of a kernel takes about 5 us."""
PROCESS_BYTES = 0.7e9
"""Assumed memory of a process on a CPU without the tensors of its cell. The median of the official
records in float32 is 0.55 to 0.88 GB, suite by suite."""
EVALUATION_SHARE = 0.25
"""Assumed time of an evaluation as a share of the training, where there are no records."""
REST_SHARE = 0.25
"""Time of all else in a cell (its start, calibration, monitors, proofs, and the checkpoints) as a
share of training and evaluation. By `provenance.started`, a worker of the official runs of `quick`,
`planted-depth`, `planted-experts` and `rung-1` took 0.21 to 0.31 of their sum for it; of `rung-2`,
with cells of four minutes, 0.09."""
LEAST_ROWS = 5
"""Rows with records that a fit of the rates needs."""


@dataclass(frozen=True)
class Measured:
    """The training of a cell, as its record has it.

    Attributes:
        work: the work that was done.
        seconds: of the training.
        evaluation: seconds of the official evaluation, by the speed of a forward pass.
        memory: peak bytes, if they are known.
        device: device class.
        processor: model of the processor.
        dtype: precision of matrix products.
        stored: bytes of the record.
    """

    work: Work
    seconds: float
    evaluation: float
    memory: float | None
    device: str
    processor: str
    dtype: str
    stored: int


def read_measured(*trees: Path) -> Iterator[Measured]:
    """Yield the trainings of all sound cells in the stores of trees, each record once."""
    seen: set[str] = set()
    for tree in trees:
        for path in sorted((tree / STORE).glob("*/*.json")):
            if path.name in seen:
                continue
            seen.add(path.name)
            # Only figures for planning are read, so a damaged record is passed over.
            try:
                found = _measured(json.loads(path.read_text(encoding="utf-8")), path)
            except (ValueError, KeyError, TypeError, OSError):
                continue
            if found is not None:
                yield found


def _measured(data: dict[str, Any], path: Path) -> Measured | None:
    training, flops, budget = data["training"], data["flops"], data["budget"]
    # A cell that failed has no work to learn from.
    if not (training and flops and budget and training["steps"]):
        return None
    config, speed = data["provenance"]["config"], data["speed"]
    # A record has two files, and both take room on the disk.
    details = path.with_name(f"{path.stem}.details.json.gz")
    vocab_size = config["data"].get("vocab_size", 256)
    work = Work(
        suite=data["cell"]["suite"],
        row=data["cell"]["row"],
        flops=flops["training_total"],
        steps=training["steps"],
        parameters=training["parameters_total"],
        expert_layers=len(budget["routed_layers"]) * bool(budget["expert_width"]),
        batch_bytes=batch_bytes(config, vocab_size),
    )
    # Evaluation is timed per token: its FLOPs over those of a token give its tokens.
    passed = flops["evaluation"] / flops["active"] * speed["forward_us_per_token"] / 1e6
    memory = training["peak_memory_mb"]
    return Measured(
        work=work,
        seconds=training["seconds"],
        evaluation=passed,
        memory=memory and memory * 2**20,
        device=data["provenance"]["device"],
        processor=data["provenance"]["processor"],
        dtype=data["provenance"]["dtype"],
        stored=path.stat().st_size + (details.stat().st_size if details.is_file() else 0),
    )


class Rates:
    """Seconds and memory of cells on one kind of device.

    Args:
        measured: records of that kind of device; may be empty.
        flops_per_second: assumed speed, used where the records do not suffice.
        basis: where the figures come from, for people.
        step_seconds: assumed least time of a training step, used where the records do not suffice.
        process: assumed memory of a process, used where no record has its memory.
    """

    def __init__(
        self,
        measured: Sequence[Measured],
        flops_per_second: float = CORE_FLOPS,
        basis: str = "",
        step_seconds: float = 0.0,
        process: float = PROCESS_BYTES,
    ) -> None:
        self.measured, self.flops_per_second, self.basis = measured, flops_per_second, basis
        self.step_seconds = step_seconds
        rows = {(one.work.suite, one.work.row) for one in measured}
        self._rates = _fit(measured) if len(rows) >= LEAST_ROWS else None
        known = [one.memory - one.work.memory for one in measured if one.memory is not None]
        # The memory of the process itself: libraries, text, and the rest of an earlier cell.
        self._process = median(known) if known else process
        shares = [one.evaluation / one.seconds for one in measured]
        self.evaluation_share = median(shares) if shares else EVALUATION_SHARE

    def training_seconds(self, work: Work) -> float:
        """Return the seconds of a training, by records of its row if there are any."""
        own = [
            one.seconds / one.work.flops
            for one in self.measured
            if (one.work.suite, one.work.row) == (work.suite, work.row)
        ]
        if own:
            return median(own) * work.flops
        if self._rates is None:
            return max(work.flops / self.flops_per_second, work.steps * self.step_seconds)
        return float(_parts(work) @ self._rates)

    def seconds(self, work: Work) -> float:
        """Return the seconds of a cell, from the start of its process to its record."""
        return self.training_seconds(work) * (1 + self.evaluation_share) * (1 + REST_SHARE)

    def pretraining_seconds(self, flops: float) -> float:
        """Return the seconds of a frozen backbone, at the FLOP/s of the whole trainings."""
        if not self.measured:
            return flops / self.flops_per_second
        return flops * median(one.seconds / one.work.flops for one in self.measured)

    def memory(self, work: Work) -> float:
        """Return the peak bytes of a cell."""
        return max(work.memory, work.memory + self._process)

    def stored(self) -> float:
        """Return the bytes of one record."""
        return median([one.stored for one in self.measured]) if self.measured else 20_000.0


def _parts(work: Work) -> NDArray[np.float64]:
    steps = work.steps
    return np.array([work.flops, work.parameters * steps, work.expert_layers * steps, steps])


def _fit(measured: Sequence[Measured]) -> NDArray[np.float64]:
    """Return the seconds per unit of each part of the work, by least squares of relative errors."""
    parts = np.array([_parts(one.work) / one.seconds for one in measured])
    # The columns differ by twelve orders of magnitude, so scale them.
    scale = parts.max(axis=0)
    scale[scale == 0] = 1.0
    return nnls(parts / scale, np.ones(len(parts)))[0] / scale


def rates_for(device: str, dtype: str, measured: Iterable[Measured], processor: str = "") -> Rates:
    """Return the rates of a device: by its records, else by the table of peaks.

    Args:
        device: `cpu`, `cuda`, or a name of the table such as `h100`.
        dtype: precision of matrix products.
        measured: records of any devices.
        processor: model of the processor, whose records are preferred on a CPU.

    Raises:
        UserError: no records and no such device in the table.
    """
    on_cpu, name = device == "cpu", device.lower().removeprefix("cuda:")
    same = [
        one
        for one in measured
        if one.dtype == dtype and (one.device == "cpu") == on_cpu and name in one.device.lower()
    ]
    # Records of the same processor are preferred, if there are any.
    if on_cpu and (own := [one for one in same if one.processor == processor]):
        same = own
    # Rates are fitted over rows, so records of a few rows are not enough.
    if len({one.work.row for one in same}) >= LEAST_ROWS:
        where = sorted({one.processor if on_cpu else one.device for one in same})
        return Rates(same, basis=f"rates of {len(same)} records on {', '.join(where)}")
    if on_cpu:
        said = f"assumed: {CORE_FLOPS:.3g} FLOP/s a core; no records of this device"
        return Rates(same, CORE_FLOPS, said)
    known = next((one for one in PEAKS if one in name), None)
    if known is None and not device.startswith("cuda"):
        raise UserError(
            f"--device is {device!r}: there are no records of it, and no peak is known. Give cpu "
            f"or one of {', '.join(PEAKS)}."
        )
    known = known or UNKNOWN_GPU
    peak = PEAKS[known][0 if dtype == "bfloat16" else 1]
    said = (
        f"assumed: {UTILISATION:.0%} of the {peak:.3g} FLOP/s of {known}, and at least "
        f"{1e3 * STEP_SECONDS:.0f} ms a step; no records of this device"
    )
    # The memory of a GPU holds tensors alone.
    return Rates(same, peak * UTILISATION, said, STEP_SECONDS, process=0.0)
