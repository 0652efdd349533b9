"""Deal whole documents to training, calibration and validation, by the hash of their content.

The order of hashes is a shuffle without a seed. It does not depend on the order of the documents.
"""

from collections.abc import Collection, Iterable

from bench.config.data import DataConfig
from bench.data.documents import Document, Intake
from bench.errors import UserError

SPLITS = ("train", "calibration", "validation")
MAX_DOMAINS = 255
ROUNDING = 1.1
"""A held-out split may exceed its share by this factor, because documents are whole."""


def divide(
    documents: Iterable[Document], config: DataConfig, intake: Intake | None = None
) -> dict[str, list[Document]]:
    """Deal documents to `SPLITS`, each split ordered by domain and, within it, by hash.

    Equal texts are kept once. The hash of a text in several domains chooses the domain that keeps
    it, so the result does not depend on the order of the documents.

    A domain gives documents to validation up to `validation_bytes`, or up to `max_holdout` of the
    domain if that is less. Then it gives to calibration in the same way, and the rest to training.
    Documents too large for a held-out split stay in training. Each split gets at least one
    document.

    Args:
        documents: all documents of all domains, in any order.
        config: the sizes of the splits.
        intake: receives counts of empty texts, duplicates and documents too large to be held out.

    Raises:
        UserError: no text, too many domains, or a domain with too few documents.
    """
    intake = Intake() if intake is None else intake
    domains = _distinct(documents, intake)
    _check_number(domains, config, intake)
    splits: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for domain in sorted(domains):
        # A longer document would take more than its split may have, so it is only counted here.
        largest = _largest(domains[domain], config.validation_bytes, config.max_holdout)
        intake.long += sum(len(document.data) > largest for document in domains[domain])
        held, rest = _take(domains[domain], config.validation_bytes, config.max_holdout)
        # Calibration takes from the rest of validation, so no document is in both.
        calibration, train = _take(rest, config.calibration_bytes, config.max_holdout)
        if not (held and calibration and train):
            raise UserError(
                f"Domain {domain!r} has {len(domains[domain])} distinct documents, too few for"
                " training, calibration and validation: give more and shorter ones, or raise"
                " max_tokens."
            )
        splits["validation"] += held
        splits["calibration"] += calibration
        splits["train"] += train
    return splits


def _distinct(documents: Iterable[Document], intake: Intake) -> dict[str, list[Document]]:
    """Return the distinct documents of each domain in hash order, and count the others.

    A domain without any gets an empty list.
    """
    copies: dict[str, dict[str, Document]] = {}  # digest -> domain -> document
    domains: dict[str, list[Document]] = {}
    for document in documents:
        if not document.text.strip():
            intake.dropped["empty"] += 1
            continue
        domains.setdefault(document.domain, [])
        homes = copies.setdefault(document.digest, {})
        intake.dropped["duplicate"] += document.domain in homes
        homes.setdefault(document.domain, document)
    for digest in sorted(copies):
        homes = sorted(copies[digest])
        intake.dropped["duplicate in another domain"] += len(homes) - 1
        # Use the end of the digest, because its beginning decides the split.
        home = homes[int(digest[-8:], 16) % len(homes)]
        domains[home].append(copies[digest][home])
    return domains


def _check_number(domains: Collection[str], config: DataConfig, intake: Intake) -> None:
    """Raise a `UserError` if there is no domain, or too many for a tag of one byte."""
    if not domains:
        raise UserError(
            f"The data {config.path or config.source!r} holds no text in {config.text_column!r}"
            f" (left out: {intake.left_out()}): check path, text_column and domain_column."
        )
    if len(domains) > MAX_DOMAINS:
        raise UserError(
            f"domain_column {config.domain_column!r} has {len(domains)} values:"
            f" at most {MAX_DOMAINS} are allowed."
        )


def _largest(documents: list[Document], limit: int, share: float) -> float:
    """Return the size, in bytes, of the largest document that may be held out.

    It is `share` of the domain, or `limit` if that is less and some document is that small. If all
    documents are larger than `share`, it is the size of the smallest document.
    """
    sizes = [len(document.data) for document in documents]
    within = share * sum(sizes)
    if limit < within and any(size <= limit for size in sizes):
        return limit
    return max(within, min(sizes, default=0))


def _take(
    documents: list[Document], limit: int, share: float
) -> tuple[list[Document], list[Document]]:
    """Return the documents to hold out and the rest, both in the given order."""
    largest = _largest(documents, limit, share)
    # Large documents do not count: a tenth of one could be larger than all others together.
    room = share * sum(len(d.data) for d in documents if len(d.data) <= largest)
    taken: list[Document] = []
    rest: list[Document] = []
    size = 0
    for document in documents:
        length = len(document.data)
        # Hash order decides. A document that does not fit is left to training, and dealing goes on.
        wanted = size < min(limit, room) and length <= largest
        if wanted and (not taken or size + length <= ROUNDING * room):
            taken.append(document)
            size += length
        else:
            rest.append(document)
    return taken, rest
