"""Mixture-of-Depths against its definition, token by token and block by block."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.backbone.presets import decoder_config
from bench.errors import UserError
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.rng import generator
from bench.routing.load_routers import find
from tests.routers import naive
from tests.routers.asking import BATCH, SEQ, built, inputs, plan
from tests.world import CONFIG, SEQ_LEN, fit, model, run_of, tokens, windows


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


@pytest.mark.parametrize("causal", ["calibrated", "bce", "predictor", "quantile"])
@pytest.mark.parametrize("gate", ["block", "ffn_only"])
def test_in_evaluation_a_block_takes_the_tokens_above_the_threshold(causal: str, gate: str) -> None:
    found = naive.built("mod", {"causal": causal, "gate": gate, "capacity": 0.25})
    router: Any = found.decoder.routers[0]
    router.knob.fill_(0.05)
    if causal == "quantile":
        router.quantile.fill_(0.1)

    def block(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
        hidden = naive.unit(x)
        r = layer.block_router.score(hidden).squeeze(-1)
        compared = {"quantile": r - 0.1}.get(causal, r)
        if causal == "predictor":
            first, _, last = layer.block_router.predictor
            compared = last(torch.nn.functional.gelu(first(hidden))).squeeze(-1)
        place = naive.taken(compared, 0, layer.block_router, "causal")
        # A threshold gives each sequence a number of its own.
        assert 0 < len(place) < len(x)
        mine, factor = x[place], r[place].unsqueeze(-1)
        attended = naive.attended(layer, mine, positions[place])
        ffn = naive.swiglu(layer.ffn, naive.unit(mine + attended))
        update = factor * (attended + ffn) if gate == "block" else attended + factor * ffn
        return x.index_add(0, place, update)

    naive.agree(found, [1], block, "causal")


@pytest.mark.parametrize("causal", ["bce", "predictor"])
@pytest.mark.parametrize("read", ["normed", "stream"])
def test_the_losses_of_the_mechanisms_are_sums_over_tokens(causal: str, read: str) -> None:
    found = naive.built("mod", {"causal": causal, "read": read, "capacity": 0.25})
    router: Any = found.decoder.routers[0]
    x = torch.randn(3, SEQ_LEN, 32, generator=generator(0, "x")).requires_grad_()
    run = run_of(tokens())
    found.decoder.layers[1](x, run)
    (loss,) = (one.compute(run.traces[0]) for one in router.aux_losses.values() if one.weight)
    by_hand = torch.zeros(())
    for sequence in x:
        seen = sequence if read == "stream" else naive.unit(sequence)
        place = naive.best(router.score(seen).squeeze(-1), 6).tolist()
        for t in range(SEQ_LEN):
            # The loss of the scores moves the model; that of the predictor does not.
            if causal == "bce":
                logit = router.score(seen[t])
            else:
                first, _, last = router.predictor
                logit = last(torch.nn.functional.gelu(first(seen[t].detach())))
            p = logit.sigmoid()[0]
            by_hand = by_hand - (p if t in place else 1 - p).log() / (3 * SEQ_LEN)
    torch.testing.assert_close(loss, by_hand, atol=1e-5, rtol=1e-5)
    wanted = [x, *router.parameters()]
    gradients = [torch.autograd.grad(one, wanted, allow_unused=True) for one in (loss, by_hand)]
    assert (gradients[0][0] is None) == (causal == "predictor")
    for mine, other in zip(*gradients, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


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
