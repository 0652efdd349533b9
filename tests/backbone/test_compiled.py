"""Compiled attention and paths compute the same as eager ones, and keep their names."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from bench.backbone.compiled import compile_parts
from bench.backbone.decoder import Decoder, Layer
from tests.world import model, run_of, tokens, trained_like


def results(decoder: Decoder) -> list[Tensor]:
    """Logits, and the gradient of every parameter."""
    decoder.zero_grad()
    logits = decoder(run_of(tokens()))
    logits.square().mean().backward()
    return [
        logits.detach(),
        *(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in decoder.parameters()),
    ]


def compare(name: str) -> None:
    """Hold a model with its parts compiled against itself before."""
    decoder = trained_like(model(name).decoder)
    eager, names = results(decoder), list(decoder.state_dict())
    compile_parts(decoder, backend="aot_eager")
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        assert layer.attention._compiled_call_impl is not None
    assert list(decoder.state_dict()) == names
    for one, other in zip(results(decoder), eager, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2, "nothing was compiled"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp_gate", "mod", "adaptive_moe"])
def test_compiled_parts_agree_with_eager_ones(name: str) -> None:
    # A process of its own: the annotations that tests execute are not code that torch.compile can
    # trace.
    code = f"from tests.backbone.test_compiled import compare; compare({name!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
