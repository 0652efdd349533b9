"""The planted task: the text fits its description, and the truth depends on no later
token.
"""

import itertools
from collections import Counter
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.config.data import PlantedConfig
from bench.data import DataConfig, load_corpus, train_batch, windows
from bench.data.optimum import best_loss, hard_share, symbol_entropy
from bench.data.planted import documents, tables, truth_of

TASKS = st.builds(
    PlantedConfig,
    route=st.sampled_from(["depth", "experts"]),
    domains=st.integers(2, 4),
    symbols=st.integers(2, 9),
    order=st.integers(1, 3),
    segments=st.integers(1, 5),
    segment_tokens=st.integers(5, 9),
    easy=st.floats(0, 1),
    noise=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 3),
)


def read(task: PlantedConfig, document: list[int]) -> list[tuple[str, int, int]]:
    """(kind, domain, place in the segment) of each token, by the description alone."""
    kind, domain, place, found = "opening", -1, 0, []
    for token in document:
        place += 1
        if task.symbols <= token < task.vocab_size - 1:
            easy = token < task.symbols + task.domains
            kind, domain, place = (
                ("easy" if easy else "hard"),
                (token - task.symbols) % task.domains,
                0,
            )
        found.append((kind, domain, place))
    return found


@given(TASKS)
@settings(max_examples=40, deadline=None)
def test_documents_are_as_described(task: PlantedConfig) -> None:
    found = documents(task, "train", 3)
    assert found.shape == (3 * task.domains, task.document_tokens)
    assert np.array_equal(found, documents(task, "train", 3))
    assert np.array_equal(found[:3], documents(task, "train", 3)[:3])
    table, truth = tables(task), truth_of(task)(found)
    for row, document in enumerate(found.tolist()):
        parts = read(task, document)
        markers = [(kind, domain) for kind, domain, place in parts[1:] if place == 0]
        assert len(markers) == task.segments
        assert {domain for _, domain in markers} == {row // 3}
        assert sum(kind == "hard" for kind, _ in markers) == task.hard_segments
        for index, (kind, domain, place) in enumerate(parts):
            is_hard = (
                kind == "hard"
                and index + 1 < len(parts)
                and task.order <= place < task.segment_tokens - 1
            )
            if index + 1 < len(parts):
                expected = int(is_hard) if task.route == "depth" else domain if is_hard else -1
                assert truth[row, index] == expected
            if task.noise == 0 and is_hard:
                before = document[index + 1 - task.order : index + 1]
                assert document[index + 1] == table[(domain, *before)]
            if task.noise == 0 and kind == "easy" and 1 <= place < task.segment_tokens - 1:
                assert document[index + 1] == document[index]


@given(TASKS, st.data())
@settings(max_examples=30, deadline=None)
def test_truth_depends_on_nothing_that_is_still_to_come(
    task: PlantedConfig, data: st.DataObject
) -> None:
    tokens = np.array(
        data.draw(st.lists(st.integers(0, task.vocab_size - 1), min_size=2, max_size=30))
    )
    cut = data.draw(st.integers(1, len(tokens)))
    changed = np.concatenate([tokens[:cut], tokens[cut:][::-1]])
    truth = truth_of(task)
    assert np.array_equal(truth(tokens)[:cut], truth(changed)[:cut])
    assert np.array_equal(truth(tokens)[:cut], truth(tokens[:cut]))
    assert np.array_equal(truth(np.stack([changed, tokens]))[1], truth(tokens))


def test_noise_and_tables_are_uniform() -> None:
    task = PlantedConfig(symbols=8, noise=0.25, segments=4, segment_tokens=12, seed=0)
    found = documents(task, "train", 2000)
    hits, table = Counter[bool](), tables(task)
    for document in found[::10].tolist():
        for index, (kind, domain, place) in enumerate(read(task, document)[:-1]):
            if kind == "hard" and task.order <= place < task.segment_tokens - 1:
                hits[
                    document[index + 1] == table[domain, document[index - 1], document[index]]
                ] += 1
    expected, total = 0.75 + 0.25 / 8, hits.total()
    assert abs(hits[True] / total - expected) < 4 * (expected * (1 - expected) / total) ** 0.5
    counts = np.bincount(tables(PlantedConfig(symbols=30, order=3, seed=0)).ravel())
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 29 + 4 * (2 * 29) ** 0.5


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_best_loss_is_that_of_the_bayes_optimal_predictor(order: int, noise: float) -> None:
    """All documents of a small task with their probabilities.

    The best predictor's mean loss is their entropy.
    """
    task = PlantedConfig(
        domains=2,
        symbols=2,
        order=order,
        segments=2,
        segment_tokens=4,
        easy=0.5,
        noise=noise,
        route="experts",
        seed=0,
    )
    table = tables(task)

    def segment(kind: str, domain: int, symbols: tuple[int, ...]) -> float:
        probability = 0.5
        for place in range(1, len(symbols)):
            if kind == "easy":
                right = symbols[place - 1]
            elif place < order:
                probability *= 0.5
                continue
            else:
                right = table[(domain, *symbols[place - order : place])]
            probability *= noise / 2 + (1 - noise) * (symbols[place] == right)
        return probability

    chances = [
        0.5 * 0.5 * segment(kinds[0], domain, first) * segment(kinds[1], domain, second)
        for domain in range(2)
        for kinds in (("easy", "hard"), ("hard", "easy"))
        for first in itertools.product(range(2), repeat=3)
        for second in itertools.product(range(2), repeat=3)
    ]
    assert sum(chances) == pytest.approx(1)
    assert best_loss(task) == pytest.approx(-sum(p * log(p) for p in chances if p) / 8)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_without_the_tables_it_is_the_loss_of_guessing_what_rests_on_them(noise: float) -> None:
    """The cross-entropy of a predictor that knows all but the table, over every document, drawn
    with its probability.
    """
    task = PlantedConfig(
        symbols=3, order=1, segments=1, segment_tokens=4, easy=0.0, noise=noise, seed=1
    )
    table = tables(task)[0]
    nats = 0.0
    for symbols in itertools.product(range(3), repeat=3):
        chance = 1 / 3
        for before, now in itertools.pairwise(symbols):
            chance *= noise / 3 + (1 - noise) * (now == table[before])
        nats -= chance * (log(1 / 3) + 2 * log(1 / 3))
    assert best_loss(task, 0.0) == pytest.approx(nats / 4)


def test_best_loss_rises_by_guessing_where_the_budget_ends() -> None:
    task = PlantedConfig(symbols=16, noise=0.1)
    share = hard_share(task)
    assert best_loss(task, share) == best_loss(task)
    assert best_loss(task, share / 2, layers=2) == best_loss(task)
    assert best_loss(task, share / 4, layers=2) - best_loss(task) == pytest.approx(
        share / 2 * (log(16) - symbol_entropy(task))
    )
    assert best_loss(task, share / 2) - best_loss(task) == pytest.approx(
        share / 2 * (log(16) - symbol_entropy(task))
    )
    assert best_loss(task.model_copy(update={"noise": 1.0}), 0.0) == pytest.approx(
        best_loss(task.model_copy(update={"noise": 1.0}))
    )


def test_corpus_is_a_function_of_its_configuration() -> None:
    config = DataConfig.model_validate(
        {
            "planted": {"domains": 2},
            "max_tokens": 5000,
            "validation_bytes": 700,
            "calibration_bytes": 300,
        }
    )
    one, two = load_corpus(config.at(0)), load_corpus(config.at(0))
    other = load_corpus(config.at(1))
    assert one.content_hash == two.content_hash != other.content_hash
    assert not set(one.validation.document_names) & set(other.validation.document_names)
    assert config.at(1).at(2) == config.at(1)
    assert one.domains == ("domain0", "domain1")
    size = config.planted.document_tokens  # type: ignore[union-attr]
    assert [len(split.offsets) - 1 for split in (one.train, one.calibration, one.validation)] == [
        2 * -(-n // size) for n in (2500, 300, 700)
    ]
    assert set(one.token_bytes.tolist()) == {1}
    whole = [
        tuple(row)
        for split in (one.train, one.calibration, one.validation)
        for row in split.tokens.reshape(-1, size).tolist()
    ]
    assert len(set(whole)) == len(whole)
    text = "".join(one.decode(one.train.tokens[:size].tolist()))
    assert one.encode(text).tolist() == one.train.tokens[:size].tolist()


def test_training_and_evaluation_see_whole_documents() -> None:
    config = DataConfig.model_validate(
        {"planted": {"domains": 2}, "max_tokens": 5000, "validation_bytes": 700}
    )
    corpus = load_corpus(config.at(0))
    size = config.planted.document_tokens  # type: ignore[union-attr]
    opening = corpus.vocab_size - 1
    cut = windows(corpus.validation, seq_len=size - 1).tokens
    batches = [
        train_batch(corpus.train, seed=0, step=step, batch_size=64, seq_len=size - 1)
        for step in range(20)
    ]
    for tokens in (cut, *(batch.tokens for batch in batches)):
        assert (tokens[:, 0] == opening).all()
        assert (tokens[:, 1:] != opening).all()
    drawn = {row[0] for batch in batches for row in batch.documents.tolist()}
    assert drawn == set(range(len(corpus.train.offsets) - 1))


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({"segment_tokens": 3}, "at least 4"),
        ({"symbols": 90, "domains": 4}, "99 token ids"),
        ({"symbols": 60, "order": 4}, "entries"),
        ({"route": "experts"}, "at least 2"),
        ({"noise": 1.5}, "less than or equal to 1"),
        ({"depth": 1}, "Extra inputs"),
    ],
)
def test_impossible_tasks_are_refused(planted: dict[str, float], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataConfig.model_validate({"planted": planted})


def test_the_group_belongs_to_its_source() -> None:
    with pytest.raises(ValidationError, match="belongs to source 'planted'"):
        DataConfig.model_validate({"source": "embedded", "planted": {}})
    with pytest.raises(ValidationError, match="take no path"):
        DataConfig.model_validate({"source": "planted", "path": "text.txt"})
    assert DataConfig.model_validate({"source": "planted"}).planted == PlantedConfig()
    assert "planted" not in DataConfig.model_validate({}).canonical()
