"""A router inside the block of another one: two sites in one layer, from budget to proof."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.conformance import run_checks
from bench.conformance.causality_proof import prove
from bench.errors import UserError
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.evaluation.headline import Visited, knobs_of
from bench.model.assemble import Model
from bench.routing.contract import Router, RouterInput, RoutingPlan
from bench.routing.inner_router import inside_of
from bench.routing.load_routers import find, load_file
from bench.routing.paths import BLOCK_GATE, FFN_GATE, experts
from bench.routing.registry import Entry
from bench.training.checkpoint import Checkpoints
from tests import world
from tests.audit import COMPONENTS, audit
from tests.world import CONFIG, SEQ_LEN, blueprint, fit, model, run_of, tokens, trained_like

PLUGIN = Path(__file__).resolve().parent.parent / "gallery" / "own_shares.py"
TWO_SITES = ("staged_mode", "staged_gates")


@pytest.fixture(scope="module")
def entries() -> Iterator[dict[str, Entry]]:
    with world.own_registry():
        yield {entry.name: entry for entry in load_file(PLUGIN)}


def at_work(found: Model) -> Model:
    """With weights that are not zero, and knobs under which sequences differ in their counts."""
    trained_like(found.decoder)
    for router in found.decoder.routers:
        if router.knob is not None:
            router.knob.fill_(0.05)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "staged_mode",
        "leaves_early",
        "skip_experts",
        pytest.param("staged_gates", marks=pytest.mark.slow),
    ],
)
def test_it_keeps_every_rule(entries: dict[str, Entry], name: str) -> None:
    assert not [found for found in run_checks(entries[name]) if not found.ok]


@pytest.mark.parametrize("name", TWO_SITES)
def test_packed_blocks_give_what_running_everything_and_masking_gives(
    entries: dict[str, Entry], name: str
) -> None:
    decoder = at_work(model(entries[name])).decoder
    packed, full = (run_of(tokens(), "causal", reference=how) for how in (False, True))
    torch.testing.assert_close(decoder(packed), decoder(full))
    for inside, block in zip(packed.traces[::2], packed.traces[1::2], strict=True):
        assert inside.inputs.previous is None
        assert inside.plan.mask.shape[1] == int(block.plan.mask[..., 1].sum(1).max()) < SEQ_LEN
    for counts, wanted in zip(packed.counts, full.counts, strict=True):
        assert torch.equal(counts, wanted)


@pytest.mark.parametrize("name", TWO_SITES)
@pytest.mark.parametrize("selection", ["topk", "causal"])
def test_every_flop_of_both_sites_is_charged(
    entries: dict[str, Entry], name: str, selection: Any
) -> None:
    ids = torch.randint(CONFIG.vocab_size, (5, SEQ_LEN + 1), generator=world.generator(0, "ids"))
    lines = audit(at_work(model(entries[name])), ids, torch.zeros_like(ids))[selection]
    assert {line.component for line in lines} == set(COMPONENTS)
    for line in lines:
        if line.component != "router":
            assert line.counted == pytest.approx(line.ledger, rel=1e-12), line
        elif line.phase == "forward":
            assert line.counted == pytest.approx(line.ledger, rel=1e-2), line


def test_the_router_inside_is_paid_for_the_tokens_of_the_block(entries: dict[str, Entry]) -> None:
    found = model(entries["staged_mode"])
    ledger, counts = found.ledger, torch.tensor([[20, 4], [14, 10]])
    inside, block = ledger.sites[:2]
    assert (inside.inside, block.inside) == (True, False)
    assert inside.router > 2 * CONFIG.d_model * 4, "its products are counted"
    experts_taken = torch.tensor([[1, 1, 1, 1], [4, 2, 2, 2]])
    sites = [experts_taken, counts] * 3
    paths = sum(s.active(c) for s, c in zip(ledger.sites, sites, strict=True))
    asked = 48 * (ledger.fixed + 3 * block.router) + 3 * 14 * inside.router
    assert ledger.active(sites, 48) == pytest.approx(asked + paths)
    assert ledger.executed(sites, 48, padded=True) - ledger.executed(sites, 48, padded=False) >= (
        3 * 6 * inside.router
    )


def test_the_capacity_is_solved_and_experts_cost_the_full_ffn(entries: dict[str, Entry]) -> None:
    found = model(entries["staged_mode"])
    ledger, solution = found.evaluation_ledger, found.solution
    assert solution.expert_width == CONFIG.ffn_width
    inside, block = solution.sites[:2]
    assert sum(inside.shares) == pytest.approx(block.capacity) == pytest.approx(block.shares[1])
    spent = ledger.fixed + sum(
        cost.at(site.shares, SEQ_LEN) + cost.router * (block.capacity if cost.inside else 1)
        for cost, site in zip(ledger.sites, solution.sites, strict=True)
    )
    assert spent == pytest.approx(solution.target, rel=1e-9)
    gates = model(entries["staged_gates"]).solution.sites[:2]
    assert gates[0].capacity == gates[1].capacity
    assert gates[0].shares[1] == pytest.approx(gates[0].capacity ** 2)


@pytest.mark.parametrize("name", TWO_SITES)
@pytest.mark.parametrize("spend", [0.97, 1.0, 1.03])
def test_both_knobs_are_calibrated_to_the_budget(
    entries: dict[str, Entry], name: str, spend: float
) -> None:
    found, text = at_work(model(entries[name])), world.windows(60)
    said = calibrate(found, text, spend)
    spent = evaluate(found, text, 16).active / found.solution.target
    assert said == pytest.approx(spent, rel=1e-9)
    assert said == pytest.approx(spend, abs=0.01)


@pytest.mark.parametrize("name", TWO_SITES)
def test_both_routers_are_trained_and_resumed(
    entries: dict[str, Entry], name: str, tmp_path: Path
) -> None:
    def stop(step: int, *_: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    whole = model(entries[name])
    before = [p.clone() for router in whole.decoder.routers for p in router.parameters()]
    done = fit(whole, 4)
    after = [p for router in whole.decoder.routers for p in router.parameters()]
    assert len(after) == 6
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    with pytest.raises(KeyboardInterrupt):
        fit(model(entries[name]), 4, checkpoints=Checkpoints(tmp_path, "key", 0), probe=stop)
    resumed = model(entries[name])
    again = fit(resumed, 4, checkpoints=Checkpoints(tmp_path, "key", 0))
    assert world.digest(resumed.decoder.state_dict()) == world.digest(whole.decoder.state_dict())
    assert again.shares == done.shares and len(done.shares) == 6


class Peeks(Router):
    """Inside a block, it asks for the mean of all tokens."""

    paths = experts(2)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        first = inputs.hidden.mean((1, 2), keepdim=True).squeeze(2) > inputs.hidden[..., 0]
        return RoutingPlan(torch.stack((first, ~first), dim=-1))


class Around(Router):
    """Takes every other token."""

    paths = BLOCK_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        odd = inputs.positions % 2 == 1
        return RoutingPlan(torch.stack((~odd, odd), dim=-1))

    def inside(self) -> Router | None:
        return Peeks()


def test_the_proof_finds_a_look_ahead_inside_a_block() -> None:
    found = model(Entry("around", "tests", "", Around))
    trained_like(found.decoder)
    windows = world.windows(48)
    visited = [Visited(knobs_of(found.decoder), evaluate(found, windows, 16).nats)]
    said = prove(found.decoder, windows, visited, 0, 16, torch.float32)
    assert not said.passed
    assert said.detail.startswith("Suffix trial: the plan of layer")


class Credited(Router):
    """Inside a block, it is credited with the loss of its own tokens."""

    paths, needs = experts(2), frozenset({"token_loss"})

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        first = inputs.tokens % 2 == 0
        return RoutingPlan(torch.stack((first, ~first), dim=-1))

    def after_step(self, trace: Any) -> None:
        assert trace.token_loss.shape == trace.inputs.tokens.shape
        assert trace.inputs.tokens.shape[1] == SEQ_LEN // 2
        self.spec.seen.append(trace.token_loss)  # type: ignore[attr-defined]


def test_a_router_inside_sees_the_losses_of_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(Around, "inside", lambda self: Credited())
    monkeypatch.setattr("bench.routing.contract.RouterSpec.seen", seen, raising=False)
    found = model(Entry("around", "tests", "", Around), routed_layers=(3,))
    ids = world.split().tokens
    fit(found, 1)
    assert len(seen) == 1 and seen[0].shape == (world.BATCH, SEQ_LEN // 2)
    assert float(seen[0].mean()) == pytest.approx(math.log(CONFIG.vocab_size), abs=1e-3)
    assert len(ids)


class Holder(Around):
    """Keeps the router of its block in a module."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Peeks()

    def inside(self) -> Router | None:
        return self.kept


class Needy(Peeks):
    needs = frozenset({"utility"})


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        (lambda: 5, "`inside` returns 5; it must return a Router"),
        (nn.Identity, "must return a Router with `paths`"),
        (Router, "must return a Router with `paths`"),
        (lambda: 1 / 0, "fails in `inside`: ZeroDivisionError"),
        (Around, "allowed are paths of an FFN site without"),
        (lambda: find("smear").make({}), "without a segment"),
        (Needy, "asks for labels or 'utility'"),
        (lambda: find("partially_supervised").make({}), "asks for labels or 'utility'"),
    ],
)
def test_a_router_that_cannot_stand_inside_is_refused_in_one_line(
    inner: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Around, "inside", lambda self: inner())
    with pytest.raises(UserError, match=says) as raised:
        model(Entry("around", "tests", "", Around))
    assert str(raised.value).startswith("Router 'around'") and "\n" not in str(raised.value)


def test_two_sites_are_a_block_and_what_is_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is one of its own modules"):
        inside_of(Holder(), "holder")
    monkeypatch.setattr(Peeks, "inside", lambda self: Peeks(), raising=False)
    with pytest.raises(UserError, match="a layer has at most two sites"):
        inside_of(Around(), "around")
    monkeypatch.setattr(Around, "paths", FFN_GATE)
    with pytest.raises(UserError, match="its own paths are no block"):
        inside_of(Around(), "around")
    assert inside_of(find("mod").make({}), "mod") is None


def test_a_card_knows_what_both_routers_ask_for(entries: dict[str, Entry]) -> None:
    card = blueprint(entries["staged_mode"]).described
    assert card.paths == BLOCK_GATE
    assert set(card.losses) == {"load_balance"}
