"""Save and restore checkpoints of one cell, so that a killed run resumes exactly.

A checkpoint is a folder that appears by one rename, so it is whole or absent. It holds the weights
as safetensors, because a model is useful by itself. The rest of the state is in a file that is read
with `weights_only=True`, so that reading it runs no code. A manifest has the cell's content key and
the SHA-256 of both files.
"""

import copy
import hashlib
import io
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from bench.ranks import all_agree, from_first, world
from bench.training.parallel import load_weights, whole_state

CHECKPOINT_FORMAT = 6
"""Raise it when the content of a checkpoint changes. Other versions are set aside."""

KEPT = 2
"""Checkpoints to keep per cell: the newest, and one to fall back on."""

LARGEST_SHARE = 0.05
"""Largest share of the time for writing checkpoints. A large model is saved less often."""

_WEIGHTS, _STATE, _MANIFEST = "weights.safetensors", "state.pt", "manifest.json"
_log = logging.getLogger(__name__)


@runtime_checkable
class Stateful(Protocol):
    """An object whose state is dictionaries, lists, numbers, strings and tensors."""

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Restore a state."""
        ...


class Checkpoints:
    """The checkpoints of one cell, in their own folder.

    Args:
        folder: the folder of the checkpoints.
        key: content key of the cell. Checkpoints of another key are set aside.
        seconds: time between two checkpoints; 0 for one at every step.
        parts: name -> state to save with the weights. The training loop adds itself.
    """

    def __init__(
        self, folder: Path, key: str, seconds: float, parts: dict[str, Stateful] | None = None
    ) -> None:
        self.folder, self.key, self.seconds = folder, key, seconds
        self.parts: dict[str, Stateful] = parts or {}
        self._next = time.monotonic() + seconds
        self._told = False

    def restore(self, model: nn.Module) -> bool:
        """Restore the newest sound checkpoint, and return whether there was one.

        Damaged and foreign checkpoints are set aside with a warning. A failed attempt leaves the
        model and the parts unchanged.
        """
        found = from_first(sorted(self.folder.glob("step-*[0-9]"), reverse=True))
        # A damaged checkpoint may be half loaded, so keep the state before the first attempt.
        fresh = (
            copy.deepcopy(
                (
                    whole_state(model.state_dict()),
                    {name: part.state_dict() for name, part in self.parts.items()},
                )
            )
            if found
            else None
        )
        for path in found:
            wrong: Exception | None = None
            try:
                self._take_up(model, *read_state(path, self.key))
            except Exception as error:
                # A damaged file can raise anything. The run goes on without it.
                wrong = error
            if all_agree(wrong is None):
                return True
            assert fresh is not None
            if world().leads:
                _set_aside(path, wrong)
            self._take_up(model, *copy.deepcopy(fresh))
        return False

    def _take_up(self, model: nn.Module, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Load the weights and the state of every part."""
        load_weights(model, weights)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    def save_if_due(self, model: nn.Module, step: int) -> None:
        """Write a checkpoint if the last one is old enough.

        If the disk is full or read-only, the run goes on without a checkpoint.
        """
        # The clock of one rank decides for all, because all take part in joining shards.
        if not from_first(time.monotonic() >= self._next):
            return
        started = time.monotonic()
        try:
            self._save(model, self.folder / f"step-{step:09}")
            self._told = False
        except OSError as error:
            if not self._told:
                _log.warning(
                    "No checkpoint in %s: %s. The run goes on, but cannot be resumed from here.",
                    self.folder,
                    error,
                )
            self._told = True
        # Wait long enough that writing takes at most its share of the time.
        took = time.monotonic() - started
        self._next = (
            started + took + (max(self.seconds, took / LARGEST_SHARE) if self.seconds else 0)
        )

    def clear(self) -> None:
        """Remove all checkpoints, once the record is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _save(self, model: nn.Module, target: Path) -> None:
        # The disk of one rank decides for all.
        if from_first(target.exists()):
            return
        write_state(target, self.key, model, self.parts)
        if not world().leads:
            return
        for old in sorted(self.folder.glob("step-*[0-9]"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def write_state(target: Path, key: str, model: nn.Module, parts: Mapping[str, Stateful]) -> None:
    """Write weights, buffers and the state of parts as a folder that appears by one rename.

    Of several ranks, all take part in joining shards, and rank 0 writes.

    Args:
        target: the folder, which must not exist.
        key: content key of the cell.
        model: the model.
        parts: name -> further state.
    """
    weights = whole_state(model.state_dict())
    further = {name: part.state_dict() for name, part in parts.items()}
    if not world().leads:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # A run that was killed while it wrote left a part. Each cell has one writer at a time.
    for left in target.parent.glob(f".writing-{target.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".writing-{target.name}-"))
    try:
        # Safetensors holds tensors only; other values of the state go into the second file.
        tensors = {
            name: _alone(value) for name, value in weights.items() if isinstance(value, Tensor)
        }
        state = {"weights": {name: value for name, value in weights.items() if name not in tensors}}
        state |= further
        torch.save(state, stream := io.BytesIO())
        files = {_WEIGHTS: save(tensors), _STATE: stream.getvalue()}
        manifest = {
            "format": CHECKPOINT_FORMAT,
            "key": key,
            "sha256": {name: _sha256(data) for name, data in files.items()},
        }
        for name, data in {**files, _MANIFEST: json.dumps(manifest).encode()}.items():
            (temporary / name).write_bytes(data)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_state(path: Path, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read weights and buffers by name, and the state of parts, from a folder of `write_state`.

    All tensors are on the CPU.

    Raises:
        Foreign: the folder is of another key or format.
        ValueError: a file is damaged.
    """
    manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    if (manifest["format"], manifest["key"]) != (CHECKPOINT_FORMAT, key):
        raise Foreign
    files = {name: (path / name).read_bytes() for name in (_WEIGHTS, _STATE)}
    for name, data in files.items():
        if _sha256(data) != manifest["sha256"][name]:
            raise ValueError(f"{name} does not match its digest")
    # Onto the CPU: another rank, or a machine with fewer GPUs, may lack the device of the writer.
    state = torch.load(io.BytesIO(files[_STATE]), map_location="cpu", weights_only=True)
    return {**load(files[_WEIGHTS]), **state["weights"]}, state


class Foreign(Exception):
    """A sound checkpoint, but of another cell or version."""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _alone(tensor: Tensor) -> Tensor:
    """Return a copy that shares no memory with other tensors, as safetensors requires."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _set_aside(path: Path, error: Exception | None) -> None:
    """Rename a checkpoint that cannot be used, with a warning.

    Args:
        path: the checkpoint.
        error: the reason; None if only another rank could not read it.
    """
    said = f"damaged ({' '.join(str(error).split())[:200]})"
    if isinstance(error, Foreign):
        said = "of another cell or version"
    elif error is None:
        said = "unreadable on another machine"
    _log.warning(
        "%s is %s and set aside; the checkpoint before it is used, if there is one.", path, said
    )
    target = path.with_name(f"aside-{path.name}")
    shutil.rmtree(target, ignore_errors=True)
    path.rename(target)
