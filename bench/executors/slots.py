"""Count the cores and GPUs that this process may use, within the limit of its container."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from bench.errors import UserError


def cores() -> int:
    """Return the number of cores that this process may use, within the limit of its container."""
    if count := getattr(os, "process_cpu_count", None):  # Python 3.13
        found = count() or 1
    elif hasattr(os, "sched_getaffinity"):
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count() or 1
    # A container often sees all cores of its machine and may use only some.
    quota = cpu_quota()
    return found if quota is None else max(1, min(found, round(quota)))


def at_most(slots: int, workers: int | None, slot: str) -> int:
    """Return the number of workers to start: one per slot, or fewer if asked for.

    Two cells on one core or GPU would only slow each other down and take memory. A larger number is
    lowered, with a line on stderr.

    Args:
        slots: number of cores or GPUs for cells.
        workers: the number asked for; None for all slots.
        slot: name of a slot, for the line.
    """
    if workers is None or workers <= slots:
        return workers or slots
    print(f"--workers is {workers}: using {slots}, one per {slot}", file=sys.stderr, flush=True)
    return slots


def cpu_quota(system: Path = Path("/")) -> float | None:
    """Return the processor time that this process may use, in cores, or None without a limit.

    A process lies in a group of a tree of control groups, and each group on the way to the root may
    have a limit. The least one holds.

    Args:
        system: folder that holds `proc` and `sys`.
    """
    return min((quota for group in _groups(system) for quota in _quotas(group)), default=None)


def _groups(system: Path) -> Iterator[Path]:
    """Yield the folders of the groups of this process, each up to the root of its tree."""
    mounted = system / "sys" / "fs" / "cgroup"
    places = {(mounted, "/"), (mounted / "cpu", "/")}
    with suppress(OSError, ValueError):
        for line in (system / "proc" / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            # Version 2 has no controllers (`0::/group`); in version 1 each has a tree of its own.
            _, controllers, group = line.split(":", 2)
            if not controllers:
                places.add((mounted, group))
            elif "cpu" in controllers.split(","):
                places |= {(mounted / name, group) for name in (controllers, "cpu")}
    for tree, group in places:
        # In a container this may be a path of the machine. Groups that do not exist have no limit.
        path = PurePosixPath(group.lstrip("/"))
        yield from (tree / part for part in (path, *path.parents))


def _quotas(group: Path) -> Iterator[float]:
    """Yield the limit of a group, in cores, if it has one."""
    # Version 2 has one file, version 1 has two.
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
            text = " ".join((group / name).read_text(encoding="ascii") for name in names)
            limit, period = map(int, text.split())
            if limit > 0:
                yield limit / period


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        UserError: there is none.
    """
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise UserError(
            "device is 'cuda', and this machine has no GPU. Set it to cpu, or use another machine."
        )
    # A scheduler may have given this process some of the GPUs, under their own names.
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in given.split(",") if name.strip()]
    return names[:count] if names else [str(number) for number in range(count)]
