"""The decoder under every registered router.

Dispatch against the reference, sizes, precision, shapes.
"""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.backbone.decoder import Decoder
from bench.backbone.passes import Decide, ask
from bench.routing.contract import Router, RouterInput, RoutingPlan, Selection
from tests.world import CONFIG, ROWS, model, row_id, run_of, tokens, trained_like

every_router = pytest.mark.parametrize(("name", "options"), ROWS, ids=row_id)
every_selection = pytest.mark.parametrize("selection", ["topk", "causal"])


class Recorder:
    """Keeps the plans of one pass, and hands their choices out again in another."""

    def __init__(self) -> None:
        self.plans: list[RoutingPlan] = []

    def record(self, router: Router, inputs: RouterInput) -> RoutingPlan:
        """Ask the router and remember."""
        self.plans.append(ask(router, inputs))
        return self.plans[-1]

    @property
    def replay(self) -> Decide:
        """The same choices in the same order, with weights asked for anew, so that gradients reach
        the router.
        """
        plans = iter(self.plans)

        def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
            before, now = next(plans), ask(router, inputs)
            return replace(now, mask=before.mask, counts=before.counts)

        return decide


def with_knobs(decoder: Decoder, value: float) -> Decoder:
    for router in decoder.routers:
        if router.knob is not None:
            router.knob.fill_(value)
    return decoder


def outcome(decoder: Decoder, out: Tensor) -> dict[str, Tensor]:
    """The logits, and the gradient of a functional of them for every parameter."""
    decoder.zero_grad()
    out.float().square().sum().backward()
    gradients = {
        name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None
    }
    return {"logits": out.detach(), **gradients}


@every_selection
@every_router
def test_dispatch_equals_the_reference_under_the_same_plan(
    name: str, options: Mapping[str, object], selection: Selection
) -> None:
    decoder = with_knobs(
        trained_like(model(name, options).decoder), -0.4 if name == "random" else 0.1
    )
    ids, recorder = tokens(), Recorder()
    sparse = outcome(decoder, decoder(run_of(ids, selection, decide=recorder.record)))
    reference = outcome(
        decoder, decoder(run_of(ids, selection, decide=recorder.replay, reference=True))
    )
    for part, wanted in reference.items():
        if part in sparse:
            assert (sparse[part] - wanted).norm() <= 1e-5 * wanted.norm(), part
        else:  # a path that no token took
            assert not wanted.any(), part
    assert sparse.keys() <= reference.keys()
    assert len({plan.mask.shape for plan in recorder.plans}) == 1


@every_router
def test_a_decoder_of_random_text_sees_every_trace_in_order(
    name: str, options: Mapping[str, object]
) -> None:
    decoder, run = model(name, options).decoder, run_of(tokens())
    logits = decoder(run)
    assert logits.shape == (3, 24, CONFIG.vocab_size)
    used = (1, 3) if decoder.routers[0].layers == "other" else (1, 2, 3)
    assert tuple(trace.layer for trace in run.traces) == used
    assert [trace.inputs.previous for trace in run.traces] == [None, *run.traces[:-1]]
    assert [trace.paths for trace in run.traces] == [router.paths for router in decoder.routers]


@every_selection
@every_router
def test_bfloat16_gives_finite_outputs_and_gradients(
    name: str, options: Mapping[str, object], selection: Selection
) -> None:
    decoder = trained_like(model(name, options).decoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = decoder(run_of(tokens(), selection))
    assert out.dtype is torch.bfloat16
    assert all(value.isfinite().all() for value in outcome(decoder, out).values())


@pytest.mark.parametrize(
    ("name", "options"), [("mod", {}), ("random", {"over": "block"}), ("mlp_gate", {})], ids=row_id
)
def test_a_site_that_nobody_enters_changes_nothing(
    name: str, options: Mapping[str, object]
) -> None:
    decoder = with_knobs(trained_like(model(name, options).decoder), -1e6)
    run = run_of(tokens(), "causal")
    assert decoder(run).isfinite().all()
    assert not any(trace.plan.mask[..., 1].any() for trace in run.traces)


def test_tokens_outside_a_block_are_invisible_to_those_inside() -> None:
    decoder = trained_like(model("mod", routed_layers=(1,)).decoder)
    ids = tokens(batch=1)
    run = run_of(ids, "topk")
    before = decoder(run)
    chosen = run.traces[0].plan.mask[0, :, 1]
    outside = int((~chosen).nonzero()[0])
    layer = decoder.layers[1]
    x = torch.randn(1, ids.shape[1], CONFIG.d_model)
    replay = Recorder()
    replay.plans = [run.traces[0].plan] * 2
    decide = replay.replay
    first = layer(x, run_of(ids, decide=decide))
    x[0, outside] += 1.0
    second = layer(x, run_of(ids, decide=decide))
    moved = (first - second).abs().amax(-1)[0] > 0
    assert moved.nonzero().flatten().tolist() == [outside]
    assert before.isfinite().all()
