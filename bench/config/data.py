"""What a suite says about its data.

Knows neither torch nor numpy, so that `--help` and the board can read it.
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
"""Endings of files, readable or not; a name with one is no data set on the hub."""
STREAM_TOKENS = 2**25
"""Tokens taken from a hub stream unless the suite says how many it needs."""
PLANTED_TOKENS = 2**20
"""Training tokens of the planted task likewise."""
LARGEST_VOCABULARY = 94
"""Of the planted task: each token is shown as one printable character."""
LARGEST_TABLES = 2**22
Route = Literal["depth", "experts"]


class PlantedConfig(Part):
    """The planted task (`bench.data.planted`): what its documents are made of."""

    route: Route = Field(
        default="depth",
        description="what the truth names: hard tokens (1) and easy ones (0), or the domain of hard tokens (else -1)",
    )
    domains: int = Field(
        default=1, gt=0, description="kinds of documents, each with tables of its own"
    )
    symbols: int = Field(default=32, ge=2, description="ids that segments are made of")
    order: int = Field(
        default=2,
        ge=1,
        le=4,
        description="earlier symbols that decide the next one in a hard segment",
    )
    segments: int = Field(default=4, gt=0, description="segments a document")
    segment_tokens: int = Field(default=16, description="tokens a segment, its marker included")
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
        description="share of symbols drawn at random: the entropy that nothing removes",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        description="of tables and documents; by default the cell's own, so that findings hold for such tasks at large",
    )

    @property
    def document_tokens(self) -> int:
        """Tokens of a document: one that opens it, and its segments."""
        return 1 + self.segments * self.segment_tokens

    @property
    def hard_segments(self) -> int:
        """Hard segments of every document."""
        return self.segments - round(self.easy * self.segments)

    @property
    def vocab_size(self) -> int:
        """Symbols, a marker for each kind of segment and domain, and the opening of a document."""
        return self.symbols + 2 * self.domains + 1

    @property
    def table_entries(self) -> int:
        """Facts that the hard segments of all domains rest on."""
        return self.domains * self.symbols**self.order

    @model_validator(mode="after")
    def _possible(self) -> "PlantedConfig":
        if self.segment_tokens < self.order + 2:
            least = self.order + 2
            raise ValueError(
                f"segment_tokens is {self.segment_tokens}; marker, {self.order} symbols and what follows take at least {least}"
            )
        if self.vocab_size > LARGEST_VOCABULARY:
            made = f"symbols is {self.symbols} and domains {self.domains}, which makes {self.vocab_size} token ids"
            raise ValueError(f"{made}; at most {LARGEST_VOCABULARY} are allowed")
        if self.table_entries > LARGEST_TABLES:
            raise ValueError(
                f"the tables have {self.table_entries} entries; at most {LARGEST_TABLES} are allowed: lower symbols or order"
            )
        if self.route == "experts" and self.domains < 2:
            raise ValueError(
                f"domains is {self.domains} with route 'experts'; at least 2 are needed to choose among"
            )
        return self


class DataConfig(Part):
    """Where the text comes from, how it becomes tokens, and how much is held out.

    Without `source` it follows from `path`: no path is the embedded corpus, `owner/name` is a data
    set on the hub unless it exists or begins with a folder that does, all others are local. A
    local path is kept in one spelling, relative to the working directory where it lies below it.
    """

    source: Literal["embedded", "local", "hub", "planted"] = Field(
        default="embedded", description="registered source of the text"
    )
    path: str | None = Field(
        default=None, description="file or folder, as it is spelt; or owner/name on the hub"
    )
    name: str | None = Field(
        default=None, description="configuration of a hub data set, e.g. sample-10BT"
    )
    split: str = Field(default="train", description="split of a hub data set")
    revision: str | None = Field(
        default=None,
        description="commit of a hub data set; pin it for results that others should repeat",
    )
    text_column: str = Field(default="text", description="column that holds a document's text")
    domain_column: str | None = Field(
        default=None, description="column that names a document's domain; none: one domain"
    )
    tokenizer: Literal["bytes", "bpe"] = Field(
        default="bytes", description="UTF-8 bytes, or a byte-level BPE learnt from training"
    )
    vocab_size: int = Field(
        default=256,
        ge=256,
        le=65536,
        description="token ids; 256 for bytes, 4096 unless given for bpe",
    )
    tokenizer_file: str | None = added(
        None,
        description="tokenizer.json of a byte-level BPE to take instead of learning one, e.g. GPT-2's; vocab_size must be its own",
    )
    max_tokens: int | None = Field(
        default=None,
        gt=0,
        description="read text for at most this many tokens (a BPE token counts as 4 bytes); none: all of it",
    )
    validation_bytes: int = Field(
        default=2**18, gt=0, description="validation text a domain, rounded up to whole documents"
    )
    calibration_bytes: int = Field(
        default=3 * 2**17,
        gt=0,
        description="calibration text a domain, rounded up to whole documents",
    )
    max_holdout: float = Field(
        default=0.1,
        gt=0,
        lt=0.5,
        description="share of a small domain that either held-out split may take",
    )
    max_overlap: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="domains with a larger share of validation 13-grams in training stay out of the headline",
    )

    planted: PlantedConfig | None = added(
        None, description="the generated task, for source 'planted'; a token of it counts as a byte"
    )

    def at(self, seed: int) -> "DataConfig":
        """The data of a cell: text is the same at every seed, a planted task without a seed of its
        own is another at each.
        """
        if self.planted is None or self.planted.seed is not None:
            return self
        return self.model_copy(update={"planted": self.planted.model_copy(update={"seed": seed})})

    @property
    def max_bytes(self) -> int | None:
        """Text to read at most, bytes."""
        return (
            None
            if self.max_tokens is None
            else self.max_tokens * (1 if self.tokenizer == "bytes" else 4)
        )

    @model_validator(mode="before")
    @classmethod
    def _infer(cls, data: Any) -> Any:
        """Fill in what follows from the rest, so that the configuration of a record is explicit."""
        if not isinstance(data, dict):
            return data
        known: dict[str, Any] = {key: value for key, value in data.items() if value is not None}
        known.setdefault(
            "source", "planted" if "planted" in known else _source_of(known.get("path"))
        )
        local = ("path", "tokenizer_file") if known["source"] == "local" else ("tokenizer_file",)
        for name in local:
            if isinstance(known.get(name), str):
                known[name] = _spelt(known[name])
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
                f"source {self.source!r} with path {self.path!r}: 'embedded' and 'planted' take no path, the others need one"
            )
        if (self.planted is None) != (self.source != "planted"):
            raise ValueError(
                f"source {self.source!r} with a group `planted`: it belongs to source 'planted'"
            )
        if self.tokenizer == "bytes" and self.vocab_size != 256:
            raise ValueError(
                f"vocab_size {self.vocab_size} with tokenizer 'bytes': bytes have 256; set tokenizer: bpe"
            )
        if self.tokenizer == "bytes" and self.tokenizer_file is not None:
            raise ValueError(
                f"tokenizer_file {self.tokenizer_file!r} with tokenizer 'bytes', which needs none; set tokenizer: bpe"
            )
        if self.tokenizer == "bpe" and self.vocab_size < 257 + 1:
            raise ValueError(
                f"vocab_size {self.vocab_size} with tokenizer 'bpe': at least 258 (256 bytes, one merge, end of document)"
            )
        return self


def _source_of(path: object) -> str:
    if path is None:
        return "embedded"
    text = str(path)
    file_like = (
        text.startswith((".", "/", "~"))
        or any(sign in text for sign in "*?[\\:")
        or text.lower().endswith(_FILE_SUFFIXES)
        or text.count("/") != 1
    )
    # A mistyped name in a folder that exists is a mistyped file.
    return "local" if file_like or exists(Path(text.partition("/")[0])) else "hub"


def _spelt(path: str) -> str:
    """Return the one spelling of a local path: `a.txt` for `./a.txt` and for its absolute path.

    Links are followed up to the last folder, so that a file keeps its own name.
    """
    try:
        whole = Path(path).expanduser().absolute()
        whole = whole.resolve() if whole.name == ".." else whole.parent.resolve() / whole.name
        here = Path.cwd().resolve()
    except (OSError, RuntimeError):  # no such user, too long a name, no working directory
        return path
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def exists(path: Path) -> bool:
    """Return whether something lies at a path; a name that no file can have does not exist."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
