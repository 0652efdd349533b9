"""Measures against the fields of a record."""

import math
from typing import Any

import pytest

from bench.board.conditions import with_one_clock
from bench.errors import UserError
from bench.record import CausalChoice, CurvePoint, Record, RightPaths, SupervisionMonitor
from bench.study.measures import MEASURES, find_measure
from tests.board.synthetic import QUICK, record

GATE = next(kind for kind in QUICK if kind.row == "mlp_gate")


def curve(*losses: float) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(step=n, tokens=100 * n, flops=1e6 * n, seconds=n, train_loss=0, loss=loss)
        for n, loss in enumerate(losses, start=1)
    )


def read(name: str, **changes: Any) -> float | None:
    return find_measure(name).read(record(GATE, 0, **changes))


def test_losses_of_the_probes() -> None:
    shape = {"curve": curve(3.0, 2.0, 2.5, math.nan)}
    assert read("best_loss", **shape) == 2.0
    assert read("average_loss", **shape) == pytest.approx(2.5)
    assert read("best_loss", curve=()) is None


def test_the_causal_choice_is_compared_with_top_k() -> None:
    found = CausalChoice(
        loss=2.5, topk_loss=2.25, accuracy=(0.5, 1.0), own_accuracy=(0.25, 0.75), own_spend=1.5
    )
    wanted = {"topk_gap": 0.25, "topk_accuracy": 0.75, "own_accuracy": 0.5, "own_spend": 1.5}
    for name, value in wanted.items():
        assert read(name, causal_choice=found) == value
        assert read(name) is None


def test_cost_to_a_loss_is_read_between_probes() -> None:
    shape = {"curve": curve(3.0, 2.0)}
    assert read("flops_to:2.5", **shape) == pytest.approx(1.5e6)
    assert read("tokens_to:2.5", **shape) == pytest.approx(150)
    assert read("seconds_to:2.5", **shape) == pytest.approx(1.5)
    assert read("tokens_to:1.5", **shape) is None


def test_a_time_that_does_not_compare_is_no_time_to_a_loss() -> None:
    """A board takes the times away from records of another processor."""
    made = record(GATE, 0, curve=curve(3.0, 2.0))
    first, other = (
        made.model_copy(update={"provenance": made.provenance.model_copy(update={"processor": p})})
        for p in ("a", "b")
    )
    clocked, timeless = with_one_clock([first, other])
    assert [find_measure("seconds_to:2.5").read(one) for one in (clocked, timeless)] == [1.5, None]
    assert find_measure("flops_to:2.5").read(timeless) == pytest.approx(1.5e6)


def test_ratios_are_compared_in_logarithms() -> None:
    gradient, loss = find_measure("router_gradient"), find_measure("loss")
    assert gradient.width(10.0) == pytest.approx(math.log(10)) and loss.width(0.01) == 0.01
    assert gradient.effect(math.log(0.1)) == "0.1×" and loss.effect(-0.01) == "−0.0100"


def test_figures_of_layers_are_averaged_over_those_that_have_them() -> None:
    made = record(GATE, 0)
    gradients = ((1.0, 3.0), (4.0,), ())
    monitors = tuple(
        one.model_copy(update={"router_gradient": norms})
        for one, norms in zip(made.monitors, gradients, strict=True)
    )
    assert find_measure("router_gradient").read(
        made.model_copy(update={"monitors": monitors})
    ) == pytest.approx(3.0)
    paths = {"paths": ("expert_shared0", "expert0", "expert1"), "always": ("expert_shared0",)}
    even = tuple(
        one.model_copy(update={**paths, "load": (1.0, 0.25, 0.75)}) for one in made.monitors
    )
    assert find_measure("load_cv").read(
        made.model_copy(update={"monitors": even})
    ) == pytest.approx(0.5)


def test_figures_of_right_paths_are_averaged_over_layers() -> None:
    truth = RightPaths(accuracy=(0.5, None, 0.9), chance=(0.25, None, 0.25), best_loss=1.0)
    told = tuple(
        SupervisionMonitor(layer=layer, documents=9, supervised=share, unsupervised=None)
        for layer, share in ((0, 0.8), (1, 0.6))
    )
    made = record(GATE, 0).model_copy(update={"truth": truth, "supervision": told})
    names = ("accuracy", "chance_accuracy", "supervised_accuracy", "unsupervised_accuracy")
    assert [find_measure(name).read(made) for name in names] == pytest.approx(
        [0.7, 0.25, 0.7, None]
    )


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_a_record_that_failed_early_has_no_number(name: str) -> None:
    whole = record(GATE, 0)
    bare = Record(
        key="k",
        status="failed",
        cell=whole.cell,
        row=whole.row,
        provenance=whole.provenance,
    )
    assert find_measure(name).coordinate(bare) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("los", "Did you mean 'loss'?"),
        ("flops_to:much", "is no loss"),
        ("flops_to", "Unknown measure"),
        ("flops_to:-1", "is no"),
        ("seconds_to:inf", "Write nats after the colon, as seconds_to:2.3"),
        ("several_in:last", "is no layer. Write its number"),
        ("several_in:-1", "is no layer"),
        ("several_in", "several_in:LAYER"),
    ],
)
def test_an_unknown_measure_is_told_in_one_line(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        find_measure(name)


def test_use_of_experts_at_the_end_of_training() -> None:
    made = record(GATE, 0)
    shape = {"paths": ("a", "b", "c"), "always": (), "load": (0.6, 0.3, 0.1)}
    shape |= {"load_by_domain": {"first": (1.0, 0, 0), "second": (0, 0.5, 0.5)}}
    layers = [{**shape, "several": (0.9, 0.4)}, {**shape, "several": (0.8, 0.2)}, {**shape}]
    monitors = [one.model_copy(update=new) for one, new in zip(made.monitors, layers, strict=True)]
    made = made.model_copy(update={"monitors": tuple(monitors)})
    assert find_measure("several").read(made) == pytest.approx(0.3)
    by_layer = [find_measure(f"several_in:{layer}") for layer in (1, 2, 3, 4)]
    assert [one.read(made) for one in by_layer] == [0.4, 0.2, None, None]
    assert by_layer[0].title == "several, layer 1"
    assert find_measure("max_violation").read(made) == pytest.approx(0.6 * 3 - 1)
    assert find_measure("purity").read(made) == 1.0
