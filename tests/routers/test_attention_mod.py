"""Attention-scored Mixture-of-Depths against a naive pair of layers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.rng import generator
from tests.routers import naive
from tests.world import SEQ_LEN, run_of, tokens


def even(place: int) -> float:
    return sum(1 / (token + 1) for token in range(place, SEQ_LEN))


@pytest.mark.parametrize("relative", [True, False])
def test_the_tokens_that_received_the_most_attention_take_the_block(relative: bool) -> None:
    found = naive.built("attention_mod", {"relative": relative, "capacity": 0.25})
    received: list[Tensor] = []

    def layer_of(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
        if layer.index == 0:
            h = x + naive.attended(layer, x, positions)
            mean = torch.stack(naive.maps(layer, x, positions)).mean(0).detach()
            sums = [float(mean[:, t].sum()) / (even(t) if relative else 1) for t in range(SEQ_LEN)]
            received.append(torch.tensor(sums))
            return h + naive.swiglu(layer.ffn, naive.unit(h))
        place = naive.best(received.pop(0), 6)
        mine = x[place]
        attended = naive.attended(layer, mine, positions[place])
        ffn = naive.swiglu(layer.ffn, naive.unit(mine + attended))
        return x.index_add(0, place, attended + ffn)

    naive.agree(found, [0, 1], layer_of)


def test_the_predictor_learns_the_choice_and_the_model_does_not_feel_it() -> None:
    found = naive.built("attention_mod", {"capacity": 0.25})
    x = torch.randn(3, SEQ_LEN, 32, generator=generator(0, "x")).requires_grad_()
    run = run_of(tokens())
    found.decoder.layers[1](found.decoder.layers[0](x, run), run)
    trace, router = run.traces[0], found.decoder.routers[0]
    loss = router.aux_losses["predictor"].compute(trace)
    first, _, last = router.predictor
    logit = last(torch.nn.functional.gelu(first(trace.inputs.hidden.detach()))).squeeze(-1)
    taken = trace.plan.mask[..., 1].float()
    p = logit.sigmoid()
    by_hand = -(taken * p.log() + (1 - taken) * (1 - p).log()).mean()
    torch.testing.assert_close(loss, by_hand)
    wanted = [x, *found.decoder.layers[0].parameters(), *router.parameters()]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    assert all(g is None for g in gradients[: -len(list(router.parameters()))])
    theirs = torch.autograd.grad(by_hand, list(router.parameters()))
    for mine, other in zip(gradients[-len(theirs) :], theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_in_evaluation_it_sees_no_attention_and_follows_the_predictor() -> None:
    found = naive.built("attention_mod")
    run = run_of(tokens(), "causal")
    found.decoder(run)
    for router, trace in zip(found.decoder.routers, run.traces, strict=True):
        assert trace.inputs.received is None
        logit = router.predictor(trace.inputs.hidden).squeeze(-1)
        assert torch.equal(trace.plan.mask[..., 1], logit > -router.knob)
