"""Gradient norms against autograd done by hand; and reading them changes nothing."""

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

import bench.step
from bench.gradients import gradient_norms
from tests import tiny
from tests.small import model, run_of, tokens, trained_like


@pytest.mark.parametrize(("name", "parts"), [("mlp_gate", ("ffn",)), ("mod", ("attention", "ffn")), ("adaptive_moe", ("ffn",))])
def test_norms_are_those_of_the_parameters_by_name(name: str, parts: tuple[str, ...]) -> None:
    decoder = trained_like(model(name).decoder)
    ids = tokens()
    F.cross_entropy(decoder(run_of(ids)).flatten(0, 1), ids.flatten()).backward()
    found = gradient_norms(decoder)
    assert found.shape == (len(decoder.routers), 2)
    assert (found > 0).all()
    squares = {name: float(p.grad.double().square().sum()) for name, p in decoder.named_parameters() if p.grad is not None}
    for (of_router, of_paths), router in zip(found.tolist(), decoder.routers, strict=True):
        layer = f"layers.{router.spec.layer}."
        wanted = [
            sum(square for name, square in squares.items() if name.startswith(tuple(f"{layer}{part}." for part in prefixes)))
            for prefixes in (("ffn_router", "block_router"), parts)
        ]
        assert [of_router**2, of_paths**2] == pytest.approx(wanted, rel=1e-4)


def test_what_has_no_parameters_or_is_frozen_has_norm_zero() -> None:
    decoder = trained_like(model("hash").decoder).requires_grad_(False)
    decoder.head.requires_grad_(True)
    decoder(run_of(tokens())).sum().backward()
    assert torch.equal(gradient_norms(decoder), torch.zeros(len(decoder.routers), 2))
    assert gradient_norms(model("dense").decoder.requires_grad_(False)).shape[1] == 2


def test_reading_them_changes_no_bit_of_the_training() -> None:
    entry = tiny.load_all()["mlp_gate"]
    read, unread = tiny.model(entry), tiny.model(entry)
    norms = tiny.train_steps(read, 4, lambda *_: None).gradients
    with patch.object(bench.step, "gradient_norms", lambda _: torch.zeros(3, 2)):
        tiny.train_steps(unread, 4)
    assert tiny.digest(read.decoder.state_dict()) == tiny.digest(unread.decoder.state_dict())
    assert len(norms) == tiny.RECIPE.probes
    assert all(value > 0 for site in norms[-1] for value in site)
