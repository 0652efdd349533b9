"""Generate the planted task: documents in which the right path of every token is known.

A document belongs to one domain. It is an opening token and a number of segments. A segment is a
marker, which names its kind and the domain, and symbols. In an *easy* segment each symbol repeats
the one before, which attention can do. In a *hard* segment a symbol is a function of the `order`
symbols before it. This function is a table, drawn at random for each domain, and only the full
path, or the domain's own expert, can hold it. A share of symbols is noise. Every document has the
same number of easy segments, so that no part of the text is easier than another, and a budget is
enough for every document or for none.

Everything is a function of the configuration: no text is read and nothing is cached. A token counts
as one byte, so nats per byte elsewhere are nats per token here. Only the raw output of Philox is
used, which NumPy promises never to change.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.config.data import DataConfig, PlantedConfig
from bench.data.corpus import Corpus, Split
from bench.data.splits import SPLITS
from bench.data.tokenizer import Tokenizer

PLANTED_FORMAT = 2
"""Raise it when the same configuration gives other tokens."""
FIRST_PIECE = 33
"""Each token is shown as one character, from '!' on."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Find the right path of each token from the tokens up to it.

    A token is hard if its segment is hard and the next token follows from the table.

    Attributes:
        label: right path of the hard tokens after each marker id; `elsewhere` for all other ids,
            `[vocab]`.
        elsewhere: right path of the other tokens: 0 (cheap) for depth, -1 (any expert) for
            experts.
        markers: whether an id is a marker, bool `[vocab]`.
        first, last: distance from the marker to the first and the last hard token.
    """

    label: NDArray[np.int64]
    elsewhere: int
    markers: NDArray[np.bool_]
    first: int
    last: int

    def __call__(self, tokens: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the right paths of sequences `[..., seq]`, in the same shape.

        Each depends only on the tokens up to its own.
        """
        index = np.arange(tokens.shape[-1])
        # Place of the last marker up to each token, -1 before the first.
        marker = np.maximum.accumulate(np.where(self.markers[tokens], index, -1), axis=-1)
        label = self.label[np.take_along_axis(tokens, np.maximum(marker, 0), axis=-1)]
        distance = index - marker
        return np.where(
            (marker >= 0) & (distance >= self.first) & (distance <= self.last),
            label,
            self.elsewhere,
        )


def truth_of(config: PlantedConfig) -> Truth:
    """Return the rule that finds the right paths of this task."""
    # Ids in order: symbols, markers of easy segments, markers of hard segments, the opening token.
    markers = np.zeros(config.vocab_size, bool)
    markers[config.symbols : config.vocab_size - 1] = True
    elsewhere = 0 if config.route == "depth" else -1
    label = np.full(config.vocab_size, elsewhere, np.int64)
    hard = config.symbols + config.domains + np.arange(config.domains)
    label[hard] = 1 if config.route == "depth" else np.arange(config.domains)
    return Truth(label, elsewhere, markers, config.order, config.segment_tokens - 2)


def corpus(config: DataConfig) -> Corpus:
    """Generate the splits of a configuration, each from its own random stream."""
    task = config.planted
    assert task is not None and config.max_tokens is not None
    sizes = zip(
        SPLITS,
        (config.max_tokens / task.domains, config.calibration_bytes, config.validation_bytes),
        strict=True,
    )
    # Enough whole documents for each size: a ceiling division.
    splits = [_split(task, name, -int(-size // task.document_tokens)) for name, size in sizes]
    domains = tuple(f"domain{index}" for index in range(task.domains))
    digest = hashlib.sha256(json.dumps([PLANTED_FORMAT, task.canonical()], sort_keys=True).encode())
    for split in splits:
        digest.update(split.tokens.tobytes())
    train, calibration, validation = splits
    return Corpus(
        domains=domains,
        headline_domains=domains,
        overlap=dict.fromkeys(domains, 0.0),
        train=train,
        calibration=calibration,
        validation=validation,
        content_hash=digest.hexdigest(),
        tokenizer=Tokenizer(
            tuple(bytes([FIRST_PIECE + index]) for index in range(task.vocab_size)), _encode
        ),
        truth=truth_of(task),
        route=task.route,
    )


def tables(config: PlantedConfig) -> NDArray[np.int64]:
    """Return the next symbol after `order` symbols of a hard segment: `[domain, symbol, ...]`."""
    return _integers(
        config, "tables", (config.domains, *(config.symbols,) * config.order), config.symbols
    )


def documents(config: PlantedConfig, split: str, count: int) -> NDArray[np.uint8]:
    """Return `count` documents of each domain: `[domain * count, document_tokens]`."""
    total, segments = config.domains * count, config.segments
    domain = np.repeat(np.arange(config.domains), count)
    # Ranks of random numbers: every document gets the same number of hard segments.
    order = _raw(config, f"{split}/kinds", (total, segments)).argsort(axis=1, kind="stable")
    hard = order < config.hard_segments
    marker = config.symbols + hard * config.domains + domain[:, None]
    body = _segments(config, split, hard.ravel(), np.repeat(domain, segments))
    found = np.empty((total, config.document_tokens), np.uint8)
    found[:, 0] = config.vocab_size - 1
    found[:, 1:] = np.concatenate([marker.reshape(-1, 1), body], axis=1).reshape(total, -1)
    return found


def _segments(
    config: PlantedConfig, split: str, hard: NDArray[np.bool_], domain: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the symbols of segments, without their markers: `[segment, segment_tokens - 1]`."""
    shape = (len(hard), config.segment_tokens - 1)
    symbols = _integers(config, f"{split}/symbols", shape, config.symbols)
    # The upper 53 bits make a uniform float64 in [0, 1).
    noisy = (_raw(config, f"{split}/noise", shape) >> np.uint64(11)) * 2.0**-53 < config.noise
    table = tables(config)
    for place in range(1, shape[1]):
        before = symbols[:, max(0, place - config.order) : place]
        easy_next = before[:, -1]
        drawn = noisy[:, place]
        if place >= config.order:
            hard_next = table[(domain, *before.T)]
        else:
            # The table needs `order` symbols: the first symbols of a hard segment are drawn.
            hard_next, drawn = easy_next, drawn | hard
        symbols[:, place] = np.where(drawn, symbols[:, place], np.where(hard, hard_next, easy_next))
    return symbols


def _split(config: PlantedConfig, name: str, count: int) -> Split:
    tokens = documents(config, name, count)
    tags = np.repeat(np.arange(config.domains, dtype=np.uint8), count)
    offsets = np.arange(len(tokens) + 1, dtype=np.int64) * config.document_tokens
    names = tuple(
        f"task{config.seed}/{name}/domain{tag}/{index}"
        for tag in range(config.domains)
        for index in range(count)
    )
    return Split(tokens.ravel(), offsets, tags, names, stride=config.document_tokens)


def _encode(texts: Sequence[str]) -> list[NDArray[np.unsignedinteger]]:
    return [np.frombuffer(text.encode("ascii"), np.uint8) - np.uint8(FIRST_PIECE) for text in texts]


def _integers(
    config: PlantedConfig, name: str, shape: tuple[int, ...], below: int
) -> NDArray[np.int64]:
    return (_raw(config, name, shape) % np.uint64(below)).astype(np.int64)


def _raw(config: PlantedConfig, name: str, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return 64 random bits per entry, a function of the seed and the name."""
    assert config.seed is not None, "DataConfig.at names the seed"
    key = hashlib.sha256(f"planted/{PLANTED_FORMAT}/{config.seed}/{name}".encode()).digest()
    return (
        np.random.Philox(key=np.frombuffer(key, "<u8", 2))
        .random_raw(int(np.prod(shape)))
        .reshape(shape)
    )
