"""Check the requirements of official runs: folder, device, and sources of a commit."""

from pathlib import Path

from bench.errors import UserError

DEVICES = ("cpu", "cuda")
"""Kinds of device that a record can name; see `machine_of`."""
OFFICIAL_ROOT = Path("results")
OWN_ROOT = Path("runs")


def check_device(device: str, here: bool = True) -> None:
    """Raise a `UserError` unless the device is of a known kind and can compute here.

    Args:
        device: the device.
        here: whether this machine runs the cells, and not the nodes of a cluster.
    """
    import torch

    kind = device.partition(":")[0]
    if kind not in DEVICES:
        raise UserError(
            f"device is {device!r}; cells can be run on {' and '.join(DEVICES)}. Set it to cpu."
        )
    if not here:
        return
    # torch reports a missing device only when something is computed on it.
    try:
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError, ImportError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"device is {device!r}, which this machine does not offer ({said}). Set it to cpu, or "
            "use another machine."
        ) from None


def require_clean_tree() -> None:
    """Raise a `UserError` unless the sources are exactly those of a commit."""
    from bench.runner.provenance import UNKNOWN, commit_state

    commit, dirty = commit_state()
    if commit == UNKNOWN:
        raise UserError(
            "--official needs sources that are exactly those of a commit, and no commit is known "
            "here: install git, and run a clone of the repository."
        )
    if dirty:
        raise UserError(
            "--official needs sources that are exactly those of a commit, and the tree at "
            f"{commit[:12]} differs: commit first."
        )
