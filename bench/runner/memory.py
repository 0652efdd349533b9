"""Measure the peak memory of one cell, in a process that may have run others before."""

import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Text that resets the high-water mark VmHWM to the memory in use (man 5 proc, Linux 4.0)."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of two options of glibc's allocator (man 3 mallopt)."""
LARGEST_BLOCK = 32 * 2**20
"""Largest block that glibc can keep, in bytes."""


class PeakMemory:
    """Measure the peak memory from the construction of this object on.

    On a GPU it is the memory of tensors there, else the resident memory of this process. If the
    system cannot reset an earlier high-water mark, the peak is known only if it exceeds that mark.

    Args:
        device: device of the cell.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Free the memory of an earlier cell first, or it would count as this cell's.
        gc.collect()
        _return_freed_memory()
        self.forgotten = self._forget()
        self.before = _highest()

    def megabytes(self) -> float | None:
        """Return the peak in MiB, or None if it is unknown."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        if self.forgotten:
            return _high_water_mark()
        # The mark of the whole process says something only if this cell raised it.
        peak = _highest()
        return peak if peak > self.before else None

    def _forget(self) -> bool:
        """Reset the high-water mark, and return whether the system can."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return True
        try:
            CLEAR.write_text(RESET_PEAK, encoding="ascii")
        except OSError:  # no Linux, or a container that forbids it
            return False
        return _high_water_mark() is not None


def _high_water_mark() -> float | None:
    """Return VmHWM in MiB, or None if the system has no such figure."""
    try:
        lines = STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) / 1024 if found else None


def _highest() -> float:
    """Return the largest resident memory since the process began, in MiB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, other systems in KiB.
    return used / 2**20 if sys.platform == "darwin" else used / 1024


def _return_freed_memory() -> None:
    """Return freed memory from glibc's allocator to the system. Other systems do nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def keep_freed_memory() -> None:
    """Let glibc's allocator keep freed memory of this process for its next tensors.

    By default every large tensor is new memory of the system, which hands out zeroed pages one by
    one. It takes 2 % of a step of the smallest decoder, by `docs/decisions`. No number depends on
    it, and `PeakMemory` still returns the memory of an earlier cell.
    """
    option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if option is not None:
        option(MMAP_THRESHOLD, LARGEST_BLOCK)
        option(TRIM_THRESHOLD, 2**31 - 1)
