"""Define documents, and the interface of a source of documents."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Document:
    """One whole text. It goes to one split and is never divided.

    Attributes:
        name: unique within the corpus, for records and reports.
        domain: the tag of all its tokens.
        text: the text to tokenise.
    """

    name: str
    domain: str
    text: str

    @cached_property
    def data(self) -> bytes:
        """The text in UTF-8; `?` replaces a character that UTF-8 lacks, a half of a pair."""
        return self.text.encode("utf-8", errors="replace")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text. Documents are dealt to splits in the order of their digests."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class Intake:
    """Counts for the card of a corpus, filled while documents are read and dealt.

    Attributes:
        files: number of files read; None if the text does not come from files.
        dropped: reason -> number of documents, rows or files left out.
        replaced: number of documents with a character that UTF-8 lacks; `?` takes its place.
        long: number of documents kept in training because they are too large to be held out.
        stopped: whether reading ended at `max_tokens`.
    """

    files: int | None = None
    dropped: Counter[str] = field(default_factory=Counter[str])
    replaced: int = 0
    long: int = 0
    stopped: bool = False

    def left_out(self) -> str:
        """List the kinds left out with their numbers; "nothing" if nothing was."""
        dropped = sorted(self.dropped.items())
        return (
            ", ".join(f"{number:,} {reason}" for reason, number in dropped if number) or "nothing"
        )


@dataclass(frozen=True)
class Source:
    """Text to build a corpus from.

    Attributes:
        key: data that identify the text cheaply. Equal keys mean equal documents. Part of the
            cache key.
        documents: reads the documents; raises `UserError` if that fails.
        intake: counts from that reading.
    """

    key: dict[str, object]
    documents: Callable[[], Iterable[Document]]
    intake: Intake = field(default_factory=Intake)


def truncate(text: str, limit: int) -> str:
    """Return the first `limit` bytes of `text`, cut at the end of a line if there is one."""
    data = text.encode("utf-8", errors="replace")
    if len(data) <= limit:
        return text
    head = data[:limit]
    # `rfind` returns -1 without a line end; then the cut may split a character, which is dropped.
    return head[: head.rfind(b"\n") + 1 or limit].decode("utf-8", errors="ignore")
