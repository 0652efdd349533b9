"""Define the parts of a record that describe the routing of the trained model."""

from pydantic import Field

from bench.record.part import Part


class LayerMonitor(Part):
    """Routing of one layer at the headline setting, on the validation split, from its plans."""

    layer: int
    paths: tuple[str, ...]
    load: tuple[float, ...] = Field(description="share of tokens on each path")
    trained_load: tuple[float, ...] = Field(
        default=(),
        description="the same at the end of training; none where that runs more than was chosen",
    )
    load_by_domain: dict[str, tuple[float, ...]]
    load_by_position: tuple[tuple[float, ...], ...] = Field(
        description="16 equal bins of position x path"
    )
    load_by_frequency: tuple[tuple[float, ...], ...] = Field(
        description="10 equal-mass bins of token frequency x path"
    )
    entropy: float | None = Field(
        description="entropy of softmax(scores) over paths, nats; none without scores"
    )
    churn: float | None = Field(
        description="share of tokens whose path set changed since the previous probe"
    )
    domain_information: float = Field(description="mutual information of path set and domain, nats")
    # Older records lack the fields with a default.
    margin: float | None = Field(
        default=None, description="mean difference of the two largest values of softmax(scores)"
    )
    max_logit: float | None = Field(default=None, description="largest score of any token and path")
    dropped: float | None = Field(
        default=None, description="share of tokens that took no path at all"
    )
    always: tuple[str, ...] = Field(default=(), description="paths that every token takes")
    several: tuple[float, ...] = Field(
        default=(),
        description="share of tokens that took more than one expert besides those, at each probe "
        "of training; none where all tokens take equally many",
    )
    saturation: tuple[float, ...] = Field(
        default=(),
        description="for each probe but the last, share of the last probe's choices that it had "
        "made already (arXiv:2409.02060)",
    )
    router_gradient: tuple[float, ...] = Field(
        default=(),
        description="L2 norm of the router's gradient, unclipped, in the step before each probe; "
        "empty without parameters",
    )
    paths_gradient: tuple[float, ...] = Field(
        default=(),
        description="L2 norm of the gradient of the paths, in the step before each probe",
    )
    utility_correlation: float | None = Field(
        default=None,
        description="rank correlation of score and oracle utility over tokens; the oracle uses the "
        "row's own policy",
    )
    on_policy_correlation: float | None = Field(
        default=None, description="the same with later layers routed as in evaluation, for all rows"
    )
    latent_variance: float | None = Field(
        default=None, description="variance of predicted latents of length 1; 0 if collapsed"
    )
    latent_rank: float | None = Field(
        default=None, description="effective rank of predicted latents, 1 to their size"
    )

    co_activation: float | None = Field(
        default=None,
        description="share of an expert's tokens that also take its most frequent partner, mean "
        "over experts by load; none where tokens take one expert",
    )

    @property
    def chosen_load(self) -> tuple[float, ...]:
        """The load of the paths that a token may take or not."""
        loads = zip(self.paths, self.load, strict=True)
        return tuple(load for name, load in loads if name not in self.always)


class SupervisionMonitor(Part):
    """Agreement of one routed layer with labels, on the training split, in causal evaluation."""

    layer: int
    documents: int = Field(description="training documents with labels")
    supervised: float | None = Field(
        description="share of their tokens on the path of the label; none without any"
    )
    unsupervised: float | None = Field(description="the same for the other training documents")


class Recall(Part):
    """Loss on tokens that the context has shown before, and on the rest, validation split."""

    order: int = Field(description="length in tokens of the n-gram that stood earlier")
    share: float = Field(description="share of tokens that end such an n-gram")
    recalled: float | None = Field(description="their loss, nats per token")
    rest: float | None = Field(description="loss of the other tokens, nats per token")


class OtherRoutes(Part):
    """Loss of the trained model on other routes of equal cost, nats per token.

    In a sampled route each token takes the plan of another token of its sequence.
    """

    samples: int
    own: float = Field(description="loss on the router's own route")
    sampled: float = Field(description="mean loss over the sampled routes")
    regret: float = Field(
        description="mean over sequences of the own loss minus the loss of the best sampled route; "
        "0 if the own route is best everywhere"
    )
    fragile: float = Field(
        description="share of tokens whose loss half of the sampled routes raise by over 0.1 nats"
    )
    second: float | None = Field(
        description="loss if each token's best expert is replaced by the best that it did not "
        "choose; none for other paths"
    )


class CausalChoice(Part):
    """The causal choice of a router with a base, compared with its choice in training.

    On windows of the validation split. The model runs with the choice of training, and both are
    made on its inputs.
    """

    loss: float = Field(description="loss with the causal choice at the budget, nats per token")
    topk_loss: float = Field(description="loss with the choice of training, nats per token")
    accuracy: tuple[float, ...] = Field(
        description="for each site, share of tokens with the same choice, at the calibrated knob"
    )
    own_accuracy: tuple[float, ...] = Field(
        description="the same at knob 0, the own threshold of the router's mechanism"
    )
    own_spend: float = Field(description="spend at knob 0, as a multiple of B")


class Passage(Part):
    """A passage of validation text with the path each token took, for the report."""

    domain: str
    tokens: tuple[str, ...]
    choices: dict[str, tuple[int, ...]] = Field(
        description="layer -> index of the chosen path set per token"
    )
    legend: dict[str, tuple[str, ...]] = Field(description="layer -> name of each path set")


class RightPaths(Part):
    """Comparison of routing with the right paths, per site, in the order of `monitors`."""

    accuracy: tuple[float | None, ...] = Field(
        description="share of tokens with a right path that take it, experts matched to domains "
        "one to one; none if the paths do not fit"
    )
    chance: tuple[float | None, ...] = Field(
        description="the same for choices with the same loads that ignore the token"
    )
    best_loss: float = Field(
        description="smallest loss at the budget if only full paths, or right experts, hold the "
        "tables, nats per token"
    )
