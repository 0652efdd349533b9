"""Define the data of a suite: source, tokenizer and held-out splits.

Imports neither torch nor numpy, so that `--help` and the board stay fast.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.config.base import Part, added

TABLE_SUFFIXES = (".parquet", ".jsonl", ".json")
TEXT_SUFFIXES = (".txt", ".md")
_FILE_SUFFIXES = (
    *TABLE_SUFFIXES,
    *TEXT_SUFFIXES,
    *(".csv", ".tsv", ".arrow", ".html", ".xml", ".yaml", ".pdf", ".docx"),
    *(".gz", ".bz2", ".xz", ".zst", ".zip", ".tar"),
)
"""Endings of files, readable or not. A name with such an ending is no data set on the hub."""
STREAM_TOKENS = 2**25
"""Tokens read from a hub stream if the suite sets no `max_tokens`."""
PLANTED_TOKENS = 2**20
"""Training tokens of the planted task if the suite sets no `max_tokens`."""
LARGEST_VOCABULARY = 94
"""Most token ids of the planted task: each is shown as one printable character."""
LARGEST_TABLES = 2**22
"""Most entries of the tables of the planted task."""
Route = Literal["depth", "experts"]


class PlantedConfig(Part):
    """Documents of the planted task (`bench.data.planted`)."""

    route: Route = Field(
        default="depth",
        description="meaning of the right path: with `depth`, 1 for hard tokens and 0 for easy "
        "ones; with `experts`, the domain for hard tokens and -1 for easy ones",
    )
    domains: int = Field(
        default=1, gt=0, description="kinds of documents, each with its own tables"
    )
    symbols: int = Field(default=32, ge=2, description="token ids that fill the segments")
    order: int = Field(
        default=2,
        ge=1,
        le=4,
        description="earlier symbols that decide the next symbol in a hard segment",
    )
    segments: int = Field(default=4, gt=0, description="segments per document")
    segment_tokens: int = Field(default=16, description="tokens per segment, with its marker")
    easy: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of easy segments, rounded to whole segments of a document",
    )
    noise: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of symbols drawn at random: entropy that no model can remove",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        description="seed of tables and documents; by default the cell's seed, so that each cell "
        "has another task and findings hold for such tasks in general",
    )

    @property
    def document_tokens(self) -> int:
        """Tokens of a document: the opening token and the segments."""
        return 1 + self.segments * self.segment_tokens

    @property
    def hard_segments(self) -> int:
        """Number of hard segments in every document."""
        return self.segments - round(self.easy * self.segments)

    @property
    def vocab_size(self) -> int:
        """Token ids: symbols, a marker for each kind of segment and domain, the opening token."""
        return self.symbols + 2 * self.domains + 1

    @property
    def table_entries(self) -> int:
        """Entries of the tables behind the hard segments of all domains."""
        return self.domains * self.symbols**self.order

    @model_validator(mode="after")
    def _possible(self) -> "PlantedConfig":
        # Shorter segments would hold no symbol that the tables decide.
        if self.segment_tokens < self.order + 2:
            least = self.order + 2
            raise ValueError(
                f"segment_tokens is {self.segment_tokens}; marker, {self.order} symbols and the "
                f"next one take at least {least}"
            )
        if self.vocab_size > LARGEST_VOCABULARY:
            made = (
                f"symbols is {self.symbols} and domains {self.domains}, which makes "
                f"{self.vocab_size} token ids"
            )
            raise ValueError(f"{made}; at most {LARGEST_VOCABULARY} are allowed")
        if self.table_entries > LARGEST_TABLES:
            raise ValueError(
                f"the tables have {self.table_entries} entries; at most {LARGEST_TABLES} are "
                "allowed: lower symbols or order"
            )
        if self.route == "experts" and self.domains < 2:
            raise ValueError(
                f"domains is {self.domains} with route 'experts'; at least 2 are needed to choose "
                "among"
            )
        return self


class DataConfig(Part):
    """Source of the text, its tokenizer, and the sizes of the held-out splits.

    Without `source`, the source follows from `path`. No path means the embedded corpus.
    `owner/name` is a data set on the hub, unless such a file or a folder `owner` exists. Every
    other path is local. A local path is kept in one spelling, relative to the working directory if
    it lies below it.
    """

    source: Literal["embedded", "local", "hub", "planted"] = Field(
        default="embedded", description="registered source of the text"
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="file or folder, not a pattern; or owner/name on the hub",
    )
    name: str | None = Field(
        default=None, description="configuration of a hub data set, e.g. sample-10BT"
    )
    split: str = Field(default="train", description="split of a hub data set")
    revision: str | None = Field(
        default=None,
        description="commit of a hub data set; pin it so that others can repeat the results",
    )
    text_column: str = Field(default="text", description="column that holds a document's text")
    domain_column: str | None = Field(
        default=None, description="column that names a document's domain; without one, one domain"
    )
    tokenizer: Literal["bytes", "bpe"] = Field(
        default="bytes",
        description="UTF-8 bytes, or a byte-level BPE learnt from the training split",
    )
    vocab_size: int = Field(
        default=256,
        ge=256,
        le=65536,
        description="number of token ids; 256 with `bytes`, by default 4096 with `bpe`",
    )
    tokenizer_file: str | None = added(
        None,
        description="tokenizer.json of a byte-level BPE, used instead of a learnt one, e.g. "
        "GPT-2's; `vocab_size` must be its size",
    )
    max_tokens: int | None = Field(
        default=None,
        gt=0,
        description="read text for at most this many tokens (a BPE token counts as 4 bytes); "
        "by default all text, 2**25 tokens from the hub, 2**20 of the planted task",
    )
    validation_bytes: int = Field(
        default=2**18, gt=0, description="validation text per domain, rounded up to whole documents"
    )
    calibration_bytes: int = Field(
        default=3 * 2**17,
        gt=0,
        description="calibration text per domain, rounded up to whole documents",
    )
    max_holdout: float = Field(
        default=0.1,
        gt=0,
        lt=0.5,
        description="largest share of a small domain that each held-out split may take",
    )
    max_overlap: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="a domain with a larger share of validation 13-grams in training stays out of "
        "the headline",
    )

    planted: PlantedConfig | None = added(
        None, description="the planted task, for source 'planted'; each token counts as a byte"
    )

    def at(self, seed: int) -> "DataConfig":
        """Return the data of a cell with this seed.

        Text is the same at every seed. A planted task without its own seed differs between seeds.
        """
        # A seed of the suite's own makes one task for all cells.
        if self.planted is None or self.planted.seed is not None:
            return self
        return self.model_copy(update={"planted": self.planted.model_copy(update={"seed": seed})})

    @property
    def max_bytes(self) -> int | None:
        """Largest amount of text to read, in bytes."""
        return (
            None
            if self.max_tokens is None
            else self.max_tokens * (1 if self.tokenizer == "bytes" else 4)
        )

    @model_validator(mode="before")
    @classmethod
    def _infer(cls, data: Any) -> Any:
        """Fill in the fields that follow from others, so that records hold them all."""
        if not isinstance(data, dict):
            return data
        known: dict[str, Any] = {key: value for key, value in data.items() if value is not None}
        known.setdefault(
            "source", "planted" if "planted" in known else _source_of(known.get("path"))
        )
        local = ("path", "tokenizer_file") if known["source"] == "local" else ("tokenizer_file",)
        for name in local:
            if isinstance(known.get(name), str) and known[name]:
                known[name] = _spelt(known[name])
        # Sizes depend on the tokenizer and on the source.
        known.setdefault("vocab_size", 4096 if known.get("tokenizer") == "bpe" else 256)
        if known["source"] == "hub":
            known.setdefault("max_tokens", STREAM_TOKENS)
        if known["source"] == "planted":
            known.setdefault("planted", {})
            known.setdefault("max_tokens", PLANTED_TOKENS)
        return known

    @model_validator(mode="after")
    def _agree(self) -> "DataConfig":
        if (self.path is None) != (self.source in ("embedded", "planted")):
            raise ValueError(
                f"source {self.source!r} with path {self.path!r}: 'embedded' and 'planted' take no "
                "path, the others need one"
            )
        if (self.planted is None) != (self.source != "planted"):
            raise ValueError(
                f"source {self.source!r} with a group `planted`: it belongs to source 'planted'"
            )
        if self.tokenizer == "bytes" and self.vocab_size != 256:
            raise ValueError(
                f"vocab_size {self.vocab_size} with tokenizer 'bytes': bytes have 256; set "
                "tokenizer: bpe"
            )
        if self.tokenizer == "bytes" and self.tokenizer_file is not None:
            raise ValueError(
                f"tokenizer_file {self.tokenizer_file!r} with tokenizer 'bytes', which needs none; "
                "set tokenizer: bpe"
            )
        if self.tokenizer == "bpe" and self.vocab_size < 257 + 1:
            raise ValueError(
                f"vocab_size {self.vocab_size} with tokenizer 'bpe': at least 258 (256 bytes, one "
                "merge, end of document)"
            )
        return self


def _source_of(path: object) -> str:
    if path is None:
        return "embedded"
    # Any sign of a file wins: a misspelt file must not become a download.
    text = str(path)
    file_like = (
        text.startswith((".", "/", "~"))
        or any(sign in text for sign in "*?[\\:")
        or text.lower().endswith(_FILE_SUFFIXES)
        or text.count("/") != 1
    )
    # A mistyped name in an existing folder is a mistyped file.
    return "local" if file_like or exists(Path(text.partition("/")[0])) else "hub"


def _spelt(path: str) -> str:
    """Return the one spelling of a local path: `a.txt` for `./a.txt` and for its absolute path.

    Links of folders are followed, a link of the file itself is not, so the file keeps its name.
    """
    try:
        whole = Path(path).expanduser().absolute()
        whole = whole.resolve() if whole.name == ".." else whole.parent.resolve() / whole.name
        here = Path.cwd().resolve()
    except (OSError, RuntimeError):
        # No such user, too long a name, or no working directory: later steps report it.
        return path
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def exists(path: Path) -> bool:
    """Return whether a path exists. A name that no file can have does not exist."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
