"""Prepare a cell of the regime `controller`: its frozen backbone and its training budget."""

from bench.backbone.decoder import DecoderConfig
from bench.config.suite import SuiteConfig
from bench.flops.budget import training_target
from bench.model.assemble import Model
from bench.routing.contract import Router
from bench.runner.cell_phase import Pulse
from bench.runner.cells import Cell
from bench.runner.resolve import ResolvedCell
from bench.training.pretrain import Pretraining, adopt, pretrained
from bench.training.task import Allowance


def pretraining(resolved: ResolvedCell, model: Model) -> Pretraining:
    """Return everything that the backbone of a cell depends on.

    It depends on nothing of the row, so all rows of a seed share one backbone.
    """
    cell, suite = resolved.cell, resolved.cell.suite
    assert suite.pretrain is not None
    return Pretraining(
        config=suite.pretrain,
        decoder=model.decoder.config,
        routed_layers=suite.routed_layers,
        seq_len=suite.seq_len,
        seed=cell.seed,
        machine=resolved.machine,
        device=suite.device,
        dtype=resolved.dtype,
        compiled=suite.compile,
    )


def freeze(resolved: ResolvedCell, model: Model, pulse: Pulse) -> float:
    """Load the frozen backbone and return its training cost in FLOPs; 0 in other regimes."""
    if resolved.cell.suite.regime != "controller":
        return 0.0
    pulse.enter("backbone")
    backbone = pretrained(pretraining(resolved, model), resolved.corpus, report=pulse.report)
    adopt(model, backbone)
    return backbone.flops


def training_budget(suite: SuiteConfig, config: DecoderConfig) -> float:
    """Return the training FLOPs of a router: a hard choice at B on the reference tokens."""
    # A frozen backbone has no weight gradient, so a training step costs less.
    frozen = suite.regime == "controller"
    target = training_target(config, suite.routed_layers, suite.seq_len, suite.budget, frozen)
    return target * suite.train.reference_tokens


def allowance(cell: Cell, model: Model) -> Allowance:
    """Return the training budget of a cell.

    It is empty if nothing can learn, as with a fixed choice on a frozen backbone.
    """
    if not _learns(model):
        return Allowance(0, 0)
    # Only one of the two limits holds; the other is infinite.
    infinity = float("inf")
    if cell.match == "flops":
        return Allowance(training_budget(cell.suite, model.decoder.config), infinity)
    return Allowance(infinity, cell.suite.train.reference_tokens)


def _learns(model: Model) -> bool:
    # A router may learn without gradients, in `after_step`.
    steps = any(
        type(router).after_step is not Router.after_step for router in model.decoder.routers
    )
    return steps or any(parameter.requires_grad for parameter in model.decoder.parameters())
