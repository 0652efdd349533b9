"""Measure how much of one text occurs in another, by shared 13-grams of words.

Brown et al. (arXiv:2005.14165, appendix C) use this for test text that leaked into training. A word
is a run of ASCII letters, digits, underscores and bytes beyond ASCII, in lower case. In scripts
without spaces (Chinese, Japanese, Thai, Lao, Tibetan, Burmese, Khmer) each character is a word,
because a run would be a whole sentence. Words are defined on bytes, so that the result does not
depend on the Unicode tables of a Python version.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, repeat

import numpy as np
from numpy.typing import NDArray

from bench.data.documents import Document

NGRAM = 13
_RUN = re.compile(rb"[0-9a-z_\x80-\xff]+")
# UTF-8 of the scripts without spaces, by first code point. A continuation byte never begins one.
_UNSPACED = b"|".join(
    (
        rb"\xe0[\xb8-\xbf][\x80-\xbf]",  # Thai 0E00, Lao, Tibetan to 0FFF
        rb"\xe1(?:[\x80\x81\x9e\x9f][\x80-\xbf]|\x82[\x80-\x9f])",  # Burmese 1000, Khmer 1780
        rb"\xe3[\x80-\x83\x90-\xbf][\x80-\xbf]",  # kana and CJK signs 3000, ideographs 3400
        rb"[\xe4-\xe9][\x80-\xbf]{2}",  # ideographs to 9FFF
        rb"\xef[\xa4-\xab][\x80-\xbf]",  # compatibility ideographs F900
        rb"\xf0[\xa0-\xbf][\x80-\xbf]{2}",  # ideographs from 20000
    )
)
_WORD = re.compile(
    rb"%(unspaced)s|(?:[0-9a-z_]+|(?!%(unspaced)s)[\x80-\xff])+" % {b"unspaced": _UNSPACED}
)


def overlap(
    validation: Mapping[str, Sequence[Document]], training: Iterable[Document]
) -> dict[str, float]:
    """Return the share of each domain's validation 13-grams that occur in any training document.

    Args:
        validation: domain -> its validation documents.
        training: the training documents of all domains.

    Returns:
        Domain -> share between 0 and 1, counted by occurrence; 0 if no document has 13 words.
    """
    vocabulary = _vocabulary()
    grams = {
        domain: [_ngrams(_ids(_words(document), vocabulary)) for document in documents]
        for domain, documents in validation.items()
    }
    wanted = np.unique(
        np.concatenate(
            [np.empty(0, np.uint64), *(part for parts in grams.values() for part in parts)]
        )
    )
    if not len(wanted):
        return dict.fromkeys(grams, 0.0)
    hit = np.zeros(len(wanted), bool)
    for document in training:
        # A word that is not in validation gets the id 0, which no validation n-gram holds.
        found = _ngrams(np.fromiter(map(vocabulary.get, _words(document), repeat(0)), np.uint64))
        # Look up each n-gram in the sorted list, and mark the places of those that are in it.
        place = np.minimum(np.searchsorted(wanted, found), len(wanted) - 1)
        hit[place[wanted[place] == found]] = True
    return {
        domain: _share(np.concatenate([np.empty(0, np.uint64), *parts]), wanted, hit)
        for domain, parts in grams.items()
    }


def drop_near_duplicates(documents: Iterable[Document], threshold: float) -> Iterable[Document]:
    """Drop each document if more than `threshold` of its 13-grams occur in those kept before it.

    Here a run of bytes beyond ASCII is one word in any script. The embedded corpus was selected by
    this rule, and another rule would change it.
    """
    vocabulary = _vocabulary()
    seen: set[int] = set()
    for document in documents:
        grams = _ngrams(_ids(_RUN.findall(document.data.lower()), vocabulary)).tolist()
        if sum(map(seen.__contains__, grams)) <= threshold * len(grams):
            seen.update(grams)
            yield document


def _words(document: Document) -> list[bytes]:
    return _WORD.findall(document.data.lower())


def _vocabulary() -> defaultdict[bytes, int]:
    """Return an empty map from words to ids, which counts from 1 in order of appearance."""
    return defaultdict(count(1).__next__)


def _ids(words: Iterable[bytes], vocabulary: defaultdict[bytes, int]) -> NDArray[np.uint64]:
    return np.fromiter(map(vocabulary.__getitem__, words), np.uint64)


def _ngrams(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a 64-bit polynomial hash of each run of 13 word ids.

    Among 10^7 runs the odds of a collision by chance are 1 in 10^5.
    """
    # Mix the bits of each id first: small ids would make similar polynomials.
    mixed = (ids + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(31)
    length = max(0, len(ids) - NGRAM + 1)
    result = np.zeros(length, np.uint64)
    for start in range(NGRAM):
        result = result * np.uint64(0x94D049BB133111EB) + mixed[start : start + length]
    return result


def _share(grams: NDArray[np.uint64], wanted: NDArray[np.uint64], hit: NDArray[np.bool_]) -> float:
    return float(hit[np.searchsorted(wanted, grams)].mean()) if len(grams) else 0.0
