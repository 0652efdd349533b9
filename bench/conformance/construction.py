"""Check that a router can be built, that its weights follow from the seed, and that it runs."""

import inspect
from math import inf

import torch

from bench.conformance.check import demand, rule
from bench.conformance.life import content_digest
from bench.conformance.subject import Subject
from bench.routing.contract import NEEDS, AuxLoss, OracleRequest, Router
from bench.routing.inner_router import inside_of
from bench.routing.paths import Paths


@rule(
    "Give every option of __init__ a default, call super().__init__(), and set `paths`.",
    essential=True,
)
def builds_without_arguments(subject: Subject) -> None:
    """Every option of the constructor has a default, so that the bench can build any router."""
    parameters = list(inspect.signature(subject.entry.router.__init__).parameters.values())[1:]
    # `*args` and `**kwargs` count as loose too: nobody knows which options they take.
    loose = [
        p.name
        for p in parameters
        if p.default is p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    demand(
        not loose, "keyword options with defaults", f"options without a default: {', '.join(loose)}"
    )
    router = subject.entry.make({})
    inner = inside_of(router, subject.entry.name)
    for one in [router] if inner is None else [router, inner]:
        _demand_declarations(one)
    # Building outside a model shows an error in `build` by itself.
    subject.build()


def _demand_declarations(router: Router) -> None:
    """Demand the types of the contract in all that a router declares."""
    # A declaration of the wrong type would fail later, far from its cause.
    paths = getattr(router, "paths", None)
    demand(isinstance(paths, Paths), "`paths` to be a bench.routing.Paths", repr(paths))
    demand(router.layers in ("every", "other"), "layers 'every' or 'other'", repr(router.layers))
    oracle, allows_none, losses, memory = (
        getattr(router, name) for name in ("oracle", "allows_none", "aux_losses", "memory")
    )
    demand(
        oracle is None or isinstance(oracle, OracleRequest),
        "oracle None or an OracleRequest",
        repr(oracle),
    )
    demand(isinstance(allows_none, bool), "allows_none True or False", repr(allows_none))
    sound = isinstance(memory, int | float) and 0 <= memory < inf
    demand(sound, "memory a finite number from 0", repr(memory))
    right = isinstance(losses, dict) and all(isinstance(loss, AuxLoss) for loss in losses.values())
    demand(right, "aux_losses a dict of names and AuxLoss", repr(losses))
    strange = set(router.needs) - NEEDS
    demand(not strange, f"needs among {sorted(NEEDS)}", f"{sorted(strange)}")


@rule("Correct the line that raises the error.", essential=True)
def runs_without_errors(subject: Subject) -> None:
    """A short training with `fit`, losses and `after_step`, and an evaluation, raise no error."""
    # An operation without a price has a check of its own.
    if subject.life.error is not None and subject.life.uncounted is None:
        raise subject.life.error


@rule(
    "Draw parameters with torch's default generator, which the harness seeds; not with `random`, "
    "NumPy, the clock or the process id."
)
def same_seed_same_weights(subject: Subject) -> None:
    """Two models of one seed are equal in any state of the global generators."""
    first = {
        name: content_digest(value) for name, value in subject.model.decoder.state_dict().items()
    }
    torch.rand(3)  # moves the global generator
    again = subject.assemble().decoder.state_dict()
    second = {name: content_digest(value) for name, value in again.items()}
    names = first.keys() | second.keys()
    different = sorted(name for name in names if first.get(name) != second.get(name))
    demand(not different, "equal weights", f"different ones in {', '.join(different[:3])}")
