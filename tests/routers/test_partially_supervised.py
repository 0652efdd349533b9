"""Partial supervision: labels, their routers and documents; all else is the other router's own."""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.backbone.passes import make_pass
from bench.config.read_suite import parse_suite
from bench.data import train_batch
from bench.errors import UserError
from bench.rng import generator
from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan
from bench.routing.load_routers import find
from bench.runner.rows import parse_rows
from bench.training.supervision import UNKNOWN, Supervisor, supervised_documents
from tests import world

EXPERTS = {
    "inner": "top2_moe",
    "heuristic": {"router": "frequency", "options": {"over": "experts"}},
}
NAME = "partially_supervised"


def labelled(options: dict[str, Any], steps: int = 1) -> tuple[Router, list[LayerTrace], Tensor]:
    """Traces of the first routed layer over some training steps, with their labels, and the
    document of every token.
    """
    model = world.model(NAME, options)
    split = world.split()
    supervisor = Supervisor(model, len(split.document_tags))
    traces: list[LayerTrace] = []
    documents: list[Tensor] = []
    for step in range(steps):
        batch = train_batch(split, seed=0, step=step, batch_size=6, seq_len=world.SEQ_LEN)
        tokens, tags, numbers = (
            torch.from_numpy(part[:, :-1]) for part in (batch.tokens, batch.tags, batch.documents)
        )
        run = make_pass(
            tokens, tags, selection="topk", generator=generator(step, "noise"), progress=0.0
        )
        model.decoder(run)
        supervisor.label(run.traces, numbers)
        traces.append(run.traces[0])
        documents.append(numbers)
    return model.decoder.routers[0], traces, torch.stack(documents)


def labels_of(traces: list[LayerTrace]) -> Tensor:
    return torch.stack([trace.labels for trace in traces if trace.labels is not None])


@pytest.mark.parametrize("unsupervised", [{"share": 0.0}, {"weight": 0.0, "source": "truth"}])
@pytest.mark.parametrize("inner", ["mlp_gate", "adaptive_moe"])
def test_without_a_share_it_is_the_other_router_to_the_last_bit(
    inner: str, unsupervised: dict[str, Any]
) -> None:
    wrapped, bare = (
        world.model(NAME, {"inner": inner, **unsupervised}),
        world.model(inner),
    )
    done = [world.fit(model, 4) for model in (wrapped, bare)]
    ours = {
        name.replace(".inner.", "."): value for name, value in wrapped.decoder.state_dict().items()
    }
    for name, value in bare.decoder.state_dict().items():
        assert torch.equal(ours[name], value), name
    assert done[0].auxiliary == done[1].auxiliary
    assert wrapped.ledger.total == bare.ledger.total
    assert wrapped.solution == bare.solution
    assert wrapped.decoder.routers[0].needs == bare.decoder.routers[0].needs


@pytest.mark.parametrize(
    ("inner", "options"), [("mod", {"capacity": 0.125}), ("dense_memory", {"num_experts": 3})]
)
def test_cost_and_size_are_those_of_the_other_router(inner: str, options: dict[str, Any]) -> None:
    wrapped = world.model(NAME, {"inner": {"router": inner, "options": options}, "share": 0.0})
    bare = world.model(inner, options)
    assert wrapped.solution == bare.solution
    shapes = [
        {name.replace(".inner.", "."): value.shape for name, value in found.state_dict().items()}
        for found in (wrapped.decoder, bare.decoder)
    ]
    assert shapes[0] == shapes[1]


def test_a_document_has_labels_in_every_step_or_never() -> None:
    _, traces, documents = labelled({"share": 0.5}, steps=5)
    told = labels_of(traces) != UNKNOWN
    chosen = supervised_documents(len(world.split().document_tags), 0.5)
    assert torch.equal(told, chosen[documents])
    assert 0 < int(told.sum()) < told.numel()
    assert len(documents[told].unique()) > 3


@pytest.mark.parametrize("options", [{}, EXPERTS])
def test_with_the_whole_share_every_token_is_told_what_the_heuristic_chooses(
    options: dict[str, Any],
) -> None:
    router, traces, _ = labelled({**options, "share": 1.0})
    heuristic = router.heuristic
    assert isinstance(heuristic, Router)
    mask = heuristic(traces[0].inputs).mask
    assert torch.equal(F.one_hot(labels_of(traces)[0], mask.shape[2]).bool(), mask)


def test_the_truth_is_told_only_where_there_is_one() -> None:
    router, traces, _ = labelled({"source": "truth", "share": 1.0})
    assert torch.equal(labels_of(traces)[0], traces[0].inputs.tokens % 2)
    truth = traces[0].inputs.tokens % 3 - 1
    seen = replace(traces[0], inputs=replace(traces[0].inputs, truth=truth))
    assert router.label(seen).flatten().tolist() == [
        UNKNOWN if path < 0 else path for path in truth.flatten().tolist()
    ]


def test_an_oracle_upgrades_the_most_useful_of_the_tokens_whose_utility_is_known() -> None:
    router, traces, _ = labelled({"share": 1.0})
    shape = tuple(traces[0].inputs.tokens.shape)
    made = find(NAME).make({"source": "oracle", "share": 1.0})
    made.build(replace(router.spec, capacity=0.4))
    assert "utility" in made.needs
    draw = np.random.default_rng(0)
    utility = torch.from_numpy(draw.normal(size=shape)).float()
    utility[torch.from_numpy(draw.random(shape) < 0.3)] = torch.nan
    found = made.label(replace(traces[0], utility=utility)).flatten().tolist()
    values = utility.flatten().tolist()
    known = sorted((value for value in values if value == value), reverse=True)
    least = known[round(0.4 * len(known)) - 1]
    assert found == [UNKNOWN if value != value else int(value >= least) for value in values]


@pytest.mark.parametrize(
    ("anneal", "progress", "left"),
    [(0.0, 0.9, 1.0), (0.5, 0.0, 1.0), (0.5, 0.125, 0.75), (0.5, 0.5, 0.0), (0.5, 0.9, 0.0)],
)
def test_the_cross_entropy_is_of_the_labelled_tokens_and_fades_in_a_straight_line(
    anneal: float, progress: float, left: float
) -> None:
    router, traces, _ = labelled({**EXPERTS, "share": 0.5, "anneal": anneal}, steps=3)
    for trace in traces:
        trace = replace(trace, inputs=replace(trace.inputs, progress=progress))
        assert trace.plan.scores is not None
        assert trace.labels is not None
        pairs = zip(
            trace.plan.scores.detach().flatten(0, 1).log_softmax(-1),
            trace.labels.flatten().tolist(),
            strict=True,
        )
        nats = [-float(row[label]) for row, label in pairs if label != UNKNOWN]
        expected = left * sum(nats) / len(nats) if nats else 0.0
        assert float(router.aux_losses["supervised"].compute(trace).detach()) == pytest.approx(
            expected, rel=1e-5
        )


def test_the_other_router_sees_no_more_than_alone() -> None:
    model = world.model(NAME, {"heuristic": "tag", "share": 1.0})
    router = model.decoder.routers[0]
    assert isinstance(router.inner, Router)
    seen: list[RouterInput] = []
    ask = router.inner.forward

    def watched(inputs: RouterInput) -> RoutingPlan:
        seen.append(inputs)
        return ask(inputs)

    with patch.object(router.inner, "forward", watched):
        model.decoder(world.run_of(world.tokens()))
    assert "tags" in router.needs
    assert [inputs.tags for inputs in seen] == [None]


def test_a_heuristic_that_needs_the_stream_leaves_the_other_router_as_it_was() -> None:
    """`mod` reads the stream only if it asks for it itself."""
    heuristic = {"router": "mod", "options": {"read": "stream"}}
    alone = world.model("mod")
    wrapped = world.model(NAME, {"inner": "mod", "heuristic": heuristic, "share": 1.0})
    assert wrapped.decoder.routers[0].needs == {"stream"}
    runs = [world.run_of(world.tokens()) for _ in range(2)]
    for found, run in zip((alone, wrapped), runs, strict=True):
        found.decoder(run)
    ours, theirs = (run.traces[0].plan.scores for run in runs)
    assert ours is not None and theirs is not None and torch.equal(ours, theirs)


def test_the_other_router_sees_no_truth_through_the_layer_before() -> None:
    model = world.model(NAME, {"source": "truth", "share": 1.0})
    seen: list[RouterInput] = []
    with ExitStack() as stack:
        for router in model.decoder.routers:
            assert isinstance(router.inner, Router)
            ask = router.inner.forward
            stack.enter_context(
                patch.object(
                    router.inner,
                    "forward",
                    lambda inputs, ask=ask: seen.append(inputs) or ask(inputs),
                )
            )
        run = world.run_of(world.tokens())
        model.decoder(run)
    assert run.traces[0].inputs.truth is not None
    assert [inputs.truth for inputs in seen] == [None] * len(seen)
    assert [inputs.previous.inputs.truth for inputs in seen if inputs.previous is not None] == [
        None
    ] * (len(seen) - 1)


def test_labels_of_a_rule_that_draws_are_the_same_each_time_and_take_no_noise() -> None:
    options = {
        "inner": "top2_moe",
        "heuristic": {"router": "random", "options": {"over": "experts"}},
        "share": 1.0,
    }
    router, traces, _ = labelled(options)
    noise = traces[0].inputs.generator
    assert noise is not None
    before, everywhere = noise.get_state(), torch.get_rng_state()
    assert torch.equal(router.label(traces[0]), router.label(traces[0]))
    assert torch.equal(noise.get_state(), before) and torch.equal(torch.get_rng_state(), everywhere)


def test_a_router_without_scores_cannot_be_told() -> None:
    with pytest.raises(UserError, match=r"have no scores\. Wrap a learned one"):
        world.model(
            NAME,
            {"inner": {"router": "context_hash"}, "heuristic": "stride", "share": 1.0},
        )


def test_the_threshold_stays_one_buffer_when_the_model_moves() -> None:
    router = world.model(NAME).decoder.to(torch.float64).routers[0]
    assert isinstance(router.inner, Router)
    assert router.knob is router.inner.knob
    assert router.knob is not None
    assert router.knob.dtype is torch.float64


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inner": "mlp_gat"}, "Did you mean 'mlp_gate'"),
        (
            {"inner": 3},
            r"Option 'inner' of router 'partially_supervised' is 3; allowed is a router's name, "
            r"or \{router: name",
        ),
        ({"inner": {"router": "mlp_gate", "option": {}}}, "allowed is a router's name"),
        (
            {"inner": {"router": "mlp_gate", "options": {"widht_ratio": 1}}},
            "Did you mean 'width_ratio'",
        ),
        ({"inner": "top2_moe"}, "heuristic chooses among .* they must be the same"),
        ({"inner": "smear", "heuristic": "hash"}, "merges its experts"),
        ({"source": "guess"}, "'heuristic', 'truth', 'oracle'"),
        ({"share": 1.5}, r"share is 1.5; it must lie in \[0, 1\]"),
        ({"anneal": -1}, r"anneal is -1; it must lie in \[0, 1\]"),
    ],
)
def test_what_cannot_be_wrapped_or_told_is_the_users_error(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        find(NAME).make(options)


def test_the_source_of_all_routers_involved_is_in_the_hash() -> None:
    entry = find(NAME)
    default, other = entry.source_hash({}), entry.source_hash({"inner": "mod", "share": 0.0})
    assert len({entry.plugin_hash, default, other}) == 3
    assert (
        entry.source_hash({"inner": {"router": "mlp_gate", "options": {"width_ratio": 1.0}}})
        == default
    )
    assert find("mlp_gate").source_hash({}) == find("mlp_gate").plugin_hash


def test_rows_with_side_information_are_informed_whatever_the_suite_calls_them(
    tmp_path: Any,
) -> None:
    rows = [
        {"name": "tag"},
        {"name": "frequency"},
        {"name": f"{NAME}@truth", "options": {"source": "truth"}},
        {"name": f"{NAME}@none", "options": {"source": "truth", "share": 0.0}},
        {"name": f"{NAME}@oracle", "options": {"source": "oracle"}},
    ]
    suite = parse_suite(world.suite_data(world.write_text(tmp_path), rows=rows), "tiny")
    roles = {row.name: row.role for row in parse_rows(suite, "all").rows}
    assert roles == {"tag": "informed", "frequency": "ranked"} | {
        f"{NAME}@truth": "informed",
        f"{NAME}@none": "ranked",
        f"{NAME}@oracle": "ranked",
    }
