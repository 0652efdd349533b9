"""Documents, and what a source of them must offer."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Document:
    """One whole text; it goes to one split and is never divided between two.

    Attributes:
        name: unique within the corpus, for records and reports.
        domain: the tag that all of its tokens carry.
        text: what is tokenised.
    """

    name: str
    domain: str
    text: str

    @cached_property
    def data(self) -> bytes:
        """The text in UTF-8."""
        return self.text.encode("utf-8", errors="replace")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text: the order in which documents are dealt to splits."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class Intake:
    """Counts of a corpus's reading, for its card; filled while documents are read and dealt.

    Attributes:
        files: files read; None where the text does not come from files.
        dropped: reason -> documents, rows or files left out.
        long: documents kept in training because they are too large to be held out.
        stopped: whether reading ended at `max_tokens`.
    """

    files: int | None = None
    dropped: Counter[str] = field(default_factory=Counter[str])
    long: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class Source:
    """Text to build a corpus from.

    Attributes:
        key: whatever identifies the text cheaply: equal keys mean equal documents. Part of the
            cache key.
        documents: reads them; raises `UserError` where the text cannot be had.
        intake: counts of that reading.
    """

    key: dict[str, object]
    documents: Callable[[], Iterable[Document]]
    intake: Intake = field(default_factory=Intake)


def truncate(text: str, limit: int) -> str:
    """The first `limit` bytes of `text`, back to the end of a line where there is one."""
    data = text.encode("utf-8", errors="replace")
    if len(data) <= limit:
        return text
    head = data[:limit]
    return head[: head.rfind(b"\n") + 1 or limit].decode("utf-8", errors="ignore")
