"""The project's own description of itself.

The sources use exactly the packaged, declared and pinned distributions.
"""

import ast
import importlib
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in PROJECT["project"]["optional-dependencies"].items()
}
DEPENDENCIES = [Requirement(line) for line in PROJECT["project"]["dependencies"]]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in lines]
    assert all(matches), (
        "every line of constraints.txt is NAME==VERSION, without local version, path or host"
    )
    return {canonicalize_name(match[1]): match[2] for match in matches if match}


def test_every_package_is_listed() -> None:
    folders = {
        file.parent.relative_to(ROOT)
        for top in ("bench", "routers")
        for file in (ROOT / top).rglob("*.py")
    }
    assert {".".join(folder.parts) for folder in folders} == set(
        PROJECT["tool"]["setuptools"]["packages"]
    )
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


def test_the_script_is_a_function_of_the_bench() -> None:
    for target in PROJECT["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_every_data_file_is_packaged() -> None:
    declared = PROJECT["tool"]["setuptools"]["package-data"]
    packaged = {
        file
        for name, globs in declared.items()
        for glob in globs
        for file in (ROOT / name.replace(".", "/")).glob(glob)
    }
    there = {
        file
        for folder in ("bench", "routers")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and file.suffix not in {".py", ".pyc", ".md"}
    }
    assert there == packaged


def test_every_declared_package_is_pinned_within_its_range() -> None:
    pinned = pins()
    for requirement in [*DEPENDENCIES, *(extra for extras in EXTRAS.values() for extra in extras)]:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_the_corpus_is_pinned_to_the_versions_of_its_manifest() -> None:
    """With any other version a run refuses the text."""
    manifest = json.loads((ROOT / "bench/data/manifest.json").read_text("utf-8"))
    assert {str(requirement) for requirement in EXTRAS["corpus"]} == {
        f"{name}=={part['version']}" for name, part in manifest.items()
    }


def test_every_import_is_of_a_declared_package() -> None:
    """A package that another one happens to bring works until it does not."""
    declared = {
        canonicalize_name(requirement.name)
        for requirement in [*DEPENDENCIES, *EXTRAS["corpus"], *EXTRAS["ray"], *EXTRAS["slurm"]]
    }
    distributions = packages_distributions()
    for file in [*(ROOT / "bench").rglob("*.py"), *(ROOT / "routers").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for top in (
                {name.split(".")[0] for name in names}
                - set(sys.stdlib_module_names)
                - {"bench", "routers"}
            ):
                # The executors of clusters may be missing; their names are those of their packages.
                found = distributions.get(top, [top])
                assert {canonicalize_name(name) for name in found} & declared, (
                    f"{file.name} imports {top}"
                )
