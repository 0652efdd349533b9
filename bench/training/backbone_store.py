"""Keep pretrained backbones in files, each with a digest of its content."""

import logging
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """A frozen backbone.

    Attributes:
        weights: parameter name of the dense decoder -> weight; cheap paths are at
            `layers.<i>.ffn.cheap`.
        flops: training cost.
    """

    weights: dict[str, Tensor]
    flops: float


def _digest(found: Pretrained) -> str:
    return sha256(save(found.weights) + repr(found.flops).encode()).hexdigest()


def write_backbone(path: Path, found: Pretrained) -> None:
    """Write to a temporary file next to `path`, then rename it into place."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        file = Path(folder) / path.name
        save_file(found.weights, file, {"flops": repr(found.flops), "sha256": _digest(found)})
        file.replace(path)


def read_backbone(path: Path) -> Pretrained | None:
    """Return the backbone at `path`, or None. A damaged file is set aside."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = Pretrained(tensors, float(metadata["flops"]))
        if _digest(found) != metadata["sha256"]:
            raise ValueError("it does not match its digest")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        _log.warning(
            "%s is damaged (%s) and set aside; the backbone is trained again.", path, error
        )
        path.replace(path.with_name(f"damaged-{path.name}"))
        return None
    return found
