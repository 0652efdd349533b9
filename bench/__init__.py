"""One gated decoder, one FLOPs budget, every router: the bench behind `token-routing-bench`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.board.frames import load_records

__all__ = ["__version__", "load_records"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `bench.load_records` when it is asked for, so that `import bench` stays fast."""
    if name == "load_records":
        from bench.board.frames import load_records

        return load_records
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
