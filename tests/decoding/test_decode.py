"""Token-by-token decoding equals the parallel pass, for every router."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn

from bench.backbone.decoder import Layer
from bench.backbone.layers import rms_norm
from bench.backbone.passes import History, Pass, make_pass
from bench.decoding.decode import Decoding
from bench.evaluation.calibrate import calibrate
from bench.flops.counter import OpCounter
from bench.flops.ledger import Ledger
from bench.model.assemble import Model
from bench.routing import (
    BLOCK_GATE,
    FFN_GATE,
    LayerTrace,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    Site,
    TokenChoice,
    gate_plan,
    register,
    upgrade,
)
from tests import world

TOLERANCE = 1e-4
MOST_FLIPS = 1
"""Sequences of a test that may be left out from a decision within rounding of a threshold on."""
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *(("mod", {"causal": causal}) for causal in ("bce", "predictor", "quantile")),
    ("mod", {"layers": "every", "capacity": 0.125}),
    ("mod", {"gate": "ffn_only", "score": "mlp", "read": "stream"}),
    ("mod", {"score": "gaussian"}),
    ("mode", {"mode": "staged"}),
    ("mode", {"mode": "staged", "layers": "every"}),
    ("early_exit", {"layers": "other"}),
    ("attention_mod", {"layers": "every"}),
    ("mlp_gate", {"estimator": "soft"}),
    ("mlp_gate", {"estimator": "straight_through"}),
    ("estimated_moe", {"estimator": "dselect_k"}),
    ("smear", {"segment": 5}),
    ("hash", {"hashed": "half"}),
    ("context_hash", {"over": "experts"}),
    ("context_hash", {"context": 1}),
    ("surprisal", {"order": "unigram"}),
    ("surprisal", {"over": "experts"}),
    ("stride", {"over": "experts"}),
    ("top2_moe", {"num_shared": 1, "granularity": 2}),
    ("random", {"over": "block", "inside": "experts", "layers": "every"}),
    ("partially_supervised", {"inner": "mod", "heuristic": {"router": "random"}, "share": 0}),
    ("partially_supervised", {"inner": "surprisal", "source": "truth", "share": 0}),
]


def made(name: str, options: Mapping[str, Any], noise: float = 0.3, **changes: Any) -> Model:
    """Return a model whose every weight does something, calibrated to its budget."""
    found = world.model(name, options, **changes)
    world.trained_like(found.decoder, noise)
    for router in found.decoder.routers:
        router.fit(world.statistics(world.split()))
    calibrate(found, world.windows(12, found.decoder.config.max_seq_len - 8), 1.0)
    return found


def tags_of(ids: Tensor) -> Tensor:
    """Return a domain for each token, which changes within a sequence."""
    return torch.arange(ids.shape[1]).expand(ids.shape) // 4 % 3


@torch.no_grad()
def parallel(model: Model, ids: Tensor) -> tuple[Tensor, list[LayerTrace]]:
    """Return the logits and traces of the parallel pass."""
    run: Pass = make_pass(ids, tags_of(ids))
    return model.decoder(run), run.traces


def decoded(model: Model, ids: Tensor, prompt: int) -> tuple[Tensor, Decoding, list[Any]]:
    """Return logits of every token in decoding, and the plans of each step."""
    tags = tags_of(ids)
    decoding = Decoding(model.decoder, ids[:, :prompt], tags[:, :prompt])
    logits, plans = [decoding.logits], []
    for place in range(prompt, ids.shape[1]):
        logits.append(decoding.step(ids[:, place], tags[:, place]).unsqueeze(1))
        plans.append(decoding.work.plans)
    return torch.cat(logits, dim=1), decoding, plans


def column_of(trace: LayerTrace, row: int, place: int) -> tuple[Tensor, Tensor | None] | None:
    """Return mask and scores of a token in a parallel plan; None if its block leaves it out."""
    inputs, plan = trace.inputs, trace.plan
    seen = inputs.positions[row] == place
    if inputs.valid is not None:
        seen = seen & inputs.valid[row]
    if not seen.any():
        return None
    at = int(seen.nonzero())
    return plan.mask[row, at], None if plan.scores is None else plan.scores[row, at]


def flipped(model: Model, traces: list[LayerTrace], plans: list[Any], prompt: int) -> Tensor:
    """Mark the tokens from the first decision on that rounding changed, `[batch, seq]`.

    A decision may differ only where its scores agree: then a threshold lies within their rounding.
    """
    batch = len(traces[0].plan.mask) if traces else 0
    left_out = torch.zeros(batch, prompt + len(plans), dtype=torch.bool)
    for place, by_router in enumerate(plans, prompt):
        # Layer by layer, a block before the router inside it, whose trace comes first.
        sites = zip(model.decoder.routers, traces, strict=True)
        for router, trace in sorted(sites, key=lambda site: (site[1].layer, is_inside(site[1]))):
            rows, plan = by_router.get(router, (torch.empty(0, dtype=torch.long), None))
            for row in (~left_out[:, place]).nonzero().flatten().tolist():
                expected, at = column_of(trace, row, place), (rows == row).nonzero()
                assert (expected is None) == (not len(at)), (place, trace.layer)
                if expected is None or torch.equal(plan.mask[int(at), 0], expected[0]):
                    continue
                assert expected[1] is not None
                torch.testing.assert_close(
                    plan.scores[int(at), 0], expected[1], rtol=TOLERANCE, atol=TOLERANCE
                )
                left_out[row, place:] = True
    return left_out


def is_inside(trace: LayerTrace) -> bool:
    """Return whether a site lies inside a block."""
    return trace.inputs.valid is not None


def holds(model: Model, ids: Tensor, prompt: int) -> tuple[Decoding, int]:
    """Check that decoding from a prompt equals the parallel pass.

    Returns:
        The decoding, and the number of sequences left out from a decision within rounding of a
        threshold on.
    """
    expected, traces = parallel(model, ids)
    found, decoding, plans = decoded(model, ids, prompt)
    assert torch.equal(found[:, :prompt], parallel(model, ids[:, :prompt])[0])
    left_out = flipped(model, traces, plans, prompt)
    flips = int(left_out[:, -1].sum())
    assert flips <= MOST_FLIPS
    keep = ~left_out
    torch.testing.assert_close(found[keep], expected[keep], rtol=TOLERANCE, atol=TOLERANCE)
    return decoding, flips


@pytest.mark.parametrize(("name", "options"), [*world.ROWS, *OPTIONS], ids=world.row_id)
def test_steps_equal_the_parallel_pass(name: str, options: dict[str, Any]) -> None:
    holds(made(name, options), world.tokens(4), 5)


@pytest.fixture
def without_shapes() -> None:
    """Check no shapes, which the same cases with few tokens do: ten times as long."""
    config.update("jaxtyping_disable", True)


@pytest.mark.slow
@pytest.mark.usefixtures("without_shapes")
@pytest.mark.parametrize(("name", "options"), [*world.ROWS, *OPTIONS], ids=world.row_id)
def test_512_tokens_equal_the_parallel_pass(
    name: str, options: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    sizes = replace(world.CONFIG, max_seq_len=512)
    # A score of the stream grows with it. At 0.3 a block is scaled by 556, so that rounding of
    # float32 reaches 1.3e-4 (of float64 2e-13).
    noise = 0.1 if options.get("read") == "stream" else 0.3
    model = made(name, options, noise, decoder=sizes, seq_len=512)
    _, flips = holds(model, world.tokens(2, 512), 16)
    record_property("sequences left out", flips)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mod", {"layers": "every"}),
        ("mode", {"mode": "staged", "layers": "every"}),
        ("early_exit", {}),
        ("attention_mod", {"layers": "every"}),
        ("top2_moe", {}),
        ("tag", {}),
        ("planted_oracle", {}),
    ],
    ids=world.row_id,
)
def test_a_router_asked_about_the_whole_prefix_decides_alike(
    name: str, options: dict[str, Any]
) -> None:
    model = made(name, options)
    for router in model.decoder.routers:
        router.pointwise = False
    decoding, _ = holds(model, world.tokens(4), 5)
    assert len(decoding.prefixes) == len(model.decoder.routers)


class Reader(Router):
    """Read everything of the prefix that the contract offers, also of the layer before."""

    paths = FFN_GATE

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = nn.Linear(spec.d_model, 1)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        seen = inputs.hidden
        if inputs.previous is not None:
            before = inputs.previous
            seen = seen + before.update + before.inputs.hidden
            for name, (index, output) in before.path_updates.items():
                flat = torch.zeros_like(seen).flatten(0, 1)
                index = torch.arange(len(flat)) if index is None else index
                # A block also lists the tokens that pad its sequences.
                took = before.plan.mask[..., [before.paths.names.index(name)]]
                seen = seen + flat.index_add(0, index, output).view_as(seen) * took
        mean = seen.cumsum(1) / torch.arange(1, seen.shape[1] + 1).unsqueeze(1)
        return gate_plan(*upgrade(self.score(mean).squeeze(-1), inputs, self.spec, self.knob))


class Averaging(TokenChoice):
    """Choose the experts of a token in a block by the mean over the block's tokens so far."""

    def score(self, inputs: RouterInput) -> Tensor:
        count = torch.arange(1, inputs.hidden.shape[1] + 1).unsqueeze(1)
        return self.logits(inputs.hidden.cumsum(1) / count)


class Staged(Reader):
    """The same over blocks, with a router of the prefix inside."""

    paths = BLOCK_GATE

    def inside(self) -> Router:
        return Averaging(4)


@pytest.mark.parametrize("router", [Reader, Staged])
def test_a_plugin_may_read_the_whole_prefix(router: type[Router]) -> None:
    with world.own_registry():
        register("prefix_reader", family="plugin")(router)
        holds(made("prefix_reader", {}), world.tokens(4), 5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mod", {}),
        ("mod", {"layers": "every", "capacity": 0.125}),
        ("mode", {"mode": "staged"}),
        ("early_exit", {}),
        ("random", {"over": "block"}),
        ("top1_moe", {}),
    ],
    ids=world.row_id,
)
@torch.no_grad()
def test_caches_hold_exactly_the_routed_tokens(name: str, options: dict[str, Any]) -> None:
    model, ids = made(name, options), world.tokens(4)
    history = History()
    run = make_pass(ids, tags_of(ids), history=history)
    model.decoder(run)
    _, decoding, _ = decoded(model, ids, 5)
    taken = {t.layer: t.plan.mask[..., 1] for t in run.traces if t.paths.site is Site.BLOCK}
    size = 0
    for layer, x, cache in zip(decoding.layers, history.entering, decoding.caches, strict=True):
        assert isinstance(layer, Layer)
        chosen = taken.get(layer.index, torch.ones_like(ids, dtype=torch.bool))
        assert cache.lengths.tolist() == chosen.sum(1).tolist()
        for row in range(len(ids)):
            kept = x[row : row + 1, chosen[row]]
            places = run.positions[row : row + 1, chosen[row]]
            _, keys, values = layer.attention.heads(rms_norm(kept), places)
            found = cache.data[row, : len(places[0])]
            torch.testing.assert_close(found[:, 0], keys[0].transpose(0, 1), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found[:, 1], values[0].transpose(0, 1), rtol=1e-4, atol=1e-4)
        # A key and a value of d_model numbers of 4 bytes each.
        size += int(chosen.sum()) * 2 * world.CONFIG.d_model * 4
    assert sum(cache.size for cache in decoding.caches) == size


def test_a_memory_of_pairs_reads_the_token_before() -> None:
    model = made("dense_memory", {})
    ids = world.tokens(2)
    found, _, _ = decoded(model, ids, 1)
    for layer in model.decoder.layers:
        assert isinstance(layer, Layer)
        layer.memory = None
    without, _, _ = decoded(model, ids, 1)
    assert not torch.allclose(found, without)


@pytest.mark.parametrize(
    ("name", "options", "router"),
    [
        ("dense", {}, 0.0),
        ("random", {"over": "block"}, 0.0),
        ("mod", {"layers": "every"}, 2.0 * world.CONFIG.d_model),
        ("top2_moe", {}, 2.0 * world.CONFIG.d_model * 8),
        ("mode", {"mode": "staged"}, None),
        ("smear", {"segment": 5}, 2.0 * world.CONFIG.d_model * 8),
    ],
    ids=world.row_id,
)
def test_the_price_of_a_step_is_the_products_that_run(
    name: str, options: dict[str, Any], router: float | None
) -> None:
    model, ids = made(name, options), world.tokens(1)
    decoding = Decoding(model.decoder, ids[:, :5])
    ledger = Ledger(model.decoder, world.SEQ_LEN, {})
    for place in range(5, 15):
        with OpCounter() as counter:
            decoding.step(ids[:, place])
        asked = decoding.work.asked.items()
        widths = {one: 2.0 * world.CONFIG.d_model * len(one.paths.chosen) for one, _ in asked}
        # A gate has one score for its two paths.
        routers = sum(
            (router if router is not None else widths[one] / (1 + (one.paths.base is not None)))
            * seen
            for one, seen in asked
        )
        if name == "smear":
            # It scores the segments before, and the first without one.
            routers = 2.0 * world.CONFIG.d_model * 8 * (1 + place // 5) * len(asked)
        # In float32 and without padding, every product of the counter is charged.
        assert decoding.price(ledger) + routers == pytest.approx(counter.matrix)


def test_a_router_asked_about_the_prefix_pays_for_all_of_it() -> None:
    model, ids = made("mod", {}), world.tokens(2)
    prices: list[float] = []
    for pointwise in (True, False):
        for one in model.decoder.routers:
            one.pointwise = pointwise
        decoding = Decoding(model.decoder, ids[:, :10])
        decoding.step(ids[:, 10])
        prices.append(decoding.price(model.evaluation_ledger))
    # One router is asked about 2 tokens, and then about 2 x 11, in each of its two layers.
    more = sum(site.router for site in model.evaluation_ledger.sites) * 2 * 10
    assert prices[1] - prices[0] == pytest.approx(more)
