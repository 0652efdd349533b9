"""Define the errors that a user can correct, each in one line.

A wrong name, file, option or value raises `UserError`. The command line prints it without a
traceback and exits with code 2. Our own bugs stay ordinary exceptions.
"""

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Bad input. The message has the problem, the value, the allowed values and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class RuleBroken(Exception):
    """A router broke a rule in the run, so its record is invalid. The text has rule and place."""


class Diverged(Exception):
    """Training diverged: the loss is not finite, or far too large.

    Args:
        message: the observation.
        loss: headline loss, nats per byte, if there is one.
    """

    def __init__(self, message: str, loss: float | None = None) -> None:
        super().__init__(message)
        self.loss = loss


def let_through(error: BaseException) -> None:
    """Raise the user's own interrupt again, which a plugin must not swallow."""
    if isinstance(error, KeyboardInterrupt):
        raise error


def told(error: BaseException) -> str:
    """Return an exception as one line."""
    # The exception's own `__str__` may raise.
    try:
        text = str(error)
    except Exception:
        text = ""
    return " ".join(f"{type(error).__name__}: {text}".split()) if text else type(error).__name__


def located(error: BaseException) -> str:
    """Return an exception as one line with its file and line."""
    # The last frame is the nearest. Walking frames reads no source file.
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    return f"{told(error)} ({Path(frame.f_code.co_filename).name}:{line})"


def shortened(value: object, length: int = 80) -> str:
    """Return the `repr` of a user's value, cut to a length."""
    said = repr(value)
    return said if len(said) <= length else f"{said[:length]}..."


def unknown(kind: str, value: str, allowed: Iterable[str], advice: str = "") -> UserError:
    """Build the error for an unknown name, with the nearest valid name as a guess.

    Args:
        kind: kind of the name, singular ("router", "suite").
        value: the user's text.
        allowed: all valid names.
        advice: another remedy, one sentence.
    """
    # The refused name itself is no good guess.
    names = sorted({*allowed} - {value})
    close = difflib.get_close_matches(value, names, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    listing = ", ".join(names) if names else "none"
    return UserError(f"Unknown {kind} {value!r}.{guess} Available: {listing}. {advice}")
