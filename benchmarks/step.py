"""Time the harness's dense step against a bare loop of the same model, alternating in one run.

Both train the same decoder on the same batches with the same optimisers; the bare loop knows no
router, plan, trace or ledger. Run on an idle machine: `OMP_NUM_THREADS=1 python
benchmarks/step.py`. The harness should stay within 5 %.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone.presets import decoder_config
from bench.config.suite import TrainConfig
from bench.model.assemble import Blueprint, assemble
from bench.rng import generator
from bench.routing.registry import find
from bench.training.optim import Muon
from bench.training.step import Stepper
from bench.training.supervision import Supervisor
from bench.training.utility import Oracle

VOCAB, BATCH, SEQ = 256, 16, 128
D, LAYERS, HEADS, FFN = 64, 4, 2, 256


class BareLayer(nn.Module):
    """Attention and SwiGLU, pre-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(3, D, D) * D**-0.5)
        self.out = nn.Parameter(torch.zeros(D, D))
        self.gate = nn.Parameter(torch.randn(FFN, D) * D**-0.5)
        self.up = nn.Parameter(torch.randn(FFN, D) * D**-0.5)
        self.down = nn.Parameter(torch.zeros(D, FFN))

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        """One layer on `[batch, seq, d]`."""
        qkv = F.linear(F.rms_norm(x, (D,)), self.qkv.view(3 * D, D)).view(
            BATCH, SEQ, 3 * HEADS, D // HEADS
        )
        query_key, value = qkv.split((2 * HEADS, HEADS), dim=2)
        pairs = torch.view_as_complex(F.rms_norm(query_key, (D // HEADS,)).unflatten(-1, (-1, 2)))
        query, key = torch.view_as_real(pairs * turn).flatten(-2).transpose(1, 2).chunk(2, dim=1)
        seen = F.scaled_dot_product_attention(query, key, value.transpose(1, 2), is_causal=True)
        x = x + F.linear(seen.transpose(1, 2).reshape(BATCH, SEQ, D), self.out)
        hidden = F.rms_norm(x, (D,))
        return x + F.linear(
            F.silu(F.linear(hidden, self.gate)) * F.linear(hidden, self.up), self.down
        )


class Bare(nn.Module):
    """The dense decoder, written out."""

    turn: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, D)
        self.layers = nn.ModuleList(BareLayer() for _ in range(LAYERS))
        self.head = nn.Linear(D, VOCAB, bias=False)
        angle = torch.outer(
            torch.arange(SEQ), 10_000.0 ** (-torch.arange(0, D // HEADS, 2) / (D // HEADS))
        )
        self.register_buffer("turn", torch.polar(torch.ones_like(angle), angle).unsqueeze(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = F.rms_norm(self.embedding(tokens), (D,))
        for layer in self.layers:
            x = layer(x, self.turn)
        return self.head(F.rms_norm(x, (D,)))


def bare_step() -> Callable[[Tensor], None]:
    """A step of the bare loop."""
    model = Bare()
    muon = Muon(model.layers.parameters(), lr=0.01)
    adam = torch.optim.AdamW(
        [model.embedding.weight, model.head.weight],
        lr=0.002,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        foreach=True,
    )

    def step(tokens: Tensor) -> None:
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
        for optimiser in (muon, adam):
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    return step


def harness_step(router: str) -> Callable[[Tensor], None]:
    """A step of the harness."""
    decoder = decoder_config("tiny", VOCAB, SEQ)
    blueprint = Blueprint(find(router), {}, decoder, (1, 2, 3), SEQ, 0.5, 6, router == "dense")
    model, single = assemble(blueprint, 0), torch.float32
    recipe = TrainConfig(reference_tokens=1)
    loop = Stepper(
        model,
        recipe,
        1.0,
        single,
        generator(0, "noise"),
        Oracle(model, 0, single),
        Supervisor(model, 1),
    )
    zeros = torch.zeros(BATCH, SEQ + 1, dtype=torch.long)
    return lambda tokens: void(loop.step(tokens, zeros, zeros, 0.5))


def void(_: object) -> None:
    """Drop a result."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--router", default="dense")
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps = {"bare": bare_step(), arguments.router: harness_step(arguments.router)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    noise = generator(0, "benchmark")
    for count in range(arguments.rounds + 5):
        tokens = torch.randint(VOCAB, (BATCH, SEQ + 1), generator=noise)
        for name, step in steps.items():
            started = time.process_time()
            step(tokens)
            if count >= 5:
                seconds[name].append(time.process_time() - started)
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    for name, median in middle.items():
        print(
            f"{name:14} {1e3 * median:7.2f} ms of processor time a step, "
            f"{BATCH * SEQ / median:8,.0f} tokens a second"
        )
    print(f"ratio {middle[arguments.router] / middle['bare']:.3f}")


if __name__ == "__main__":
    main()
