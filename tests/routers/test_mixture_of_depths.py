"""Mixture-of-Depths against its definition, token by token and block by block."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.backbone.presets import decoder_config
from bench.errors import UserError
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.routing.load_routers import find
from tests.routers import naive
from tests.routers.asking import BATCH, SEQ, built, inputs, plan
from tests.world import CONFIG, SEQ_LEN, fit, model, tokens, windows


def test_mod_weighs_the_whole_update_by_its_score() -> None:
    router = built("mod")
    seen = inputs()
    found = plan(router, seen)
    scores = (seen.hidden @ router.score.weight.detach().T).squeeze(-1)
    count = round(router.spec.capacity * SEQ)
    for b in range(BATCH):
        best = sorted(range(SEQ), key=lambda t: -scores[b, t].item())[:count]
        assert sorted(best) == found.mask[b, :, 1].nonzero().flatten().tolist()
    assert found.weight is not None
    torch.testing.assert_close(found.weight[..., 1], scores)
    assert torch.equal(found.mask[..., 0], ~found.mask[..., 1])


@pytest.mark.parametrize("gate", ["block", "ffn_only"])
@pytest.mark.parametrize("score", ["linear", "mlp"])
@pytest.mark.parametrize("read", ["normed", "stream"])
def test_a_block_is_the_papers(gate: str, score: str, read: str) -> None:
    found = naive.built("mod", {"gate": gate, "score": score, "read": read, "capacity": 0.25})

    def block(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
        r = layer.block_router.score(x if read == "stream" else naive.unit(x)).squeeze(-1)
        place = naive.best(r, 6)
        mine, factor = x[place], r[place].unsqueeze(-1)
        attended = naive.attended(layer, mine, positions[place])
        ffn = naive.swiglu(layer.ffn, naive.unit(mine + attended))
        update = factor * (attended + ffn) if gate == "block" else attended + factor * ffn
        return x.index_add(0, place, update)

    naive.agree(found, [1], block)


@pytest.mark.parametrize("capacity", [0.125, 0.5, 0.95])
@pytest.mark.parametrize("layers", ["every", "other"])
def test_a_given_capacity_makes_a_budget_of_its_own(capacity: float, layers: str) -> None:
    found = model("mod", {"capacity": capacity, "layers": layers})
    solution, count = found.solution, {"every": 3, "other": 2}[layers]
    assert solution.capacity == capacity and len(solution.layers) == count
    d, taken = CONFIG.d_model, capacity * SEQ_LEN
    block = capacity * (8 * d * d + 6 * d * CONFIG.ffn_width)
    block += 4 * d * taken * (taken + 1) / 2 / SEQ_LEN
    dense = 8 * d * d + 4 * d * (SEQ_LEN + 1) / 2 + 6 * d * CONFIG.ffn_width
    by_hand = (4 - count) * dense + count * block + 2 * d * CONFIG.vocab_size
    assert solution.target == pytest.approx(by_hand + found.evaluation_ledger.routers, rel=1e-9)
    assert solution.budget == pytest.approx(model("mod").solution.target, rel=1e-12)
    fit(found, 3)
    text = windows(48)
    assert calibrate(found, text, 1.0) == pytest.approx(1, abs=0.01)
    spent = evaluate(found, text, 16).active
    assert spent == pytest.approx(solution.target, rel=0.01)


def test_the_gaussian_control_draws_r_and_random_blocks_do_not_scale() -> None:
    router = built("mod", {"score": "gaussian"})
    assert not list(router.parameters())
    for selection in ("topk", "causal"):
        ids = tokens(64, SEQ)
        scores = plan(router, inputs(selection, ids)).scores
        assert scores is not None
        drawn = scores[..., 1].flatten().double()
        # Moments of a standard Gaussian, to five standard errors.
        error = 5 / len(drawn) ** 0.5
        assert abs(float(drawn.mean())) < error
        assert float(drawn.square().mean()) == pytest.approx(1, abs=2 * error)
        assert float(drawn.pow(4).mean()) == pytest.approx(3, abs=10 * error)
    found = plan(router, inputs("topk"))
    assert found.weight is not None and found.scores is not None
    assert torch.equal(found.weight[..., 1], found.scores[..., 1])
    chance = plan(built("random", {"over": "block"}), inputs())
    assert chance.weight is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"capacity": 0.0}, "capacity is 0.0"),
        ({"capacity": 1.5}, "capacity is 1.5"),
        ({"width_ratio": 0.0}, "width_ratio is 0.0"),
        ({"score": "gaussian", "causal": "bce"}, "can be 'calibrated' alone"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        find("mod").make(options)
    assert said in str(refused.value) and "\n" not in str(refused.value)


FAMILY: list[tuple[str, dict[str, Any]]] = [
    ("mod", {"causal": "bce"}),
    ("mod", {"causal": "predictor", "read": "stream"}),
    ("mod", {"causal": "quantile", "score": "mlp", "gate": "ffn_only"}),
    ("mod_ffn", {}),
    ("attention_mod", {}),
    ("early_exit", {}),
    ("mode", {}),
    ("mode", {"mode": "staged"}),
]


@pytest.mark.parametrize(("name", "options"), FAMILY)
def test_it_meets_the_budget_at_the_size_of_quick(name: str, options: dict[str, Any]) -> None:
    decoder = decoder_config("tiny", CONFIG.vocab_size, 128)
    found = model(name, options, decoder=decoder, seq_len=128)
    fit(found, 6, seq_len=128)
    calibrate(found, windows(120, 128), 1.0)
    spent = evaluate(found, windows(120, 128, seed=2), 60).active
    assert spent == pytest.approx(found.solution.budget, rel=0.01)
