"""Errors a user can mend, each said in one line.

Everything a user can get wrong (a name, a file, an option, a value) raises `UserError`; the command
line prints it without a traceback and exits with 2. Bugs of our own stay ordinary exceptions.
"""

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Bad input: the message says what was wrong, the value, what is allowed and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class RuleBroken(Exception):
    """A router did something in the run that makes its record worthless.

    The text says what and where.
    """


class Diverged(Exception):
    """The loss stopped being a number, or ran away.

    Args:
        message: what was seen.
        loss: headline loss, nats a byte, where there is one.
    """

    def __init__(self, message: str, loss: float | None = None) -> None:
        super().__init__(message)
        self.loss = loss


def let_through(error: BaseException) -> None:
    """Raise an exception again that is not a plugin's doing, whatever class that may have made up:
    the user's own interrupt.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error


def told(error: BaseException) -> str:
    """An exception in one line, though its text may raise another."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return " ".join(f"{type(error).__name__}: {text}".split()) if text else type(error).__name__


def located(error: BaseException) -> str:
    """The same with the place that it came from, without reading any source."""
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    return f"{told(error)} ({Path(frame.f_code.co_filename).name}:{line})"


def shortened(value: object, length: int = 80) -> str:
    """The `repr` of what a user gave, cut where it would swamp the message."""
    said = repr(value)
    return said if len(said) <= length else f"{said[:length]}..."


def unknown(kind: str, value: str, allowed: Iterable[str], advice: str = "") -> UserError:
    """Build the error for a name that is not in a known set, with the nearest name as a guess.

    Args:
        kind: what the name stands for, singular ("router", "suite").
        value: what the user wrote.
        allowed: every valid name.
        advice: what to do beyond choosing a valid name, one clause.
    """
    names = sorted({*allowed} - {value})  # nobody means the name that is refused
    close = difflib.get_close_matches(value, names, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    listing = ", ".join(names) if names else "none"
    return UserError(f"Unknown {kind} {value!r}.{guess} Available: {listing}. {advice}")
