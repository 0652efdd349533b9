"""The curriculum against a naive sort, the plain data order, and itself after an interruption."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from bench.config.row import RouterTraining
from bench.data import train_batch
from bench.rng import generator
from bench.training.checkpoint import Checkpoints
from bench.training.curriculum import Curriculum, complexity, complexity_order
from bench.training.loop import train
from bench.training.task import Allowance, TrainTask
from tests.training.test_loop import BATCH, STEP_TOKENS, config
from tests.world import SEQ_LEN, model, run_of, split

WINDOW = 3
RECIPE = config(router=RouterTraining.model_validate({"curriculum": {"window": WINDOW}}))
SHARES = st.lists(
    st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=12
)


def curriculum(name: str = "adaptive_moe", order: str = "similarity") -> Curriculum:
    chosen = RouterTraining.model_validate({"curriculum": {"window": WINDOW, "order": order}})
    assert chosen.curriculum is not None
    return Curriculum(
        model(name, {}),
        partial(train_batch, split(), seed=0, batch_size=BATCH, seq_len=SEQ_LEN),
        chosen.curriculum,
        seed=0,
        dtype=torch.float32,
    )


@given(SHARES)
def test_the_order_of_shares_is_that_of_their_means(rows: list[tuple[float, float]]) -> None:
    shares = torch.tensor(rows)
    found = complexity_order(shares, "share").tolist()
    means = shares.mean(1).tolist()
    assert found == sorted(range(len(rows)), key=lambda index: means[index])


@given(SHARES)
def test_the_order_of_similarity_starts_at_the_easiest_and_falls(
    rows: list[tuple[float, float]],
) -> None:
    shares = torch.tensor(rows, dtype=torch.float64)
    first, *rest = complexity_order(shares, "similarity").tolist()
    assert sorted([first, *rest]) == list(range(len(rows)))
    assert shares[first].mean() == shares.mean(1).min()

    def cosine(row: int) -> float:
        a, b = shares[row].numpy(), shares[first].numpy()
        size = max(np.linalg.norm(a), 1e-8) * max(np.linalg.norm(b), 1e-8)
        return float(a @ b / size)

    cosines = [cosine(row) for row in rest]
    assert all(a >= b - 1e-6 for a, b in pairwise(cosines))


def test_a_cosine_does_not_see_how_large_the_shares_are() -> None:
    shares = torch.tensor([[0.1, 0.1], [0.9, 0.9], [0.2, 0.1]])
    assert complexity_order(shares, "similarity").tolist() == [0, 1, 2]
    assert complexity_order(shares, "share").tolist() == [0, 2, 1]


def test_complexity_is_the_share_of_tokens_on_more_than_the_least() -> None:
    mask = torch.tensor([[[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1], [1, 0, 0, 1]]]).bool()
    plan = SimpleNamespace(chosen=mask)
    always = SimpleNamespace(base=None, chosen=[1, 2, 3])
    trace: Any = SimpleNamespace(plan=plan, paths=always)
    assert complexity.__wrapped__(trace).tolist() == [0.5]
    gate: Any = SimpleNamespace(
        plan=SimpleNamespace(chosen=mask[..., 2:]), paths=SimpleNamespace(base="a", chosen=[0, 1])
    )
    assert complexity.__wrapped__(gate).tolist() == [0.5]


@pytest.mark.parametrize("order", ["similarity", "share"])
def test_a_window_holds_the_sequences_of_the_seed_and_the_first_stays(order: str) -> None:
    made = curriculum(order=order)

    def drawn(step: int) -> Any:
        return train_batch(split(), seed=0, step=step, batch_size=BATCH, seq_len=SEQ_LEN)

    for window in range(3):
        steps = range(window * WINDOW, (window + 1) * WINDOW)
        for name in ("tokens", "tags", "documents"):
            found = np.concatenate([getattr(made.batch(step, 0.5), name) for step in steps])
            wanted = np.concatenate([getattr(drawn(step), name) for step in steps])
            if window == 0:
                assert (found == wanted).all()
            assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, wanted.tolist()))
    assert len(made.correlations) == 2
    # Windows 1 and 2 were read once each, at the ledger's price of the tokens on each path.
    price, ledger = 0.0, made.model.ledger
    for step in range(WINDOW, 3 * WINDOW):
        run = run_of(torch.from_numpy(drawn(step).tokens[:, :-1]))
        made.model.decoder(run)
        price += ledger.active([trace.plan.mask.sum(1) for trace in run.traces], STEP_TOKENS)
    assert ledger.spent["curriculum/forward"] == price


def test_a_router_that_gives_all_tokens_alike_keeps_the_order_of_the_seed() -> None:
    made = curriculum("top2_moe", "share")
    for step in range(2 * WINDOW):
        wanted = train_batch(split(), seed=0, step=step, batch_size=BATCH, seq_len=SEQ_LEN)
        assert (made.batch(step, 0.5).tokens == wanted.tokens).all()
    assert np.isnan(made.correlations).all()


def mean_ranks(values: list[float]) -> list[float]:
    """Rank values from 1; equal ones share the mean of their ranks."""
    return [
        sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values
    ]


@pytest.mark.parametrize("order", ["similarity", "share"])
def test_the_correlation_of_a_window_is_that_of_the_ranks(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two windows of 12 sequences with known shares and losses, with ties in both."""
    noise, made = generator(0, "known"), curriculum(order=order)
    known = [
        (
            torch.randint(5, (BATCH, 2), generator=noise) / 4,
            torch.randint(6, (BATCH,), generator=noise) / 2,
        )
        for _ in range(2 * WINDOW)
    ]
    following = iter(known)
    monkeypatch.setattr(Curriculum, "_read", lambda *_: next(following))
    for step in range(3 * WINDOW):
        made.batch(step, 0.5)
    for window, found in enumerate(made.correlations):
        part = known[window * WINDOW : (window + 1) * WINDOW]
        means = [(a + b) / 2 for shares, _ in part for a, b in shares.tolist()]
        losses = [loss for _, of_batch in part for loss in of_batch.tolist()]
        assert len(set(means)) < len(means) and len(set(losses)) < len(losses)
        ranks = np.corrcoef(mean_ranks(means), mean_ranks(losses))[0, 1]
        assert found == pytest.approx(ranks) == pytest.approx(spearmanr(means, losses).statistic)
    assert len(made.correlations) == 2


def test_a_run_that_resumes_in_the_middle_of_a_window_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(count: int, folder: Path | None) -> tuple[Any, Any]:
        found = model("adaptive_moe", {})
        kept = None if folder is None else Checkpoints(folder, "key", 0)
        task = TrainTask(split(), RECIPE, SEQ_LEN, seed=0)
        allowance = Allowance(float("inf"), count * STEP_TOKENS)
        done = train(found, task, allowance, checkpoints=kept)
        return found.decoder.state_dict(), done

    whole, done = run(8, None)
    plain = model("adaptive_moe", {})
    task = TrainTask(split(), config(), SEQ_LEN, seed=0)
    train(plain, task, Allowance(float("inf"), 8 * STEP_TOKENS))
    # Eight steps are two windows and two steps of a third: stop in the second window.
    halted = tmp_path / "halted"
    with pytest.raises(KeyboardInterrupt):
        _stopped_at(4, run, halted)
    asked, original = list[int](), Curriculum.batch

    def batch(self: Curriculum, step: int, progress: float) -> Any:
        asked.append(step)
        return original(self, step, progress)

    monkeypatch.setattr(Curriculum, "batch", batch)
    resumed, again = run(8, halted)
    # The checkpoint was taken up: no step before it is trained again.
    assert asked == [4, 5, 6, 7]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert done.curriculum == again.curriculum and len(done.curriculum) == 2
    other = plain.decoder.state_dict()
    assert not all(torch.equal(whole[name], other[name]) for name in whole)


def _stopped_at(step: int, run: Any, folder: Path) -> None:
    original = Curriculum.batch

    def batch(self: Curriculum, at: int, progress: float) -> Any:
        if at == step:
            raise KeyboardInterrupt
        return original(self, at, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Curriculum, "batch", batch)
        run(8, folder)
