"""Where and by what a record was made."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def machine_of(device: torch.device, dtype: str) -> dict[str, Any]:
    """Device class, threads, precision and the versions that move numbers.

    Part of a cell's content key.
    """
    name = (
        device.type
        if device.type == "cpu"
        else f"{device.type}:{torch.cuda.get_device_name(device)}"
    )
    versions = {
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "versions": versions,
    }


def processor() -> str:
    """Model name of the processor, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit_state() -> tuple[str, bool]:
    """Commit of the source tree and whether anything but results differs from it.

    ("unknown", True) outside of git.
    """
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        ).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        dirty = bool(
            git(
                "status",
                "--porcelain",
                "--",
                "bench",
                "routers",
                "pyproject.toml",
                "constraints.txt",
            ).strip()
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True
    return commit, dirty
