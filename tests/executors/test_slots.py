"""The number of workers: cores of the process, and limits of the groups that it lies in."""

import os
from pathlib import Path

import pytest
import torch

from bench.errors import UserError
from bench.executors import slots

HALF, TWO, NONE = "50000 100000\n", "200000 100000\n", "max 100000\n"


def test_there_is_a_worker_for_each_core_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "cpu_quota", lambda: None)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert slots.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert slots.cores() == 7


def legacy(group: str, quota: int) -> dict[str, str]:
    """Return the two files of a group of version 1."""
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        (None, {}, None),
        # version 2, in a container that sees its own group as the root
        ("0::/\n", {"cpu.max": NONE}, None),
        ("0::/\n", {"cpu.max": HALF}, 0.5),
        (None, {"cpu.max": TWO}, 2.0),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("nonsense", {"cpu.max": HALF}, 0.5),
        # nested groups: the least limit on the way to the root
        ("0::/user.slice/app.scope\n", {"user.slice/app.scope/cpu.max": HALF}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": NONE, "a/cpu.max": TWO}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": TWO, "a/cpu.max": HALF, "a/c/cpu.max": "1 100\n"}, 0.5),
        ("0::/a:b\n", {"a:b/cpu.max": HALF}, 0.5),
        # a path of the machine, or beyond the container, that is not there
        ("0::/docker/4f\n", {"cpu.max": TWO}, 2.0),
        ("0::/../other\n", {"cpu.max": TWO}, 2.0),
        # version 1: a tree a controller, with others or alone
        ("4:cpu,cpuacct:/\n1:memory:/m\n", legacy("cpu", -1), None),
        ("4:cpu,cpuacct:/docker/4f\n0::/\n", legacy("cpu", 200000), 2.0),
        ("4:cpu,cpuacct:/docker/4f\n", legacy("cpu,cpuacct/docker/4f", 50000), 0.5),
        ("4:cpu:/a/b\n", legacy("cpu/a", 150000) | legacy("cpu/a/b", -1), 1.5),
        ("9:cpuset:/a\n4:cpu:/b\n", legacy("cpu/a", 50000) | legacy("cpu/b", 300000), 3.0),
    ],
)
def test_the_least_quota_on_the_way_to_the_root_is_read(
    tmp_path: Path, membership: str | None, files: dict[str, str], quota: float | None
) -> None:
    groups = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in (groups | ({"proc/self/cgroup": membership} if membership else {})).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    assert slots.cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("quota", "workers"), [(0.5, 1), (3.0, 3), (64.0, 8), (None, 8)])
def test_workers_fit_into_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, workers: int
) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(slots, "cpu_quota", lambda: quota)
    assert slots.cores() == workers


@pytest.mark.parametrize(
    ("given", "count", "names"),
    [(None, 2, ["0", "1"]), ("", 1, ["0"]), ("3, 5", 2, ["3", "5"]), ("GPU-ab", 1, ["GPU-ab"])],
)
def test_gpus_have_the_names_that_a_scheduler_gave_them(
    monkeypatch: pytest.MonkeyPatch, given: str | None, count: int, names: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert slots.gpus() == names


def test_a_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    # Of the commands that come here, `study` and `reproduce` have no option --device.
    with pytest.raises(UserError, match=r"^device is 'cuda', and this machine has no GPU"):
        slots.gpus()
