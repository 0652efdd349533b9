"""The values of the shared arguments, and the refused ones."""

import argparse

import pytest

from bench.commands.options import (
    add_assignments,
    add_executor,
    add_suite,
    cluster_settings,
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


def test_a_field_is_given_by_its_option_or_by_set() -> None:
    parser = argparse.ArgumentParser()
    add_suite(parser)
    add_assignments(parser)
    given = ["--budget", "0.25", "--set", "seeds=3"]
    assert overrides(parser.parse_args(given)) == {"budget": 0.25}
    with pytest.raises(UserError, match=r"--budget is 0\.25, and --set 'budget=0\.5' assigns the"):
        overrides(parser.parse_args([*given, "--set", "budget=0.5"]))


def test_fields_of_a_cluster_are_read_as_yaml() -> None:
    parser = argparse.ArgumentParser()
    add_executor(parser)
    assert cluster_settings(parser.parse_args([])) == {}
    given = parser.parse_args(["--cluster", "timeout_min=30", "--cluster", "slurm_partition=gpu"])
    assert cluster_settings(given) == {"timeout_min": 30, "slurm_partition": "gpu"}
    for wrong in ("gpu", "=3"):
        with pytest.raises(UserError, match=f"--cluster is '{wrong}'; give FIELD=VALUE"):
            cluster_settings(parser.parse_args(["--cluster", wrong]))
    with pytest.raises(UserError, match="--cluster 'a=\\[': the value"):
        cluster_settings(parser.parse_args(["--cluster", "a=["]))
