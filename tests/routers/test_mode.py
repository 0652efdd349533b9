"""Mixture-of-Depths-and-Experts against naive layers, staged and integrated."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.conformance import run_checks
from bench.errors import UserError
from bench.routing.load_routers import find
from tests.routers import naive
from tests.world import CONFIG, model, run_of, tokens

STAGED = {"mode": "staged"}


def chosen_expert(layer: Any, hidden: Tensor, score: Tensor, bank: Any) -> Tensor:
    """Return each token's most probable expert, scaled by its probability."""
    p = (hidden @ score.T).softmax(-1)
    rows = []
    for token in range(len(hidden)):
        expert = max(range(4), key=lambda e: float(p[token, e].detach()))
        rows.append(p[token, expert] * naive.swiglu(bank, hidden[token], expert))
    return torch.stack(rows)


def test_staged_a_token_takes_a_block_and_in_it_an_expert() -> None:
    found = naive.built("mode", {"num_experts": 4, "mode": "staged"})
    count = naive.kept(found.solution.capacity)

    def block(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
        r = layer.block_router.score(naive.unit(x)).squeeze(-1)
        place = naive.best(r, count)
        mine = x[place]
        attended = naive.attended(layer, mine, positions[place])
        hidden, score = naive.unit(mine + attended), layer.ffn_router.logits.weight
        update = attended + chosen_expert(layer, hidden, score, layer.ffn.bank)
        return x.index_add(0, place, r[place].unsqueeze(-1) * update)

    naive.agree(found, [1], block)


def test_integrated_a_token_takes_an_expert_or_the_no_op_expert() -> None:
    found = naive.built("mode", {"num_experts": 4, "mode": "integrated", "mean_experts": 0.25})

    def layer_of(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
        h = x + naive.attended(layer, x, positions)
        hidden, score = naive.unit(h), layer.ffn_router.score.weight
        logits = hidden @ score.T
        place = naive.best(logits[:, :4].max(-1).values - logits[:, 4], naive.kept(0.25))
        return h.index_add(0, place, chosen_expert(layer, hidden[place], score, layer.ffn.bank))

    naive.agree(found, [1], layer_of)


def test_it_has_a_site_and_a_trace_for_each_choice() -> None:
    staged, integrated = model("mode", STAGED), model("mode")
    for found, sites in ((staged, 2), (integrated, 1)):
        run = run_of(tokens())
        found.decoder(run)
        assert len(run.traces) == len(found.decoder.routers) == sites * len(found.solution.layers)
    assert staged.solution.expert_width == CONFIG.ffn_width
    assert staged.solution.layers == (1, 3) and integrated.solution.layers == (1, 2, 3)


def test_staged_keeps_every_rule_too() -> None:
    results = run_checks(find("mode"), options=STAGED)
    assert not [f"{found.check}: {found.seen}" for found in results if not found.ok]


def test_staged_packed_blocks_give_what_running_everything_and_masking_gives() -> None:
    decoder = naive.built("mode", STAGED).decoder
    packed, full = (run_of(tokens(), "causal", reference=how) for how in (False, True))
    torch.testing.assert_close(decoder(packed), decoder(full))
    for counts, wanted in zip(packed.counts, full.counts, strict=True):
        assert torch.equal(counts, wanted)


def test_the_no_op_expert_has_no_part_in_the_balance() -> None:
    found = naive.built("mode", {"num_experts": 4, "mode": "integrated"})
    run = run_of(tokens())
    found.decoder(run)
    trace = run.traces[0]
    assert trace.plan.scores is not None
    p = trace.plan.scores[..., :4].softmax(-1).mean((0, 1))
    load = trace.plan.mask[..., :4].float().sum((0, 1))
    loss = found.decoder.routers[0].aux_losses["load_balance"].compute(trace)
    torch.testing.assert_close(loss, 4 * (load / load.sum() * p).sum())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_experts": 1}, "num_experts is 1"),
        ({"mean_experts": 1.5}, "mean_experts is 1.5"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        find("mode").make(options)
