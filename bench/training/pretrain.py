"""Pretrain the frozen backbone of the regime `controller`, once per seed.

All routers of a seed share it; it is kept in the user's cache. The dense model learns language by
the ordinary recipe, with every routed layer on its full path. Beside it, the cheap path of each
routed layer learns to predict the full path's update from the same inputs (mean squared error),
without a gradient into the backbone. The result is a pure function of the pretraining part of the
suite, the sizes, the data, the seed and the machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.backbone.compiled import compile_parts
from bench.backbone.decoder import Decoder, DecoderConfig
from bench.backbone.passes import autocast, make_pass
from bench.backbone.sites import PathSet
from bench.backbone.token_losses import mean_loss
from bench.config.base import hash_of
from bench.config.recipe import PretrainConfig
from bench.data import Corpus, Split, train_batch
from bench.errors import Diverged, UserError
from bench.files import default_cache, file_lock
from bench.flops.budget import StandIn
from bench.flops.ledger import Ledger
from bench.model.assemble import Model
from bench.record import RULES_VERSION
from bench.rng import key
from bench.routing.capacity import gate_plan
from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan
from bench.training.backbone_store import Pretrained, read_backbone, write_backbone
from bench.training.checkpoint import Checkpoints
from bench.training.optim import Muon, muon_parameters, trapezoid

BACKBONE_FORMAT = 1
"""Raise it when the same pretraining gives other weights, or the file gets another layout."""
BACKBONE_CHECKPOINT_SECONDS = 60.0
REPORTS = 50
"""Number of progress reports of a pretraining."""

Report = Callable[[float, float], None]
"""Called with the finished share and the language-modelling loss, nats per token."""


@dataclass(frozen=True)
class Pretraining:
    """Everything but the data that the weights of a frozen backbone depend on.

    Attributes:
        config: the recipe.
        decoder: sizes of the decoder.
        routed_layers: layers that get a cheap path.
        seq_len: tokens per sequence.
        seed: seed of the weights and of the data order.
        machine: device class, threads, precision and versions.
        device: device for training.
        dtype: precision of matrix products.
        compiled: whether attention and paths are compiled.
    """

    config: PretrainConfig
    decoder: DecoderConfig
    routed_layers: tuple[int, ...]
    seq_len: int
    seed: int
    machine: Mapping[str, Any]
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    compiled: bool = False

    def key(self, data_hash: str) -> str:
        """Return the content key: equal keys mean equal weights."""
        sizes = [asdict(self.decoder), self.routed_layers, self.seq_len]
        return hash_of(
            [
                BACKBONE_FORMAT,
                RULES_VERSION,
                self.config.canonical(),
                sizes,
                self.seed,
                self.machine,
                self.compiled,
                data_hash,
            ]
        )


def pretrained(
    task: Pretraining, corpus: Corpus, cache: Path | None = None, report: Report | None = None
) -> Pretrained:
    """Return the backbone, from the cache or newly trained.

    If several processes ask, one trains and the others wait.

    Args:
        task: the backbone to train.
        corpus: the training text.
        cache: folder of the user's cache; None for the default.
        report: receives the progress.

    Raises:
        Diverged: the loss is not finite.
        UserError: the cache cannot be written.
    """
    content = task.key(corpus.content_hash)
    path = (cache or default_cache()) / "pretrained" / f"{content}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The lock is held while one process trains; the others find the result in the cache.
        with file_lock(path.with_suffix(".lock")):
            if (found := read_backbone(path)) is None:
                checkpoints = Checkpoints(
                    path.with_suffix(".checkpoints"), content, BACKBONE_CHECKPOINT_SECONDS
                )
                found = _pretrain(task, corpus.train, checkpoints, report)
                write_backbone(path, found)
                checkpoints.clear()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Cannot write {path.parent}: {reason}. Set TOKEN_ROUTING_BENCH_CACHE to a folder with "
            "room."
        ) from error
    return found


def adopt(model: Model, backbone: Pretrained) -> None:
    """Give a model the backbone and freeze it, so that only routers are trained.

    Raises:
        UserError: the model has a path for which the backbone has no weights.
    """
    routers = {
        id(parameter) for router in model.decoder.routers for parameter in router.parameters()
    }
    for name, parameter in model.decoder.named_parameters():
        if id(parameter) in routers:
            continue
        weight = backbone.weights.get(_dense_name(name))
        if weight is None:
            raise UserError(
                f"The pretrained backbone has no weights for {name}: it has the full and the cheap "
                "path of each routed layer."
            )
        parameter.data.copy_(weight)
        parameter.requires_grad_(False)
    model.frozen = True


def _dense_name(name: str) -> str:
    # The full path of a routed layer is the FFN of the dense model.
    return name.replace(".ffn.full.", ".ffn.")


def _all_full(_: Router, inputs: RouterInput) -> RoutingPlan:
    return gate_plan(torch.ones_like(inputs.tokens, dtype=torch.bool), inputs.tokens.shape[1])


class _Loop:
    """The state of a pretraining without the weights."""

    def __init__(self, decoder: Decoder, config: PretrainConfig) -> None:
        self.decoder, self.config = decoder, config
        cheap = [p for site in _sites(decoder) for p in site.cheap.parameters()]
        apart = {id(p) for p in cheap}
        # Cheap paths have their own learning rate, so they are apart from the other matrices.
        matrices = [p for p in muon_parameters(decoder, []) if id(p) not in apart]
        rest = [decoder.embedding.weight, decoder.head.weight]
        adam = torch.optim.AdamW(
            rest, lr=config.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=False, foreach=True
        )
        self.optimisers: list[torch.optim.Optimizer] = [
            Muon(matrices, config.muon_lr),
            Muon(cheap, config.cheap_lr),
            adam,
        ]
        self.peaks: list[float] = [optimiser.param_groups[0]["lr"] for optimiser in self.optimisers]
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the next step depends on, without the weights."""
        return {
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        for optimiser, theirs in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(theirs)
        self.steps = state["steps"]

    def step(self, tokens: Tensor, progress: float, dtype: torch.dtype) -> Tensor:
        """Train on `[batch, seq + 1]` tokens and return the language-modelling loss."""
        run = make_pass(tokens[:, :-1], None, selection="topk", decide=_all_full)
        with autocast(tokens.device, dtype):
            logits = self.decoder(run)
            beside = distillation(self.decoder, run.traces)
        loss = mean_loss(logits, tokens[:, 1:])
        (loss + beside).backward()
        factor = trapezoid(progress, self.config.warmup, self.config.decay)
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            optimiser.param_groups[0]["lr"] = peak * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.steps += 1
        return loss.detach()


def distillation(decoder: Decoder, traces: list[LayerTrace]) -> Tensor:
    """Return the mean squared error of each cheap path to the full path, summed over layers."""
    losses: list[Tensor] = []
    for site, trace in zip(_sites(decoder), traces, strict=True):
        # Both are detached: the cheap path learns, the backbone does not.
        wanted = trace.path_updates["full"][1].detach()
        losses.append(
            F.mse_loss(
                site.cheap(trace.inputs.hidden.detach().flatten(0, 1)).float(), wanted.float()
            )
        )
    return torch.stack(losses).sum()


def _sites(decoder: Decoder) -> list[PathSet]:
    return [layer.ffn for layer in decoder.layers if isinstance(layer.ffn, PathSet)]


def _pretrain(
    task: Pretraining, split: Split, checkpoints: Checkpoints, report: Report | None
) -> Pretrained:
    # Modules of torch draw from the global generator when they are made.
    with torch.random.fork_rng(devices=[]):
        decoder = Decoder(task.decoder, {layer: [StandIn()] for layer in task.routed_layers})
    decoder.reset(task.seed)
    decoder.to(task.device)
    if task.compiled:
        compile_parts(decoder)
    loop = _Loop(decoder, task.config)
    checkpoints.parts["pretraining"] = loop
    checkpoints.restore(decoder)
    batch_size = task.config.batch_size
    # A ceiling division: at least so many tokens.
    steps = -(-task.config.tokens // (batch_size * task.seq_len))
    order = key(task.seed, "pretraining")
    while loop.steps < steps:
        done = loop.steps / steps
        batch = train_batch(
            split, seed=order, step=loop.steps, batch_size=batch_size, seq_len=task.seq_len
        )
        loss = loop.step(torch.from_numpy(batch.tokens).to(task.device), done, task.dtype)
        # Reading the loss waits for the device, so it is checked only now and then.
        if loop.steps % max(1, steps // REPORTS) == 0:
            if not loss.isfinite():
                raise Diverged("The loss of the pretraining is not finite.")
            if report is not None:
                report(loop.steps / steps, float(loss))
        checkpoints.save_if_due(decoder, loop.steps)
    weights = {
        _dense_name(name): parameter.detach().cpu()
        for name, parameter in decoder.named_parameters()
    }
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise Diverged("The weights of the pretraining are not finite.")
    return Pretrained(weights, steps * _step_flops(decoder, batch_size, task.seq_len))


def _step_flops(decoder: Decoder, batch_size: int, seq_len: int) -> float:
    """Return the FLOPs of one step, forward and backward.

    The cheap paths are charged like an auxiliary loss.
    """
    ledger, tokens = Ledger(decoder, seq_len, {}), batch_size * seq_len
    full = torch.tensor([[0, seq_len]]).expand(batch_size, 2)
    beside = tokens * sum(site.cheap.flops() for site in _sites(decoder))
    return ledger.charge_step([full] * len(ledger.sites), tokens, beside)
