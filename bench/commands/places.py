"""Places to write to: whether a path can be one, and what is said when a file cannot be written
after all.
"""

import argparse
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import UserError, shortened


def place(text: str) -> Path:
    """A path, for argparse; an empty one would stand for the current folder, and one of impossible
    length for nothing.
    """
    try:
        if not text:
            raise ValueError("a path cannot be empty; leave the option out for its default")
        Path(text).exists()
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(
            f"it is {shortened(text)}, which is no path ({said}). Give one such as runs"
        ) from None
    return Path(text)


def require_folder(folder: Path, option: str = "--out") -> None:
    """Make a folder, and write into it to see that this can be done: better known before hours of
    work than after.

    Raises:
        UserError: it cannot be made or written to; whatever was made of it is gone again.
    """
    made: list[Path] = []
    try:
        made += [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except OSError as error:
        for part in made:
            with suppress(OSError):
                part.rmdir()
        raise UserError(
            f"{option} is {str(folder)!r}, where nothing can be written ({error.strerror}). Give a folder that may be written to, or made."
        ) from None


def require_file(file: Path) -> None:
    """Raise a `UserError` if a folder stands where a file is to be written."""
    if file.is_dir():
        raise UserError(
            f"{str(file)!r} is a folder, and a file of that name is to be written. Move it, or give another --out."
        )


@contextmanager
def writing(target: Path, remedy: str) -> Generator[None]:
    """Say in one line that something made from records could not be written; the records are as
    they were.

    Args:
        target: what is written.
        remedy: what to do once the place is mended, a clause.
    """
    try:
        yield
    except OSError as error:
        said = f"{str(target)!r} cannot be written ({error.strerror or error}); the records it is made from are kept."
        raise UserError(f"{said} Make the place writable, then {remedy}.") from None
