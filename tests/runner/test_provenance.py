"""The provenance of a record: the machine, and the commit of the bench's own sources or none."""

import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.runner.provenance import NAME, commit_state, instructions, machine_of, processor

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


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = repository(tmp_path / "ours")
    made = commit(root)
    assert commit_state(root) == (made, False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_state(root) == UNKNOWN


def test_versions_and_precision_are_those_in_use_and_threads_those_of_a_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A dry run looks cells up, and does not run them: its own threads are all cores.
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    made = machine_of(torch.device("cpu"), "bfloat16")
    assert made == {
        "device": "cpu",
        "threads": 1,
        "dtype": "bfloat16",
        "versions": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": ".".join(platform.python_version().split(".")[:2]),
        },
    }


def test_an_accelerator_is_named_by_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"made up {device.index}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert machine_of(torch.device("cuda", 1), "float32")["device"] == "cuda:made up 1"
    # A machine that only submits jobs.
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert machine_of(torch.device("cuda", 1), "float32")["device"] == "cuda:unknown"


@pytest.mark.parametrize(
    ("device", "dtype", "found", "said"),
    [
        ("cpu", "bfloat16", {"amx_bf16": True, "avx512_bf16": True}, "amx_bf16"),
        ("cpu", "bfloat16", {"amx_bf16": False, "avx512_bf16": True}, "avx512_bf16"),
        ("cpu", "bfloat16", {"avx2": True}, "none"),
        ("cpu", "float32", {"avx512_bf16": True}, ""),
        ("cuda:NVIDIA H100", "bfloat16", {"avx512_bf16": True}, ""),
    ],
)
def test_a_cpu_names_its_instructions_for_bfloat16(
    device: str, dtype: str, found: dict[str, bool], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert instructions(device, dtype) == said


def test_the_processor_is_one_line_of_the_system() -> None:
    name = processor()
    assert name and name == name.strip() and "\n" not in name
    info = Path("/proc/cpuinfo")
    if info.is_file() and "model name" in info.read_text(encoding="utf-8"):
        assert f": {name}\n" in info.read_text(encoding="utf-8")
