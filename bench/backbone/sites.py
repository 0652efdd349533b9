"""Hold the paths of a routed site: the FFN-like modules that its router chooses among."""

from jaxtyping import Float
from torch import Tensor, nn

from bench.backbone.paths import Draw, ExpertBank, LowRank
from bench.routing.contract import Router
from bench.routing.paths import Paths, Site

OWN = ("full", "cheap")
"""Paths with a module of their own."""


class PathSet(nn.Module):
    """The FFN-like paths of one site, by name.

    "full" is the dense FFN, "cheap" the low-rank FFN, and "skip" adds nothing at no cost. All names
    that begin with "expert" share one bank.

    Attributes:
        run_idle: run a path also if it has no token. Its gradient is then 0 instead of none, which
            ranks that average gradients need.
    """

    run_idle = False

    def __init__(
        self, paths: Paths, d_model: int, ffn_width: int, cheap_rank: int, expert_width: int
    ) -> None:
        super().__init__()
        self.names, self.segment = paths.names, paths.segment
        self.experts = list(paths.experts)
        if "full" in self.names:
            self.full = ExpertBank(d_model, ffn_width)
        if "cheap" in self.names:
            self.cheap = LowRank(d_model, cheap_rank)
        if self.experts:
            self.bank = ExpertBank(d_model, expert_width, len(self.experts))

    def reset(self, draw: Draw) -> None:
        """Draw the weights. The bank takes its units from the same draw as the full path."""
        # Only the cheap path has names of its own; a bank and a full path share their draw.
        for name, module in self.named_children():
            module.reset(
                draw
                if name != "cheap"
                else lambda part, rows, columns: draw(f"cheap.{part}", rows, columns)
            )  # type: ignore[operator]

    def run(
        self, index: int, x: Float[Tensor, "token d_model"]
    ) -> Float[Tensor, "token d_model"] | None:
        """Run one path on its tokens. Return None for a path that adds nothing."""
        name = self.names[index]
        if name == "skip":
            return None
        if name == "full":
            return self.full(x)
        return self.cheap(x) if name == "cheap" else self.bank(x, self.experts.index(name))

    def parts(self) -> dict[nn.Module, list[str]]:
        """Return the modules of the paths, each with the names of its paths."""
        found = {self.get_submodule(name): [name] for name in self.names if name in OWN}
        return found | ({self.bank: self.experts} if self.experts else {})

    @property
    def is_bank(self) -> bool:
        """Whether every path is an expert of the bank."""
        return len(self.experts) == len(self.names)

    def flops(self, index: int) -> float:
        """Return the FLOPs per token of one path."""
        name = self.names[index]
        if name == "skip":
            return 0.0
        if name == "full":
            return self.full.flops()
        return self.cheap.flops() if name == "cheap" else self.bank.flops()


def is_block(router: Router) -> bool:
    """Return whether the router chooses whole blocks."""
    return router.paths.site is Site.BLOCK
