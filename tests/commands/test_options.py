"""What the shared arguments are read as, and what is refused."""

import argparse
import os
from pathlib import Path

import pytest

from bench.commands import options
from bench.commands.options import (
    add_suite,
    default_workers,
    natural,
    overrides,
    parse_seeds,
    seconds,
)
from bench.config.suite import MOST_SEEDS
from bench.errors import UserError


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [0, 1, 2]), ("1", [0]), ("7,", [7]), ("0,2,5", [0, 2, 5])]
)
def test_seeds_are_a_number_or_a_list(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "-1", "", ",", "x", "1,1", "1,-1", "1.5", str(10**13)])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"--seeds is '{text}': give"):
        parse_seeds(text)
    assert len(parse_seeds(str(MOST_SEEDS))) == MOST_SEEDS


def test_numbers_are_read_and_anything_else_is_named() -> None:
    assert (natural("0"), natural("12"), seconds("0"), seconds("2.5")) == (0, 12, 0.0, 2.5)
    for read, texts in ((natural, ("-1", "x", "1.0")), (seconds, ("-1", "inf", "nan", "x"))):
        for text in texts:
            with pytest.raises(argparse.ArgumentTypeError, match=f"it is '{text}'; give a"):
                read(text)


def test_only_what_was_given_overrides_the_suite() -> None:
    parser = argparse.ArgumentParser()
    add_suite(parser)
    assert overrides(parser.parse_args([])) == {}
    given = parser.parse_args(["--budget", "0.25", "--match", "tokens"])
    assert overrides(given) == {"budget": 0.25, "match": "tokens"}


def test_there_is_a_worker_for_each_core_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "cpu_quota", lambda: None)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert default_workers() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert default_workers() == 7


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "300000 100000\n"}, 3.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_the_quota_of_a_container_is_read(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    assert options.cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("quota", "workers"), [(0.5, 1), (3.0, 3), (64.0, 8), (None, 8)])
def test_workers_fit_into_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, workers: int
) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(options, "cpu_quota", lambda: quota)
    assert options.default_workers() == workers
