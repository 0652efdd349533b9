"""Shared draws: every router of a seed starts from the same weights, slice for slice, and shifts
nobody else's.
"""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.model.assemble import Model
from tests.world import CONFIG, ROWS, model, row_id, run_of, tokens

DENSE = model("dense").decoder


def backbone(found: Model) -> dict[str, Tensor]:
    return {name: p for name, p in found.decoder.named_parameters() if "router" not in name}


@pytest.mark.parametrize(("name", "options"), ROWS, ids=row_id)
def test_every_weight_is_a_slice_of_the_dense_models(
    name: str, options: Mapping[str, object]
) -> None:
    dense = dict(DENSE.named_parameters())
    for full_name, weight in backbone(model(name, options)).items():
        if ".memory." in full_name:
            assert not weight.any()
        elif ".bank." in full_name:
            whole = dense[full_name.replace(".bank.", ".full.")].flatten(0, 1)
            units = weight.flatten(0, 1)
            if ".down" in full_name:
                assert not weight.any()
            else:
                shared = min(len(whole), len(units))
                assert torch.equal(units[:shared], whole[:shared]), full_name
        else:
            unrouted = full_name.replace(".ffn.", ".ffn.full.")
            assert torch.equal(weight, dense[full_name if full_name in dense else unrouted]), (
                full_name
            )


def test_seeds_differ_and_repeat() -> None:
    one, again, other = (
        dict(model("mlp_gate", seed=seed).decoder.named_parameters()) for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if one[name].any())


def test_options_of_a_router_shift_nobodys_draws() -> None:
    narrow, wide = (backbone(model("mlp_gate", {"width_ratio": ratio})) for ratio in (0.25, 1.0))
    assert all(torch.equal(narrow[name], wide[name]) for name in narrow)


def test_a_twin_has_its_own_router_on_the_same_backbone() -> None:
    one, twin = model("mlp_gate"), model("mlp_gate", router_seed=1)
    assert all(torch.equal(weight, backbone(twin)[name]) for name, weight in backbone(one).items())
    for first, second in zip(one.decoder.routers, twin.decoder.routers, strict=True):
        assert not torch.equal(first.hidden.weight, second.hidden.weight)
        assert first.spec.seed != second.spec.seed


def test_layers_have_routers_of_their_own() -> None:
    first, second, third = model("mlp_gate").decoder.routers
    assert not torch.equal(first.hidden.weight, second.hidden.weight)
    assert len({first.spec.seed, second.spec.seed, third.spec.seed}) == 3
    assert [router.spec.layer for router in (first, second, third)] == [1, 2, 3]


@pytest.mark.parametrize(("name", "options"), ROWS, ids=row_id)
def test_global_random_state_is_left_alone(name: str, options: Mapping[str, object]) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]
    found = model(name, options)
    found.decoder(run_of(tokens(), "topk"))
    found.decoder(run_of(tokens(), "causal"))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize(
    ("share", "wanted"), [((0.0, 1.0), "full"), ((1.0, 0.0), "cheap"), ((0.5, 0.5), "half")]
)
def test_active_parameters_are_those_that_a_token_meets(
    share: tuple[float, float], wanted: str
) -> None:
    found = model("dense")
    d, layers = CONFIG.d_model, CONFIG.num_layers
    full, cheap = 3 * d * CONFIG.ffn_width, 2 * d * CONFIG.cheap_rank
    rest = 2 * d * CONFIG.vocab_size + layers * 4 * d * d + full
    met = {"full": full, "cheap": cheap, "half": (full + cheap) / 2}[wanted]
    assert found.active_parameters([share] * 3) == pytest.approx(rest + 3 * met)
