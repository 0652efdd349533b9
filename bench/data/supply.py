"""Check, before any training, that a corpus holds all windows that a suite asks for."""

from bench.config.suite import SuiteConfig
from bench.data.corpus import Corpus, Split
from bench.errors import UserError


def check_windows(corpus: Corpus, suite: SuiteConfig) -> None:
    """Refuse a suite that needs more or longer windows than its corpus has.

    A window holds `seq_len` + 1 tokens of one domain, and windows do not overlap. Each domain must
    give all windows of both held-out splits, and at least one sequence for training.

    Raises:
        UserError: in one line, each field that asks for too much, with the split, the domain with
            the fewest windows and the largest allowed value.
    """
    size, wanted = suite.seq_len + 1, suite.evaluation
    domain, tokens = _shortest(corpus, corpus.train)
    if tokens < size:
        raise UserError(_too_long(suite.seq_len, "training", domain, tokens))
    asked = (
        ("calibration", corpus.calibration, "calibration_windows", wanted.calibration_windows),
        ("calibration", corpus.calibration, "probe_windows", wanted.probe_windows),
        ("validation", corpus.validation, "validation_windows", wanted.validation_windows),
        ("validation", corpus.validation, "probe_windows", wanted.probe_windows),
    )
    # Report all fields at once, so that one correction is enough.
    problems: list[str] = []
    for name, split, field, number in asked:
        domain, tokens = _shortest(corpus, split)
        held = tokens // size
        if not held:
            raise UserError(_too_long(suite.seq_len, name, domain, tokens))
        if number > held:
            problems.append(
                f"evaluation.{field} is {number}, and the {name} split of domain {domain!r} has"
                f" {held} windows of {size} tokens: set it to at most {held}"
            )
    if problems:
        raise UserError(f"{'; '.join(problems)}, or give more text.")


def _shortest(corpus: Corpus, split: Split) -> tuple[str, int]:
    """Return the domain with the fewest tokens in a split, and their number."""
    sizes = [stop - start for start, stop in split.domain_ranges]
    return min(zip(corpus.domains, sizes, strict=True), key=lambda pair: pair[1])


def _too_long(seq_len: int, split: str, domain: str, tokens: int) -> str:
    return (
        f"seq_len is {seq_len}, and the {split} split of domain {domain!r} has {tokens} tokens in"
        f" all: set it to at most {tokens - 1}, or give more text."
    )
