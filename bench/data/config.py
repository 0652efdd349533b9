"""What a suite says about its data. Knows neither torch nor numpy, so that `--help` and the board can read it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.parts import Part

TABLE_SUFFIXES = (".parquet", ".jsonl", ".json")
TEXT_SUFFIXES = (".txt", ".md")
STREAM_TOKENS = 2**25
"""Tokens taken from a hub stream unless the suite says how many it needs."""


class DataConfig(Part):
    """Where the text comes from, how it becomes tokens, and how much is held out.

    Without `source` it follows from `path`: no path is the embedded corpus, a path that exists or looks like a file is
    local, `owner/name` is a data set on the hub.
    """

    source: Literal["embedded", "local", "hub"] = Field(default="embedded", description="registered source of the text")
    path: str | None = Field(default=None, description="file, folder or glob; or owner/name on the hub")
    name: str | None = Field(default=None, description="configuration of a hub data set, e.g. sample-10BT")
    split: str = Field(default="train", description="split of a hub data set")
    revision: str | None = Field(default=None, description="commit of a hub data set; pin it for results that others should repeat")
    text_column: str = Field(default="text", description="column that holds a document's text")
    domain_column: str | None = Field(default=None, description="column that names a document's domain; none: one domain")
    tokenizer: Literal["bytes", "bpe"] = Field(default="bytes", description="UTF-8 bytes, or a byte-level BPE learnt from training")
    vocab_size: int = Field(default=256, ge=256, le=65536, description="token ids; 256 for bytes, 4096 unless given for bpe")
    max_tokens: int | None = Field(
        default=None, gt=0, description="read text for at most this many tokens (a BPE token counts as 4 bytes); none: all of it"
    )
    validation_bytes: int = Field(default=2**18, gt=0, description="validation text a domain, rounded up to whole documents")
    calibration_bytes: int = Field(default=3 * 2**17, gt=0, description="calibration text a domain, rounded up to whole documents")
    max_holdout: float = Field(default=0.1, gt=0, lt=0.5, description="share of a small domain that either held-out split may take")
    max_overlap: float = Field(
        default=0.05, ge=0, le=1, description="domains with a larger share of validation 13-grams in training stay out of the headline"
    )

    @property
    def max_bytes(self) -> int | None:
        """Text to read at most, bytes."""
        return None if self.max_tokens is None else self.max_tokens * (1 if self.tokenizer == "bytes" else 4)

    @model_validator(mode="before")
    @classmethod
    def _infer(cls, data: Any) -> Any:
        """Fill in what follows from the rest, so that the configuration of a record is explicit."""
        if not isinstance(data, dict):
            return data
        known: dict[str, Any] = {key: value for key, value in data.items() if value is not None}
        known.setdefault("source", _source_of(known.get("path")))
        known.setdefault("vocab_size", 4096 if known.get("tokenizer") == "bpe" else 256)
        if known["source"] == "hub":
            known.setdefault("max_tokens", STREAM_TOKENS)
        return known

    @model_validator(mode="after")
    def _agree(self) -> "DataConfig":
        if (self.path is None) != (self.source == "embedded"):
            raise ValueError(f"source {self.source!r} with path {self.path!r}: the embedded corpus takes no path, the others need one")
        if self.tokenizer == "bytes" and self.vocab_size != 256:
            raise ValueError(f"vocab_size {self.vocab_size} with tokenizer 'bytes': bytes have 256; set tokenizer: bpe")
        if self.tokenizer == "bpe" and self.vocab_size < 257 + 1:
            raise ValueError(f"vocab_size {self.vocab_size} with tokenizer 'bpe': at least 258 (256 bytes, one merge, end of document)")
        return self


def _source_of(path: object) -> str:
    if path is None:
        return "embedded"
    text = str(path)
    file_like = text.startswith((".", "/", "~")) or any(sign in text for sign in "*?[\\") or text.endswith(TABLE_SUFFIXES + TEXT_SUFFIXES)
    return "local" if file_like or text.count("/") != 1 or Path(text).exists() else "hub"
