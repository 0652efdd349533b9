import json
from typing import Any

import pytest

from bench.config.read_suite import load_suite
from bench.config.suite import SuiteConfig
from bench.data import Corpus, DataConfig, check_windows, load_corpus, windows
from bench.errors import UserError
from tests.data.conftest import prose


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two domains, of which `b` is half as large."""
    folder = tmp_path_factory.mktemp("supply")
    rows = [{"text": prose(i), "kind": "aab"[i % 3]} for i in range(150)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"path": str(folder / "t.jsonl"), "domain_column": "kind"}
    return load_corpus(DataConfig.model_validate(data), folder)


def suite(seq_len: int = 64, **evaluation: int) -> SuiteConfig:
    counts = {"calibration_windows": 1, "validation_windows": 1, "probe_windows": 1}
    data: dict[str, Any] = {"name": "own", "purpose": "", "backbone": "tiny", "routed_layers": [1]}
    data |= {"seq_len": seq_len, "train": {"reference_tokens": 1000}, "rows": ["random"]}
    return SuiteConfig.model_validate(data | {"evaluation": counts | evaluation})


def held(corpus: Corpus, split: str) -> int:
    """Windows of 65 tokens that every domain has, by cutting them."""
    found = windows(getattr(corpus, split), seq_len=64)
    return len(found.tokens) // len(corpus.domains)


@pytest.mark.parametrize(
    ("field", "split"),
    [
        ("calibration_windows", "calibration"),
        ("validation_windows", "validation"),
    ],
)
def test_the_largest_number_passes_and_one_more_is_refused(
    corpus: Corpus, field: str, split: str
) -> None:
    most = held(corpus, split)
    check_windows(corpus, suite(**{field: most}))
    with pytest.raises(UserError) as error:
        check_windows(corpus, suite(**{field: most + 1}))
    assert f"evaluation.{field} is {most + 1}, and the {split} split of domain 'b' has" in str(
        error.value
    )
    assert f"set it to at most {most}" in str(error.value)
    with pytest.raises(UserError, match=f"allowed are 1 to {most}"):
        windows(getattr(corpus, split), seq_len=64, per_domain=most + 1)


def test_probes_need_both_splits(corpus: Corpus) -> None:
    most = min(held(corpus, "calibration"), held(corpus, "validation"))
    check_windows(corpus, suite(probe_windows=most))
    with pytest.raises(UserError, match=f"probe_windows is {most + 1}, .* at most {most}"):
        check_windows(corpus, suite(probe_windows=most + 1))


def test_every_field_is_said_at_once(corpus: Corpus) -> None:
    with pytest.raises(UserError, match=r"calibration_windows is .*; .*validation_windows is "):
        check_windows(corpus, suite(calibration_windows=10**6, validation_windows=10**6))


def test_a_sequence_longer_than_a_split_is_refused_with_the_longest(corpus: Corpus) -> None:
    parts = {
        "training": corpus.train,
        "calibration": corpus.calibration,
        "validation": corpus.validation,
    }
    tokens = {
        name: min(stop - start for start, stop in part.domain_ranges)
        for name, part in parts.items()
    }
    shortest = min(tokens, key=tokens.__getitem__)
    longest = tokens[shortest] - 1
    check_windows(corpus, suite(seq_len=longest))
    said = f"the {shortest} split of domain 'b' has .* set it to at most {longest},"
    with pytest.raises(UserError, match=f"seq_len is {longest + 1}, and {said}"):
        check_windows(corpus, suite(seq_len=longest + 1))
    with pytest.raises(UserError, match=r"the training split of domain 'b'"):
        check_windows(corpus, suite(seq_len=tokens["training"]))


@pytest.mark.parametrize("name", ["planted-depth", "planted-experts"])
def test_the_suites_that_come_with_the_bench_have_enough(name: str) -> None:
    config = load_suite(name)
    check_windows(load_corpus(config.data.at(0)), config)
