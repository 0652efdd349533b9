"""Compute the auxiliary losses of routing, by pure functions of one layer's trace.

Each returns a scalar. The harness weighs it by name and adds it to the language-modelling loss.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from bench.routing.balance_loss import balance_loss, load_shares
from bench.routing.contract import LayerTrace
from bench.routing.estimators import Credit, credit

LEAST_NOISE = 1e-16
"""Smallest standard deviation of noise.

The largest lead, 1e4, divided by its square is finite in float32.
"""


def _scores(trace: LayerTrace) -> Float[Tensor, "batch seq path"]:
    if trace.plan.scores is None:
        raise TypeError("This auxiliary loss needs plan.scores, and the plan has none.")
    return trace.plan.scores


def _logits(trace: LayerTrace) -> Float[Tensor, "batch seq path"]:
    return trace.of_chosen(_scores(trace))


def _chosen(trace: LayerTrace) -> Bool[Tensor, "batch seq path"]:
    return trace.of_chosen(trace.plan.chosen)


def load_balance(trace: LayerTrace) -> Float[Tensor, ""]:
    """Return `N * sum_e f_e P_e`: 1 at perfect balance (Switch, arXiv:2101.03961, section 2.2).

    f_e is the share of choices that fell on path e, P_e its mean probability. The shares add up to
    1 at any number of choices per token. Mixtral's published code counts a token's k choices in
    full. Its loss is k times this one, so the equivalent weight there is k times smaller.
    """
    return balance_loss(load_shares(_chosen(trace)), _logits(trace).softmax(-1))


def router_z(trace: LayerTrace) -> Float[Tensor, ""]:
    """Return `mean(logsumexp(scores)^2)`: keeps logits small (ST-MoE, arXiv:2202.08906, eq. 5)."""
    return _logits(trace).logsumexp(-1).square().mean()


def centre(trace: LayerTrace) -> Float[Tensor, ""]:
    """Return the binary cross-entropy of the upgrade's score to its own top-k choice.

    From arXiv:2404.02258, section 3.5. It moves the chosen scores above 0 and the others below, so
    a fixed threshold of 0 nearly repeats top-k.
    """
    return F.binary_cross_entropy_with_logits(
        _logits(trace)[..., 1], trace.plan.mask[..., 1].float()
    )


def predictor(trace: LayerTrace) -> Float[Tensor, ""]:
    """Return the binary cross-entropy of a predictor to the top-k choice.

    From arXiv:2404.02258, section 3.5. The logit is `plan.extras["predictor"]`.
    """
    return F.binary_cross_entropy_with_logits(
        trace.plan.extras["predictor"], trace.plan.mask[..., 1].float()
    )


def importance(trace: LayerTrace) -> Float[Tensor, ""]:
    """Return the squared coefficient of variation of the paths' gate values, summed over tokens.

    From arXiv:1701.06538, equations 6 and 7. A gate value is the softmax over the chosen scores,
    and 0 for a path that was not chosen (equations 3 to 5).
    """
    kept = _logits(trace).masked_fill(~_chosen(trace), -torch.inf)
    return _cv_squared(kept.softmax(-1).nan_to_num(0.0).flatten(0, 1).sum(0))


def load(trace: LayerTrace) -> Float[Tensor, ""]:
    """Return the squared coefficient of variation of the paths' smooth load.

    From arXiv:1701.06538, appendix A. The load of a path is the probability, summed over tokens,
    that it would be chosen if the noise on its score were drawn again. Noise of the recipe puts its
    standard deviation into `plan.extras["noise_std"]`, and the scores without noise into
    `plan.extras["clean_scores"]`. For a plan without these, the deviation is 1.
    """
    scores, mask = _logits(trace), _chosen(trace)
    best_left = scores.masked_fill(mask, -torch.inf).amax(-1, keepdim=True)
    worst_taken = scores.masked_fill(~mask, torch.inf).amin(-1, keepdim=True)
    lead = trace.plan.extras.get("clean_scores", scores) - torch.where(mask, best_left, worst_taken)
    # Infinite if all or no paths are taken; the gradient would be 0 times infinity.
    lead = lead.clamp(-1e4, 1e4)
    deviation = trace.plan.extras.get("noise_std", torch.ones_like(scores))
    # Learned noise may underflow to 0, and its gradient become 0 times infinity. The floor is added
    # within the multiplication, so it costs no operation and is lost in rounding elsewhere.
    width = torch.add(deviation.new_full((), LEAST_NOISE), deviation, alpha=2**0.5)
    return _cv_squared((0.5 * (1 + torch.erf(lead / width))).flatten(0, 1).sum(0))


def _cv_squared(x: Float[Tensor, " path"]) -> Float[Tensor, ""]:
    return x.var(unbiased=False) / x.mean().square().clamp_min(1e-9)


def budget(trace: LayerTrace, capacity: float) -> Float[Tensor, ""]:
    """Return `(mean p - capacity)^2`, to hold soft choices to the budget.

    p is the probability of the upgrade, `plan.extras["upgrade"]`.
    """
    return (trace.plan.extras["upgrade"].mean() - capacity).square()


def _labelled(
    trace: LayerTrace,
) -> tuple[Float[Tensor, "batch seq"], Float[Tensor, "batch seq"], Bool[Tensor, "batch seq"]]:
    """Return the upgrade's score, its utility (0 without a label), and the labelled tokens."""
    if trace.utility is None:
        raise TypeError(
            'This auxiliary loss needs trace.utility: put "utility" into `needs`, and into `uses` '
            "of the loss."
        )
    known = ~trace.utility.isnan()
    return _logits(trace)[..., 1], trace.utility.detach().nan_to_num(0.0), known


def utility(trace: LayerTrace) -> Float[Tensor, ""]:
    """Return the Huber loss of the upgrade's score to its oracle utility (arXiv:2604.17228).

    Utilities are standardised over the labelled tokens.
    """
    scores, target, known = _labelled(trace)
    count = known.sum().clamp_min(1)
    centred = (target - (target * known).sum() / count) * known
    target = centred / (centred.square().sum() / count).sqrt().clamp_min(1e-6)
    return (F.huber_loss(scores, target.to(scores.dtype), reduction="none") * known).sum() / count


def rank(trace: LayerTrace, delta: float) -> Float[Tensor, ""]:
    """Return the mean of `softplus(-sign(u_i - u_j)(s_i - s_j))` over pairs of a sequence.

    Pairs count if their utilities differ by more than `delta` nats.
    """
    scores, target, known = _labelled(trace)
    # All pairs of a sequence, `[batch, seq, seq]`.
    difference = target.unsqueeze(2) - target.unsqueeze(1)
    pairs = (difference.abs() > delta) & known.unsqueeze(2) & known.unsqueeze(1)
    found = F.softplus(-difference.sign() * (scores.unsqueeze(2) - scores.unsqueeze(1)))
    return (found * pairs).sum() / pairs.sum().clamp_min(1)


def jepa(trace: LayerTrace, head: Float[Tensor, "latent d_model"]) -> Float[Tensor, ""]:
    """Return `mean_a (1 - cos(z_a, sg[head . norm(y_a)]))` (arXiv:2604.17228).

    It compares the predicted latent of each path's update with the actual one. Only paths that ran
    have a target. The prediction is `plan.extras["latent"]`, `[batch, seq, path, latent]`.
    """
    # The parts of a loss are in float32, whatever the precision of the pass.
    predicted = trace.plan.extras["latent"].flatten(0, 1).float()
    found: list[Tensor] = []
    for name, (index, output) in trace.path_updates.items():
        ours = predicted[:, trace.paths.names.index(name)]
        # Detached: the paths must not learn to be predictable.
        target = F.linear(F.rms_norm(output.detach().float(), (output.shape[-1],)), head)
        found.append(
            (1 - F.cosine_similarity(ours if index is None else ours[index], target, dim=-1)).mean()
        )
    return torch.stack(found).mean()


def policy_gradient(trace: LayerTrace, kind: Credit) -> Float[Tensor, ""]:
    """Return `mean log pi(a) sg(L - b)`: REINFORCE of the sampled paths (Williams, 1992).

    The baseline b is `plan.extras["baseline"]`.
    """
    log_p = (_logits(trace).log_softmax(-1) * _chosen(trace)).sum(-1)
    return (log_p * (_blamed(trace, kind) - trace.plan.extras["baseline"].detach())).mean()


def baseline(trace: LayerTrace, kind: Credit) -> Float[Tensor, ""]:
    """Return the Huber loss of REINFORCE's baseline to its target (arXiv:2306.03745, section 4)."""
    return F.huber_loss(trace.plan.extras["baseline"].float(), _blamed(trace, kind))


def _blamed(trace: LayerTrace, kind: Credit) -> Float[Tensor, "batch seq"]:
    if trace.token_loss is None:
        raise TypeError('REINFORCE needs trace.token_loss: put "token_loss" into `needs`.')
    return credit(trace.token_loss.detach(), kind)


def entropy(trace: LayerTrace) -> Float[Tensor, ""]:
    """Return the mean entropy of the choice, nats.

    A weight above 0 makes choices harder, a weight below 0 keeps them exploring.
    """
    # A selector has probabilities of its own.
    p = trace.plan.extras.get("probability", _logits(trace).softmax(-1))
    return -(p * p.clamp_min(1e-9).log()).sum(-1).mean()


def supervised(trace: LayerTrace) -> Float[Tensor, ""]:
    """Return the cross-entropy of the scores to the labelled paths, a mean over labelled tokens.

    It is 0 without any.
    """
    if trace.labels is None:
        raise TypeError(
            "This auxiliary loss needs trace.labels: set `supervised`, define `label`, and put "
            '"labels" into `uses` of the loss.'
        )
    scores, labels = _scores(trace).flatten(0, 1), trace.labels.flatten()
    return F.cross_entropy(scores, labels, ignore_index=-100, reduction="sum") / (
        labels != -100
    ).sum().clamp_min(1)
