"""Whole documents to training, calibration and validation, by the hash of their content.

Hash order is a shuffle that needs no seed and does not change when documents are listed in another
order.
"""

from collections.abc import Iterable

from bench.config.data import DataConfig
from bench.data.documents import Document
from bench.errors import UserError

SPLITS = ("train", "calibration", "validation")
MAX_DOMAINS = 255


def divide(documents: Iterable[Document], config: DataConfig) -> dict[str, list[Document]]:
    """Deal documents to `SPLITS`, each split ordered by domain and, within it, by hash.

    Equal texts are kept once.

    A domain gives documents to validation until `validation_bytes` (or `max_holdout` of the domain,
    if that is less) is reached, then likewise to calibration; the rest is for training.

    Raises:
        UserError: no text, too many domains, or a domain with too few documents to hold any out.
    """
    unique = {document.digest: document for document in documents if document.text.strip()}
    if not unique:
        raise UserError(
            f"The data {config.path or config.source!r} holds no text in {config.text_column!r}: check path and text_column."
        )
    domains: dict[str, list[Document]] = {}
    for digest in sorted(unique):
        domains.setdefault(unique[digest].domain, []).append(unique[digest])
    if len(domains) > MAX_DOMAINS:
        raise UserError(
            f"domain_column {config.domain_column!r} has {len(domains)} values: at most {MAX_DOMAINS} are allowed."
        )
    splits: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for domain in sorted(domains):
        held, rest = _take(domains[domain], config.validation_bytes, config.max_holdout)
        calibration, train = _take(rest, config.calibration_bytes, config.max_holdout)
        if not train:
            raise UserError(
                f"Domain {domain!r} has {len(domains[domain])} distinct documents, too few for training, calibration and validation:"
                " give more and shorter ones, or raise max_tokens."
            )
        splits["validation"] += held
        splits["calibration"] += calibration
        splits["train"] += train
    return splits


def _take(
    documents: list[Document], limit: int, share: float
) -> tuple[list[Document], list[Document]]:
    target = min(limit, share * sum(len(document.data) for document in documents))
    taken = count = 0
    while count < len(documents) and taken < target:
        taken += len(documents[count].data)
        count += 1
    return documents[:count], documents[count:]
