"""A layer of the decoder written out naively: one sequence and one head at a time, by loops."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.model.assemble import Model
from bench.rng import generator
from bench.routing.contract import Selection
from tests.world import SEQ_LEN, model, run_of, tokens, trained_like

EPS = torch.finfo(torch.float32).eps


def unit(x: Tensor) -> Tensor:
    """Normalise by the root mean square."""
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def turned(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate each pair of neighbouring channels by position times frequency."""
    columns: list[Tensor] = []
    for pair in range(x.shape[1] // 2):
        angle = positions.float() * 10_000.0 ** (-2 * pair / x.shape[1])
        a, b = x[:, 2 * pair], x[:, 2 * pair + 1]
        columns += [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()]
    return torch.stack(columns, dim=-1)


def maps(layer: Any, x: Tensor, positions: Tensor) -> list[Tensor]:
    """Return the attention weights of each head, `[query, key]`, of one sequence."""
    size = x.shape[1] // layer.attention.num_heads
    query, key, _ = (unit(x) @ matrix.T for matrix in layer.attention.qkv)
    found: list[Tensor] = []
    for first in range(0, x.shape[1], size):
        part = slice(first, first + size)
        q, k = (turned(unit(one[:, part]), positions) for one in (query, key))
        later = torch.ones(len(x), len(x)).triu(1).bool()
        found.append((q @ k.T / size**0.5).masked_fill(later, -torch.inf).softmax(-1))
    return found


def attended(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
    """Return the update of attention for the tokens of one sequence, `[token, d_model]`."""
    value = unit(x) @ layer.attention.qkv[2].T
    weights = maps(layer, x, positions)
    size = x.shape[1] // len(weights)
    heads = [w @ value[:, i * size : (i + 1) * size] for i, w in enumerate(weights)]
    return torch.cat(heads, dim=-1) @ layer.attention.out.T


def swiglu(bank: Any, hidden: Tensor, index: int = 0) -> Tensor:
    """Return the output of one expert of a bank."""
    gate, up, down = bank.gate[index], bank.up[index], bank.down[index]
    return (nn.functional.silu(hidden @ gate.T) * (hidden @ up.T)) @ down.T


def best(scores: Tensor, count: int) -> Tensor:
    """Return the places of the `count` highest scores of one sequence, in order."""
    order = sorted(range(len(scores)), key=lambda t: -float(scores[t].detach()))
    return torch.tensor(sorted(order[:count]))


def taken(scores: Tensor, count: int, router: Any, selection: Selection) -> Tensor:
    """Return the places of the tokens that take the upgrade, in order.

    They are the `count` best in training, and in evaluation those above the threshold.
    """
    if selection == "topk":
        return best(scores, count)
    found = scores.detach().tolist()
    return torch.tensor([t for t, score in enumerate(found) if score > -float(router.knob)]).long()


def kept(capacity: float) -> int:
    """Return the number of tokens of a sequence."""
    return round(capacity * SEQ_LEN)


def built(name: str, options: dict[str, Any] | None = None) -> Model:
    """Assemble a model whose weights all do something."""
    found = model(name, options)
    trained_like(found.decoder)
    return found


def agree(
    found: Model,
    layers: list[int],
    naive: Callable[[Any, Tensor, Tensor], Tensor],
    selection: Selection = "topk",
) -> None:
    """Compare layers with a naive function: outputs, and gradients of stream and parameters.

    Args:
        found: the model.
        layers: indices of the layers to run one after the other.
        naive: (layer, one sequence `[token, d_model]`, its positions) -> the sequence after it.
        selection: choice of training or of evaluation.
    """
    ids = tokens()
    start = torch.randn(*ids.shape, 32, generator=generator(0, "stream"))
    parts: Any = [found.decoder.layers[index] for index in layers]
    wanted = [p for part in parts for p in part.parameters() if p.requires_grad]
    results: list[list[Tensor | None]] = []
    for ours in (True, False):
        x = start.clone().requires_grad_()
        run, y = run_of(ids, selection), x
        for part in parts:
            y = (
                part(y, run)
                if ours
                else torch.stack([naive(part, y[b], run.positions[b]) for b in range(len(y))])
            )
        factors = torch.linspace(-1, 1, y.numel()).view_as(y)
        gradients = torch.autograd.grad((y * factors).sum(), [x, *wanted], allow_unused=True)
        results.append([y, *gradients])
    for mine, other in zip(*results, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            # A sum over tokens that cancel, such as the gradient of a bias, has their rounding.
            atol = max(1e-6, 1e-5 * float(other.detach().abs().max()))
            torch.testing.assert_close(mine, other, atol=atol, rtol=1e-5)
