"""Turn text into tokens: sources, splits by whole document, domain tags, batches and windows.

Uses NumPy, not torch.
"""

from bench.config.data import DataConfig
from bench.data.card import corpus_card, corpus_line
from bench.data.corpus import Corpus, Split
from bench.data.load import declared_corpus, load_corpus
from bench.data.sampling import Batch, Windows, statistics, train_batch, windows
from bench.data.supply import check_windows

__all__ = [
    "Batch",
    "Corpus",
    "DataConfig",
    "Split",
    "Windows",
    "check_windows",
    "corpus_card",
    "corpus_line",
    "declared_corpus",
    "load_corpus",
    "statistics",
    "train_batch",
    "windows",
]
