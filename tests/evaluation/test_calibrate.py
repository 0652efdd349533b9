"""Calibration: causal evaluation spends the budget, layer by layer."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.model.assemble import Model
from bench.routing.contract import Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.paths import experts
from bench.routing.registry import Entry
from tests.world import ROWS, model, row_id, trained_like, windows

WITH_KNOB = [row for row in ROWS if model(*row).decoder.routers[0].knob is not None]


def trained(name: str, options: Mapping[str, object]) -> Model:
    found = model(name, options)
    trained_like(found.decoder)
    return found


def test_the_routers_that_choose_how_many_have_a_knob() -> None:
    assert {row_id(name) + row_id(options) for name, options in WITH_KNOB} == {
        *(
            "adaptive_moe",
            "mlp_gate",
            "jepa_gate",
            "partially_supervised",
            *("mod", "mod_ffn", "attention_mod", "early_exit", "mode"),
            "randomffn",
            "randomblock",
        ),
        *("context_hash", "frequency", "stride", "surprisal", "tag", "planted_oracle"),
        *("expert_choice", "expert_threshold", "null_experts", "remoe", "top_p"),
    }


@pytest.mark.parametrize("spend", [0.97, 1.0, 1.03])
@pytest.mark.parametrize(("name", "options"), WITH_KNOB, ids=row_id)
def test_calibration_hits_what_it_is_asked_for(
    name: str, options: Mapping[str, object], spend: float
) -> None:
    found, text = trained(name, options), windows(60)
    said = calibrate(found, text, spend)
    spent = evaluate(found, text, 16).active / found.solution.target
    # a score near its threshold may fall on the other side in a batch of another size
    assert said == pytest.approx(spent, abs=1e-3)
    assert said == pytest.approx(spend, abs=0.004)  # a token is 1 / 1440 of a site's choices


@pytest.mark.parametrize(("name", "options"), WITH_KNOB, ids=row_id)
def test_every_layer_has_its_own_knob_and_an_equal_share(
    name: str, options: Mapping[str, object]
) -> None:
    found, text = trained(name, options), windows(60)
    calibrate(found, text, 1.0)
    routers = found.decoder.routers
    knobs = [tuple(router.knob.flatten().tolist()) for router in routers if router.knob is not None]
    assert len(set(knobs)) == len(routers)
    for router, mask, shares in zip(
        routers,
        evaluate(found, text, 16, keep=True).masks.values(),
        found.solution.shares,
        strict=True,
    ):
        names, base = router.paths.names, router.paths.base
        paid = [index for index, path in enumerate(names) if base or path != "skip"]
        wanted = sum(shares[index] for index in paid)
        taken = mask[..., paid].double().mean((0, 1)).sum().item()
        assert taken == pytest.approx(wanted, abs=0.02 * max(1, wanted))


class _Thresholds(Router):
    """Each expert has a threshold of its own."""

    paths = experts(4)

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("knob", torch.zeros(4))
        self.logits = torch.nn.Linear(spec.d_model, 4, bias=False)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.logits(inputs.hidden) + torch.arange(4)
        assert self.knob is not None
        return RoutingPlan(scores > -self.knob, scores=scores)


def test_a_knob_for_each_path_balances_the_paths() -> None:
    found = model(Entry("thresholds", "tests", "", _Thresholds))
    trained_like(found.decoder)
    text = windows(60)
    said = calibrate(found, text, 1.0)
    assert said == pytest.approx(1.0, abs=0.004)
    for mask in evaluate(found, text, 16, keep=True).masks.values():
        np.testing.assert_allclose(
            mask.double().mean((0, 1)).numpy(), 0.25, atol=0.006
        )  # equal first tokens have equal scores


def test_calibration_reads_the_layers_below_as_they_will_be() -> None:
    """One pass over all layers is right only if each is calibrated on the outputs of the
    calibrated layers below it.
    """
    found, text = trained("mlp_gate", {}), windows(60)
    calibrate(found, text, 0.97)
    first = [float(router.knob) for router in found.decoder.routers if router.knob is not None]
    for router in found.decoder.routers:
        assert router.knob is not None
        router.knob.fill_(123.0)
    calibrate(found, text, 0.97)
    assert first == [
        float(router.knob) for router in found.decoder.routers if router.knob is not None
    ]
