"""Make the synthetic text for checks of routers."""

import numpy as np
import torch

from bench.data import Split, Windows
from bench.routing.contract import TrainStatistics

LENGTH, DOCUMENTS = 4096, 16
"""Tokens and documents per domain."""


def ruled_text(seed: int, vocab_size: int, num_domains: int) -> Split:
    """Make text in which the next token depends on this one and on the domain, with noise."""
    stream = np.random.Generator(np.random.Philox(seed))
    noise = stream.integers(0, vocab_size, (num_domains, LENGTH))
    noisy = stream.random((num_domains, LENGTH)) < 0.25
    tokens = noise.copy()
    for step in range(1, LENGTH):
        # A fixed affine rule of the last token and the domain.
        rule_says = (tokens[:, step - 1] * 5 + 7 * np.arange(num_domains) + 1) % vocab_size
        tokens[:, step] = np.where(noisy[:, step], noise[:, step], rule_says)
    total = num_domains * DOCUMENTS
    return Split(
        tokens=tokens.ravel().astype(np.uint8),
        offsets=np.linspace(0, tokens.size, total + 1).astype(np.int64),
        document_tags=np.repeat(np.arange(num_domains, dtype=np.uint8), DOCUMENTS),
        document_names=tuple(f"document{index}" for index in range(total)),
    )


def counts_of(split: Split, vocab_size: int) -> TrainStatistics:
    """Count tokens and pairs of tokens."""
    tokens = split.tokens.astype(np.int64)
    pairs = np.bincount(tokens[:-1] * vocab_size + tokens[1:], minlength=vocab_size**2)
    return TrainStatistics(
        torch.from_numpy(np.bincount(tokens, minlength=vocab_size)),
        torch.from_numpy(pairs.reshape(vocab_size, vocab_size)),
    )


def windows_of(split: Split, count: int, seq_len: int, noise: torch.Generator) -> Windows:
    """Cut windows of `seq_len + 1` tokens at random places, domains in turn."""
    num_domains = len(split.tokens) // LENGTH
    tags = np.arange(count) % num_domains
    places = torch.randint(LENGTH - seq_len - 1, (count,), generator=noise).numpy()
    positions = (tags * LENGTH + places)[:, None] + np.arange(seq_len + 1)
    tokens = split.tokens[positions].astype(np.int64)
    return Windows(tokens, tags, split.documents_at(positions))
