"""Muon against the singular value decomposition, the schedule against its corners, gradient norms
against autograd.
"""

from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import bench.training.step
from bench.flops.counter import count
from bench.rng import generator
from bench.training.optim import (
    Muon,
    gradient_norms,
    muon_parameters,
    newton_schulz_flops,
    orthogonalise,
    trapezoid,
)
from tests import world
from tests.world import ROWS, model, row_id, run_of, tokens, trained_like

SHAPES = [(8, 8), (24, 8), (8, 24), (64, 48)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed, "noise"))


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_singular_values_come_near_one_and_vectors_stay(rows: int, columns: int) -> None:
    matrix = noise(1, rows, columns)
    u, values, v = torch.linalg.svd(matrix[0], full_matrices=False)
    inner = u.T @ orthogonalise(matrix)[0] @ v.T
    assert (inner - inner.diag().diag()).abs().max() < 1e-3
    sure = values / values.norm() > 0.02  # smaller ones need more than five steps
    assert sure.sum() >= min(rows, columns) - 1
    assert inner.diag()[sure].min() > 0.6
    assert inner.diag()[sure].max() < 1.25


def test_a_stack_is_orthogonalised_one_by_one() -> None:
    stack = noise(5, 12, 8)
    together = orthogonalise(stack)
    for index in range(5):
        torch.testing.assert_close(
            together[index], orthogonalise(stack[index : index + 1])[0], rtol=1e-5, atol=1e-6
        )
    torch.testing.assert_close(orthogonalise(stack.mT), together.mT, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_bfloat16_agrees_within_its_rounding(rows: int, columns: int) -> None:
    stack = noise(3, rows, columns)
    exact, found = orthogonalise(stack), orthogonalise(stack, low=True)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, exact, rtol=0, atol=0.05)
    assert (found - exact).abs().max() > 1e-4


def test_the_recipe_chooses_the_precision_of_muon() -> None:
    losses: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for dtype, found in losses.items():
        report = lambda _, loss, found=found: found.append(float(loss))  # noqa: E731
        world.fit(model("dense_matched"), 4, muon_dtype=dtype, report=report)
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.1)
    assert losses["bfloat16"][2:] != losses["float32"][2:]


def test_a_zero_gradient_moves_nothing() -> None:
    assert not orthogonalise(torch.zeros(2, 6, 4)).any()


def test_steps_are_nesterov_momentum_orthogonalised_and_scaled() -> None:
    tall, square = nn.Parameter(noise(2, 12, 3)), nn.Parameter(noise(4, 4))
    before = [p.detach().clone() for p in (tall, square)]
    average = [torch.zeros_like(p) for p in before]
    optimiser = Muon([tall, square], lr=0.1, momentum=0.9)
    for step in range(3):
        for index, p in enumerate((tall, square)):
            gradient = noise(*p.shape, seed=10 * step + index)
            p.grad = gradient.clone()
            average[index] = 0.9 * average[index] + 0.1 * gradient
            direction = 0.1 * gradient + 0.9 * average[index]
            scale = 0.1 * max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5
            before[index] -= scale * orthogonalise(direction.view(-1, *p.shape[-2:])).view_as(p)
        optimiser.step()
    torch.testing.assert_close(tall.detach(), before[0])
    torch.testing.assert_close(square.detach(), before[1])


def test_momentum_takes_memory_at_the_first_step_alone() -> None:
    parameter = nn.Parameter(torch.ones(2, 3))
    optimiser = Muon([parameter], lr=0.1)
    with patch("torch.zeros_like", wraps=torch.zeros_like) as made:
        for _ in range(3):
            parameter.grad = torch.ones(2, 3)
            optimiser.step()
    assert made.call_count == 1


def test_a_restored_momentum_is_on_the_device_of_its_parameter() -> None:
    """A checkpoint is read on the CPU. The device `meta` stands for a GPU."""
    here, there = (nn.Parameter(torch.ones(2, 3, device=device)) for device in ("cpu", "meta"))
    here.grad = torch.ones(2, 3)
    stepped, restored = Muon([here], lr=0.1), Muon([there], lr=0.1)
    stepped.step()
    restored.load_state_dict(stepped.state_dict())
    assert restored.state[there]["average"].device.type == "meta"


def test_a_parameter_without_a_gradient_stays_and_its_twin_of_the_same_shape_moves() -> None:
    still, moved = nn.Parameter(noise(4, 4)), nn.Parameter(noise(4, 4))
    moved.grad = noise(4, 4, seed=1)
    kept = still.detach().clone()
    Muon([still, moved], lr=0.1).step()
    assert torch.equal(still, kept)
    assert not torch.equal(moved, noise(4, 4))


@pytest.mark.parametrize("shape", [(3, 8, 24), (24, 8), (6, 6)])
def test_newton_schulz_flops_are_what_the_counter_sees(shape: tuple[int, ...]) -> None:
    matrices = noise(*shape).view(-1, *shape[-2:])
    assert (
        newton_schulz_flops([nn.Parameter(noise(*shape))])
        == count(lambda: orthogonalise(matrices)).matrix
    )


@pytest.mark.parametrize(("name", "options"), ROWS, ids=row_id)
def test_muon_has_the_matrices_of_layers_and_paths_and_no_more(
    name: str, options: dict[str, object]
) -> None:
    decoder = model(name, options).decoder
    taken = {id(p) for p in muon_parameters(decoder, decoder.routers)}
    for full_name, parameter in decoder.named_parameters():
        table = ".memory." in full_name  # an embedding, as the one of tokens
        belongs = full_name.startswith("layers.") and "router" not in full_name and not table
        assert (id(parameter) in taken) == belongs, full_name


@given(st.floats(0, 1))
def test_it_is_the_interpolation_of_its_corners(progress: float) -> None:
    wanted = np.interp(progress, [0, 0.1, 0.5, 1], [0, 1, 1, 0])
    assert trapezoid(progress, warmup=0.1, decay=0.5) == pytest.approx(wanted, abs=1e-12)


@given(st.floats(0, 1.5), st.floats(0, 1), st.floats(0, 1))
def test_it_is_a_factor_whatever_the_corners(progress: float, warmup: float, decay: float) -> None:
    assert 0 <= trapezoid(progress, warmup, decay) <= 1


def test_without_ramps_it_is_flat() -> None:
    assert [trapezoid(p, 0, 0) for p in (0.0, 0.5, 1.0)] == [1, 1, 1]


def test_a_step_over_the_end_is_not_taken_backwards() -> None:
    assert trapezoid(1.01, 0.1, 0.5) == 0


@pytest.mark.parametrize(
    ("name", "parts"),
    [("mlp_gate", ("ffn",)), ("mod", ("attention", "ffn")), ("adaptive_moe", ("ffn",))],
)
def test_norms_are_those_of_the_parameters_by_name(name: str, parts: tuple[str, ...]) -> None:
    decoder = trained_like(model(name).decoder)
    ids = tokens()
    F.cross_entropy(decoder(run_of(ids)).flatten(0, 1), ids.flatten()).backward()
    found = gradient_norms(decoder)
    assert found.shape == (len(decoder.routers), 2)
    assert (found > 0).all()
    squares = {
        name: float(p.grad.double().square().sum())
        for name, p in decoder.named_parameters()
        if p.grad is not None
    }
    for (of_router, of_paths), router in zip(found.tolist(), decoder.routers, strict=True):
        layer = f"layers.{router.spec.layer}."
        wanted = [
            sum(
                square
                for name, square in squares.items()
                if name.startswith(tuple(f"{layer}{part}." for part in prefixes))
            )
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
    read, unread = model("mlp_gate"), model("mlp_gate")
    norms = world.fit(read, 4, probe=lambda *_: None, probes=2).gradients
    with patch.object(bench.training.step, "gradient_norms", lambda _: torch.zeros(3, 2)):
        world.fit(unread, 4)
    assert world.digest(read.decoder.state_dict()) == world.digest(unread.decoder.state_dict())
    assert len(norms) == 2
    assert all(value > 0 for site in norms[-1] for value in site)
