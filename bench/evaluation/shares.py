"""Compare the shares of layers and paths in evaluation with those at the end of training.

A router that is evaluated at other shares than it was trained at is another router. The balance of
experts is learnt and differs between texts. So experts count together, unless each has a knob.
"""

from collections.abc import Mapping, Sequence

from bench.routing.contract import Router
from bench.training.task import Trained

SHARE_TOLERANCE = 0.1
"""Allowed difference: of all tokens, or of the trained share where that is above 1.

In the committed records of shipped routers, the upgraded share of a layer differs from its trained
share by at most 0.036, and the number of experts per token by at most 0.032. Thresholds drift that
much between texts; the tolerance is three times as large.
"""
LEAST_STEPS = 100
"""Least number of training steps for the comparison; a router may need some to settle its share."""


def moved_shares(
    routers: Sequence[Router], trained: Trained, chosen: Mapping[int, Sequence[float]]
) -> str:
    """Return a line on a layer whose shares in evaluation and training differ; empty if none does.

    Args:
        routers: the routers of the model, in the order of its sites.
        trained: the result of training, with the shares at its end.
        chosen: routed site -> share of all tokens that chose each path, in evaluation at B.
    """
    if trained.steps < LEAST_STEPS:
        return ""
    for site, (router, before) in enumerate(zip(routers, trained.shares, strict=True)):
        # A dense plan that names no choice has no shares to compare.
        if not before:
            continue
        for name, paths in _kinds(router).items():
            was, now = (sum(shares[path] for path in paths) for shares in (before, chosen[site]))
            allowed = SHARE_TOLERANCE * max(1.0, was)
            if abs(now - was) > allowed:
                return (
                    f"Layer {router.spec.layer} sends {now:.3f} of its tokens along {name} in "
                    f"evaluation and {was:.3f} at the end of training; they may differ by "
                    f"{allowed:.3g}. State the shares of layers and paths with `relative_share`, "
                    "and train at `spec.capacity` or `spec.mean_experts`."
                )
    return ""


def _kinds(router: Router) -> dict[str, list[int]]:
    """Return the paths that count together, by name."""
    names, experts = router.paths.names, router.paths.experts
    apart = router.knob is not None and router.knob.dim() > 0
    kinds: dict[str, list[int]] = {}
    for path, name in enumerate(names):
        kind = "its experts" if name in experts and not apart else repr(name)
        kinds.setdefault(kind, []).append(path)
    return kinds
