"""Extract plain text from the files of packages.

A reader takes the folder of a package and yields (name, text) pairs.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FileReader = Callable[[Path], Iterator[tuple[str, str]]]

_MARKUP = re.compile(r"<[^>]*>")
# A gettext message, with its plural forms: one or more quoted lines.
_TRANSLATED = re.compile(r'^msgstr(?:\[\d\])? ((?:"[^\n]*"\n?)+)', re.MULTILINE)
# Book, chapter and verse in one number, and the verse's first character.
_VERSE = re.compile(r"^        (\d+)(\d{3})(\d{3}): (\d+),$", re.MULTILINE)


def speeches(root: Path) -> Iterator[tuple[str, str]]:
    """Read addresses to Congress, one per document."""
    for file in (root / "data" / "speeches").glob("*.txt"):
        yield file.stem, file.read_text(encoding="utf-8")


def python_sources(root: Path) -> Iterator[tuple[str, str]]:
    """Read modules, without tests and tables of locales, which repeat each other."""
    for file in root.rglob("*.py"):
        name = file.relative_to(root).as_posix()
        if not re.search(r"(^|/)(tests?|locale)/|(^|/)(test_|conftest)", name):
            yield name, file.read_text(encoding="utf-8")


def translations(root: Path) -> Iterator[tuple[str, str]]:
    """Read the translated messages of gettext catalogues, each once, without the English."""
    for file in root.rglob("*.po"):
        if "/locale/en" in file.as_posix():
            continue
        # The first message of a catalogue is its header.
        quoted = _TRANSLATED.findall(file.read_text(encoding="utf-8"))[1:]
        messages = (
            "".join(ast.literal_eval(line) for line in lines.splitlines()) for lines in quoted
        )
        yield (
            file.relative_to(root).as_posix(),
            "\n".join(dict.fromkeys(message for message in messages if message)),
        )


def chapters(root: Path) -> Iterator[tuple[str, str]]:
    """Read the chapters of a Bible, one verse per line.

    The file holds the whole text as one literal. A table from (book, chapter, verse) to the verse's
    first character follows, then further tables that are not needed.
    """
    source = (root / "plain_text_readers_bible.py").read_text(encoding="utf-8")
    _, text, table = source.split('"""', 2)
    verses = [
        (f"{int(book):02}-{chapter}", int(start))
        for book, chapter, _, start in _VERSE.findall(table[: table.index("}")])
    ]
    # A verse ends where the next begins.
    ends = [start for _, start in verses[1:]] + [len(text)]
    lines: dict[str, list[str]] = {}
    for (chapter, start), end in zip(verses, ends, strict=True):
        lines.setdefault(chapter, []).append(" ".join(text[start:end].replace("`", "'").split()))
    for chapter, verse_lines in lines.items():
        yield chapter, "\n".join(verse_lines)


def factbook(root: Path) -> Iterator[tuple[str, str]]:
    """Read entries of countries, one fact per line."""
    for file in (root / "data").glob("*/*.json"):
        facts = _facts(json.loads(file.read_text(encoding="utf-8")), "")
        yield f"{file.parent.name}/{file.stem}", "\n".join(facts)


def _facts(node: Any, name: str) -> Iterator[str]:
    # A fact is named after the nearest key that is not the plain "text".
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _facts(value, name if key == "text" else key.strip())
    elif isinstance(node, list):
        for value in node:
            yield from _facts(value, name)
    elif node:
        yield f"{name}: {' '.join(_MARKUP.sub(' ', str(node)).split())}"
