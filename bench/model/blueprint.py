"""Define a model before its seed: a row with the sizes of its suite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.backbone.decoder import DecoderConfig
from bench.config.row import RouterTraining
from bench.routing.contract import Router
from bench.routing.registry import Entry, RouterCard


@dataclass(frozen=True)
class Blueprint:
    """The part of a suite that defines a model, before a seed.

    Attributes:
        entry: the registered router.
        options: options of the router.
        decoder: sizes of the decoder.
        routed_layers: layers that the suite routes; the router may use every other of them.
        seq_len: tokens per sequence.
        budget: rho.
        num_domains: number of domain tags in the data.
        bracket: whether the router ignores the budget on purpose.
        training: router training options. Those that add modules (noise, bias) are applied here.
        card: facts about the router with these options, if they are known already.
    """

    entry: Entry
    options: Mapping[str, object]
    decoder: DecoderConfig
    routed_layers: tuple[int, ...]
    seq_len: int
    budget: float
    num_domains: int
    bracket: bool
    training: RouterTraining = field(default_factory=RouterTraining)
    card: RouterCard | None = None

    @property
    def described(self) -> RouterCard:
        """Return the router's card; make it unless it was given."""
        return self.card or self.entry.describe(self.options)


def layers_used(router: Router | RouterCard, routed_layers: Sequence[int]) -> tuple[int, ...]:
    """Return the routed layers that a router uses."""
    return tuple(routed_layers) if router.layers == "every" else tuple(routed_layers)[::2]
