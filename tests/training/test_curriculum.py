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

from bench.config.row import RouterTraining
from bench.data import train_batch
from bench.training.checkpoint import Checkpoints
from bench.training.curriculum import Curriculum, complexity, complexity_order
from bench.training.loop import train
from bench.training.task import Allowance, TrainTask
from tests.training.test_loop import BATCH, STEP_TOKENS, config
from tests.world import SEQ_LEN, model, split

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
    # Windows 1 and 2 were read once each, at the price of a forward pass.
    spent = made.model.ledger.spent["curriculum/forward"]
    per_token = spent / (2 * WINDOW * BATCH * SEQ_LEN)
    assert per_token == pytest.approx(made.model.solution.target, rel=0.3)
    assert len(made.correlations) == 2


def test_a_router_that_gives_all_tokens_alike_keeps_the_order_of_the_seed() -> None:
    made = curriculum("top2_moe", "share")
    for step in range(2 * WINDOW):
        wanted = train_batch(split(), seed=0, step=step, batch_size=BATCH, seq_len=SEQ_LEN)
        assert (made.batch(step, 0.5).tokens == wanted.tokens).all()
    assert np.isnan(made.correlations).all()


def test_a_run_that_resumes_in_the_middle_of_a_window_ends_the_same(tmp_path: Path) -> None:
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
    resumed, again = run(8, halted)
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
