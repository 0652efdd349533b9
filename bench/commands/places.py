"""Check places to write to, before and while files are written."""

import argparse
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import UserError, shortened


def place(text: str) -> Path:
    """Parse a path, for argparse. Empty and impossible paths are refused."""
    try:
        if not text:
            raise ValueError("a path cannot be empty; leave the option out for its default")
        # An empty path would mean the current folder. `exists` raises for impossible paths.
        Path(text).exists()
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(
            f"it is {shortened(text)}, which is no path ({said}). Give one such as runs"
        ) from None
    return Path(text)


def require_folder(folder: Path, option: str = "--out") -> None:
    """Make a folder and check that it is writable, before hours of work.

    Raises:
        UserError: the folder cannot be made or written to. Nothing is left of it.
    """
    made: list[Path] = []
    try:
        made += [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except OSError as error:
        # Remove the folders that were made on the way, deepest first.
        for part in made:
            with suppress(OSError):
                part.rmdir()
        raise UserError(
            f"{option} is {str(folder)!r}, where nothing can be written ({error.strerror}). Give a "
            "folder that may be written to, or made."
        ) from None


def require_file(file: Path) -> None:
    """Raise a `UserError` if the place of a file is taken by a folder."""
    if file.is_dir():
        raise UserError(
            f"{str(file)!r} is a folder, and a file of that name is to be written. Move it, or "
            "give another --out."
        )


@contextmanager
def writing(target: Path, remedy: str) -> Generator[None]:
    """Report in one line that a file made from records could not be written.

    Args:
        target: the file or folder to write.
        remedy: the action once the place is writable, a clause.
    """
    try:
        yield
    except OSError as error:
        said = (
            f"{str(target)!r} cannot be written ({error.strerror or error}); the records it is "
            "made from are kept."
        )
        raise UserError(f"{said} Make the place writable, then {remedy}.") from None
