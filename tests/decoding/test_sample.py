"""Samples are seeded, follow the model, and name the paths that ran."""

from typing import Any

import pytest
import torch

from bench.backbone.passes import make_pass
from bench.decoding.sample import NONE, OUTSIDE, draw, sample
from bench.rng import generator
from tests import world
from tests.decoding.test_decode import made

PROMPT = torch.tensor([3, 1, 4, 1, 5])


def test_without_temperature_the_sample_is_the_most_probable_text() -> None:
    decoder = made("mlp_gate", {}).decoder
    found = sample(decoder, PROMPT, 12, temperature=0).tokens
    assert found[:5] == PROMPT.tolist() and len(found) == 17
    for length in range(5, 17):
        with torch.no_grad():
            ids = torch.tensor([found[:length]])
            logits = decoder(make_pass(ids, torch.zeros_like(ids)))[0, -1]
        assert logits[found[length]] >= logits.max() - 1e-4


def test_a_seed_gives_one_text_and_another_seed_another() -> None:
    decoder = made("mod", {}).decoder
    first, again, other = (sample(decoder, PROMPT, 16, seed=seed) for seed in (1, 1, 2))
    assert first == again and first.tokens != other.tokens


def test_sampling_stops_after_the_end_of_a_document() -> None:
    decoder = made("dense", {}).decoder
    whole = sample(decoder, PROMPT, 16).tokens
    end = whole[8]
    found = sample(decoder, PROMPT, 16, end=end).tokens
    assert found == whole[: whole.index(end, 5) + 1]


def test_draws_follow_temperature_and_top_k() -> None:
    logits, noise = torch.tensor([0.0, 1.0, 2.0, -1.0]), generator(0, "draws")
    assert draw(logits, 0.0, None, noise) == 2

    def shares(temperature: float, top_k: int | None) -> list[float]:
        drawn = [draw(logits, temperature, top_k, noise) for _ in range(4000)]
        return [drawn.count(token) / len(drawn) for token in range(4)]

    assert shares(1.0, None) == pytest.approx(logits.softmax(0).tolist(), abs=0.03)
    assert shares(0.5, None) == pytest.approx((2 * logits).softmax(0).tolist(), abs=0.03)
    two = shares(1.0, 2)
    assert two[0] == two[3] == 0.0 and two[2] == pytest.approx(0.731, abs=0.03)


@pytest.mark.parametrize(
    ("name", "options"),
    [("mlp_gate", {}), ("mode", {"mode": "staged"}), ("remoe", {}), ("early_exit", {})],
    ids=world.row_id,
)
def test_routes_are_those_of_the_parallel_pass(name: str, options: dict[str, Any]) -> None:
    decoder = made(name, options).decoder
    found = sample(decoder, PROMPT, 14, seed=3)
    ids = torch.tensor([found.tokens[:-1]])
    run = make_pass(ids, torch.zeros_like(ids))
    with torch.no_grad():
        decoder(run)
    assert len(found.routes) == ids.shape[1]
    by_site = {f"layer {trace.layer} {trace.paths.site}": trace for trace in run.traces}
    assert set(by_site) == set(found.sites)
    for place, route in enumerate(found.routes):
        for site, said in zip(found.sites, route, strict=True):
            trace = by_site[site]
            here = trace.inputs.positions[0] == place
            valid = trace.inputs.valid
            masks = trace.plan.mask[0][here if valid is None else here & valid[0]]
            names = trace.paths.names
            taken = (
                [n for n, took in zip(names, masks[0], strict=True) if took] if len(masks) else []
            )
            assert said == ("+".join(taken) if taken else NONE if len(masks) else OUTSIDE)
