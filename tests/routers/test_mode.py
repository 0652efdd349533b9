"""Mixture-of-Depths-and-Experts against naive layers, staged and integrated."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.conformance import run_checks
from bench.errors import UserError
from bench.routing.contract import Selection
from bench.routing.load_routers import find, load_file
from tests.routers import naive
from tests.world import CONFIG, equipped, model, own_registry, run_of, tokens, trained_like

PLUGIN = Path(__file__).resolve().parent.parent / "gallery" / "own_shares.py"

STAGED = {"mode": "staged"}


def chosen_expert(layer: Any, hidden: Tensor, score: Tensor, bank: Any) -> Tensor:
    """Return each token's most probable expert, scaled by its probability."""
    p = (hidden @ score.T).softmax(-1)
    rows = []
    for token in range(len(hidden)):
        expert = max(range(4), key=lambda e: float(p[token, e].detach()))
        rows.append(p[token, expert] * naive.swiglu(bank, hidden[token], expert))
    return torch.stack(rows)


@pytest.mark.parametrize("selection", ["topk", "causal"])
def test_staged_a_token_takes_a_block_and_in_it_an_expert(selection: Selection) -> None:
    found = naive.built("mode", {"num_experts": 4, "mode": "staged"})
    count = naive.kept(found.solution.capacity)

    def block(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
        r = layer.block_router.score(naive.unit(x)).squeeze(-1)
        place = naive.taken(r, count, layer.block_router, selection)
        assert 0 < len(place) < len(x)
        mine = x[place]
        attended = naive.attended(layer, mine, positions[place])
        hidden, score = naive.unit(mine + attended), layer.ffn_router.logits.weight
        update = attended + chosen_expert(layer, hidden, score, layer.ffn.bank)
        return x.index_add(0, place, r[place].unsqueeze(-1) * update)

    naive.agree(found, [1], block, selection)


@pytest.mark.parametrize("selection", ["topk", "causal"])
def test_integrated_a_token_takes_an_expert_or_the_no_op_expert(selection: Selection) -> None:
    found = naive.built("mode", {"num_experts": 4, "mode": "integrated", "mean_experts": 0.25})

    def layer_of(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
        h = x + naive.attended(layer, x, positions)
        hidden, score = naive.unit(h), layer.ffn_router.score.weight
        logits = hidden @ score.T
        lead = logits[:, :4].max(-1).values - logits[:, 4]
        place = naive.taken(lead, naive.kept(0.25), layer.ffn_router, selection)
        assert 0 < len(place) < len(x)
        return h.index_add(0, place, chosen_expert(layer, hidden[place], score, layer.ffn.bank))

    naive.agree(found, [1], layer_of, selection)


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


def test_the_noise_of_the_staged_form_is_that_of_a_score_for_each_path() -> None:
    found = equipped("mode", STAGED, noise="gaussian", losses={"load": 0.1})
    run = run_of(tokens())
    found.decoder(run)
    plan = run.traces[1].plan
    assert plan.scores is not None
    clean, deviation = plan.extras["clean_scores"], plan.extras["noise_std"]
    assert clean.shape == plan.scores.shape and not clean[..., 0].any()
    drawn = ((plan.scores - clean)[..., 1] / deviation[..., 0]).detach().flatten()
    assert 0.7 < float(drawn.std()) < 1.3


@pytest.mark.parametrize("options", [{}, STAGED])
def test_a_balance_bias_is_refused_in_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="cannot be trained with 'balance_bias'") as refused:
        equipped("mode", options, balance_bias=0.01)
    assert "\n" not in str(refused.value)


# Plugin of a stranger -> the shipped form, with the weights in the same order.
TWINS = {
    "staged_mode": ("mode", STAGED | {"num_experts": 4, "layers": "every"}),
    "skip_experts": ("mode", {"num_experts": 4}),
    "leaves_early": ("early_exit", {"last": 0.5}),
}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("selection", ["topk", "causal"])
def test_a_plugin_of_a_stranger_gives_the_same_numbers(name: str, selection: Selection) -> None:
    with own_registry():
        theirs = model({one.name: one for one in load_file(PLUGIN)}[name])
    ours = model(*TWINS[name])
    assert theirs.solution == ours.solution
    trained_like(ours.decoder)
    for mine, other in zip(ours.decoder.parameters(), theirs.decoder.parameters(), strict=True):
        other.data.copy_(mine.data)
    for router in (*ours.decoder.routers, *theirs.decoder.routers):
        if router.knob is not None:
            router.knob.fill_(0.05)
    outputs = [one.decoder(run_of(tokens(), selection)) for one in (ours, theirs)]
    assert torch.equal(*outputs)


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
