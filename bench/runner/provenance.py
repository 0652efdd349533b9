"""Find the provenance of a record: machine, versions and commit."""

import os
import platform
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench.config.read_suite import bfloat16_instructions

ROOT, PROJECT, NAME = Path(__file__).resolve().parents[2], "pyproject.toml", "token-routing-bench"
COMMITTED = ("bench", "routers", PROJECT, "constraints.txt")
UNKNOWN = "unknown"
"""Stands for the commit where there is no git, or no repository that holds the bench."""
THREADS = 1
"""Threads of torch in a process that runs a cell: one, so that sums have one order."""
REDIRECTING = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"}
)
"""Variables that send git to another repository. Hooks and some editors leave them set."""


def machine_of(device: torch.device, dtype: str) -> dict[str, Any]:
    """Return device class, threads, precision and the versions that change numbers.

    They are part of a cell's content key. A process that only looks cells up may itself use more
    threads.
    """
    # Two kinds of GPU round differently, so the model of a GPU is part of the name. A machine that
    # only submits jobs has no GPU, and finds no record of one.
    name = device.type
    if device.type != "cpu":
        there = torch.cuda.is_available()
        name += f":{torch.cuda.get_device_name(device) if there else UNKNOWN}"
    versions = {
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    return {
        "device": name,
        "threads": THREADS,
        "dtype": dtype,
        "versions": versions,
    }


def processor() -> str:
    """Return the model name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instructions(device: str, dtype: str) -> str:
    """Return the instructions of a CPU that computes in bfloat16, "" in any other case."""
    if device != "cpu" or dtype != "bfloat16":
        return ""
    return bfloat16_instructions() or "none"


def commit_state(root: Path = ROOT) -> tuple[str, bool]:
    """Return the commit of the source tree and whether its sources differ from it.

    Outside of git it is ("unknown", True), also if the repository around the tree is not the
    bench's: an installed package lies in the repository of its environment.

    Args:
        root: root of the source tree.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        environment = {n: value for n, value in os.environ.items() if n not in REDIRECTING}
        # Other processes may run git at the same time: take no lock for a mere status.
        environment["GIT_OPTIONAL_LOCKS"] = "0"
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return done.stdout

    try:
        if not _is_ours(root / PROJECT):
            return UNKNOWN, True
        # Fails if this repository does not track the bench.
        git("ls-files", "--error-unmatch", "--", PROJECT, "bench/__init__.py")
        commit = git("rev-parse", "HEAD").strip()
        dirty = bool(git("status", "--porcelain", "--", *COMMITTED).strip())
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN, True
    return commit, dirty


def _is_ours(project: Path) -> bool:
    """Return whether a pyproject.toml belongs to the bench."""
    try:
        about = tomllib.loads(project.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return about.get("project", {}).get("name") == NAME
