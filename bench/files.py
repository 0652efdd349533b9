"""Where files go: whole or not at all, and the user's cache."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to a temporary file beside `path`, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def default_cache() -> Path:
    """Return `TOKEN_ROUTING_BENCH_CACHE`, else a folder in `XDG_CACHE_HOME` or `~/.cache`.

    A user without a home has it among the temporary files.
    """
    name = "token-routing-bench"
    if own := os.environ.get("TOKEN_ROUTING_BENCH_CACHE"):
        return _expanded(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return _expanded(shared) / name
    home = _expanded("~")
    return home / ".cache" / name if home.is_absolute() else Path(tempfile.gettempdir()) / name


def _expanded(path: str) -> Path:
    """Return a path with `~` as the home; as it stands where the system knows of no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
