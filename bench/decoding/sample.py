"""Sample text from a model, token by token, and note which paths each token took."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.backbone.decoder import Decoder, device_of
from bench.decoding.decode import Decoding
from bench.rng import generator
from bench.routing.contract import LayerTrace, Router

OUTSIDE = "·"
"""Route of a token at a site inside a block that leaves it out."""
NONE = "none"
"""Route of a token that takes no path of a site."""


@dataclass(frozen=True)
class Sampled:
    """A sampled text.

    Attributes:
        tokens: ids of prompt and sample.
        sites: name of each routed site.
        routes: for each token that was decoded, its paths at each site. The last token of the
            sample is never decoded.
    """

    tokens: list[int]
    sites: list[str]
    routes: list[list[str]]


def sample(
    decoder: Decoder,
    prompt: Int[Tensor, " seq"],
    count: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    tag: int = 0,
    end: int | None = None,
) -> Sampled:
    """Sample tokens after a prompt. Equal arguments give equal tokens.

    Args:
        decoder: the model, with its knobs set.
        prompt: token ids, at least one.
        count: number of tokens to sample, at least one.
        temperature: divides the logits; 0 takes the most probable token.
        top_k: sample among so many of the most probable tokens; None for all.
        seed: seed of the draws.
        tag: domain of the text, for routers that need it.
        end: token after which sampling stops.
    """
    noise = generator(seed, "sample")
    tokens = prompt.to(device_of(decoder)).unsqueeze(0)
    decoding = Decoding(decoder, tokens, torch.full_like(tokens, tag))
    sites = sorted(
        zip(decoder.routers, decoding.traces, strict=True),
        key=lambda site: (site[1].layer, site[0].paths.site == "ffn"),
    )
    places = range(tokens.shape[1])
    routes = [[_prompt_route(trace, place) for _, trace in sites] for place in places]
    logits, found = decoding.logits[0, -1], prompt.tolist()
    for number in range(count):
        found.append(draw(logits.float().cpu(), temperature, top_k, noise))
        if found[-1] == end or number == count - 1:
            break
        logits = decoding.step(tokens.new_tensor(found[-1:]))[0]
        routes.append([_step_route(decoding, router) for router, _ in sites])
    names = [f"layer {trace.layer} {trace.paths.site}" for _, trace in sites]
    return Sampled(found, names, routes)


def draw(
    logits: Float[Tensor, " vocab"],
    temperature: float,
    top_k: int | None,
    noise: torch.Generator,
) -> int:
    """Draw one token."""
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        least = logits.topk(top_k).values[-1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    # In float64, so that a low temperature overflows nothing.
    p = (logits.double() / temperature).softmax(-1)
    return int(torch.multinomial(p, 1, generator=noise))


def _prompt_route(trace: LayerTrace, place: int) -> str:
    inputs = trace.inputs
    here = inputs.positions[0] == place
    here = here if inputs.valid is None else here & inputs.valid[0]
    return _named(trace.paths.names, trace.plan.mask[0][here])


def _step_route(decoding: Decoding, router: Router) -> str:
    found = decoding.work.plans.get(router)
    return OUTSIDE if found is None else _named(router.paths.names, found[1].mask[0])


def _named(names: tuple[str, ...], masks: Bool[Tensor, "_token path"]) -> str:
    """Name the paths of a token, of which there is one or none."""
    if not len(masks):
        return OUTSIDE
    taken = [name for name, took in zip(names, masks[0].tolist(), strict=True) if took]
    return "+".join(taken) or NONE
