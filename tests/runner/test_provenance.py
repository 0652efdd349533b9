"""The commit in a record is that of the bench's own sources, or none."""

import subprocess
from pathlib import Path

import pytest

from bench.runner.provenance import NAME, commit_state

UNKNOWN = ("unknown", True)


def repository(root: Path, name: str = NAME) -> Path:
    (root / "bench").mkdir(parents=True)
    (root / "bench/__init__.py").write_text("")
    (root / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    git(root, "init", "-q")
    return root


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(root), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path) -> str:
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    return git(root, "rev-parse", "HEAD")


def test_the_commit_of_our_tree_and_whether_sources_differ(tmp_path: Path) -> None:
    root = repository(tmp_path / "ours")
    made = commit(root)
    assert commit_state(root) == (made, False)
    (root / "results").mkdir()
    (root / "results/new.json").write_text("{}")
    assert commit_state(root) == (made, False)
    (root / "bench/__init__.py").write_text("x = 1")
    assert commit_state(root) == (made, True)


def test_the_repository_around_an_installed_package_is_not_ours(tmp_path: Path) -> None:
    stranger = repository(tmp_path / "app", "somebody-elses-app")
    commit(stranger)
    assert commit_state(stranger) == UNKNOWN
    # an unpacked copy that the repository around it ignores
    copy = stranger / "vendor"
    (copy / "bench").mkdir(parents=True)
    (copy / "bench/__init__.py").write_text("")
    (copy / "pyproject.toml").write_text(f'[project]\nname = "{NAME}"\n')
    (stranger / ".gitignore").write_text("vendor\n")
    assert commit_state(copy) == UNKNOWN
    assert commit_state(tmp_path) == UNKNOWN


def test_an_inherited_git_directory_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, other = repository(tmp_path / "ours"), repository(tmp_path / "other")
    (other / "more").write_text("")
    made = commit(root)
    assert commit(other) != made
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert commit_state(root) == (made, False)
