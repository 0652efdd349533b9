"""Each tool against its definition, on numbers small enough to be computed another way."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.backbone.passes import ask
from bench.config.row import RouterTraining
from bench.errors import UserError
from bench.evaluation.evaluate import evaluate
from bench.model.router_noise import TrainingNoise
from bench.rng import generator
from bench.routing.capacity import gate_plan
from bench.routing.contract import Router, RouterInput, RouterSpec, RoutingPlan, Selection
from bench.routing.paths import FFN_GATE, Paths, Site, experts
from bench.routing.scores import DROPPED, biased, perturb, top_experts
from tests.audit import audit
from tests.world import EQUIPMENT, SEQ_LEN, equipped, fit, run_of, tokens, windows

WIDTH, EXPERTS = 6, 5
BANK = experts(EXPERTS)


def training_noise(paths: Paths = BANK, least: int = 1, **options: Any) -> TrainingNoise:
    return TrainingNoise(RouterTraining.model_validate(options), WIDTH, paths, least)


def draw(*shape: int, name: str = "scores") -> Tensor:
    return torch.randn(*shape, generator=generator(0, name))


def inputs(
    tools: TrainingNoise | None,
    selection: Selection = "topk",
    batch: int = 3,
    seq: int = 4,
    seed: int = 7,
) -> RouterInput:
    ids = torch.zeros(batch, seq, dtype=torch.long)
    noise = torch.Generator().manual_seed(seed) if selection == "topk" else None
    return RouterInput(
        draw(batch, seq, WIDTH, name="hidden"),
        ids,
        ids,
        None,
        None,
        noise,
        0.5,
        selection,
        noise=tools,
    )


def normal(*shape: int, seed: int = 7) -> np.ndarray:
    """The noise that `inputs` has in store."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.mark.parametrize(("size", "deviation"), [(None, 1 / EXPERTS), (0.7, 0.7)])
def test_gaussian_noise_has_one_deviation_for_all(size: float | None, deviation: float) -> None:
    scores = draw(3, 4, EXPERTS)
    found = perturb(scores, inputs(training_noise(noise="gaussian", noise_scale=size)))
    assert np.allclose(found.numpy(), scores.numpy() + deviation * normal(3, 4, EXPERTS))
    many = perturb(
        torch.zeros(100, 100),
        inputs(training_noise(FFN_GATE, noise="gaussian", noise_scale=size), batch=100, seq=100),
    )
    assert many.std().item() == pytest.approx(
        0.5 if size is None else size, rel=0.05
    )  # a gate has two paths


@pytest.mark.parametrize("size", [None, 0.3])
def test_noisy_top_k_is_the_formula(size: float | None) -> None:
    """By loops: H(x)_i = (x W_g)_i + N(0, 1) softplus((x W_noise)_i), arXiv:1701.06538, eq. 4."""
    tools = training_noise(noise="noisy_top_k", noise_scale=size)
    nn.init.normal_(tools.noise_weight, generator=generator(0, "weight"))
    scores, run = draw(3, 4, EXPERTS), inputs(tools)
    found = perturb(scores, run)
    noise, x, w = (
        normal(3, 4, EXPERTS),
        run.hidden.double().numpy(),
        tools.noise_weight.detach().double().numpy(),
    )
    for b, t, e in np.ndindex(3, 4, EXPERTS):
        deviation = np.log1p(np.exp(sum(x[b, t, d] * w[d, e] for d in range(WIDTH)))) * (
            size or 1.0
        )
        assert found[b, t, e].item() == pytest.approx(
            scores[b, t, e].item() + noise[b, t, e] * deviation, abs=1e-5
        )
    extras = tools.take_extras()
    assert torch.equal(extras["clean_scores"], scores)
    assert torch.allclose(
        (found - scores) / extras["noise_std"], torch.from_numpy(noise), atol=1e-4
    )
    assert tools.take_extras() == {}


def test_the_deviation_is_learnt_and_starts_alike_for_all() -> None:
    tools = training_noise(FFN_GATE, noise="noisy_top_k")
    scores = draw(3, 4)
    found = perturb(scores, inputs(tools))
    assert np.allclose(found.detach().numpy(), scores.numpy() + np.log(2) * normal(3, 4), atol=1e-6)
    found.square().sum().backward()
    assert tools.noise_weight.grad is not None
    assert tools.noise_weight.grad.shape == (WIDTH, 1)
    assert bool(tools.noise_weight.grad.any())
    assert tools.take_extras()["clean_scores"][..., 1].tolist() == scores.tolist()


def test_noisy_top_k_refuses_scores_of_another_number_in_one_line() -> None:
    with pytest.raises(
        UserError,
        match=r"wants one score for each of \(3, 4, 1\); this router's scores are "
        r"\(3, 4, 2\). Use 'gaussian'",
    ):
        perturb(draw(3, 4, 2), inputs(training_noise(FFN_GATE, noise="noisy_top_k")))


@given(st.floats(0.001, 0.9), st.integers(0, 50))
def test_jitter_stays_within_its_bounds_and_uses_them(size: float, seed: int) -> None:
    hidden = draw(8, 16, WIDTH).abs() + 0.1
    ratio = (
        training_noise(noise="jitter", noise_scale=size).jitter(
            hidden, torch.Generator().manual_seed(seed)
        )
        / hidden
    )
    slack = 1e-5
    assert 1 - size - slack <= ratio.min() < 1 - 0.9 * size
    assert 1 + 0.9 * size < ratio.max() <= 1 + size + slack
    assert ratio.mean().item() == pytest.approx(1, abs=0.15 * size)


class _Reader(Router):
    """Keeps its inputs."""

    paths = FFN_GATE

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = nn.Linear(spec.d_model, 1)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        self.read = inputs.hidden
        scores = perturb(self.score(inputs.hidden).squeeze(-1), inputs)
        return gate_plan(scores > 0, None, scores)


def reader(**options: Any) -> _Reader:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        router = _Reader()
        router.build(RouterSpec(WIDTH, FFN_GATE, 0.5, 1.0, 0, 1, 50, 8, 1, 0))
    router.noise = training_noise(FFN_GATE, **options)
    return router


@pytest.mark.parametrize(
    ("options", "size"),
    [({"noise": "jitter"}, 0.01), ({"noise": "jitter", "noise_scale": 0.2}, 0.2)],
)
def test_a_router_reads_with_jitter_in_training_alone_and_its_inputs_stay_clean(
    options: dict[str, Any], size: float
) -> None:
    router = reader(**options)
    run = inputs(None)
    before = run.hidden.clone()
    ask(router, run)
    assert torch.equal(run.hidden, before)
    off = (router.read / before - 1).abs().max().item()
    assert 0.8 * size < off <= size + 1e-5
    ask(router, inputs(None, "causal"))
    assert torch.equal(router.read, before)


@pytest.mark.parametrize(
    "options", [{"noise": "gaussian"}, {"noise": "noisy_top_k"}, {"expert_dropout": 0.5}]
)
def test_evaluation_is_without_noise(options: dict[str, Any]) -> None:
    scores = draw(3, 4, EXPERTS)
    tools = training_noise(**options)
    assert torch.equal(perturb(scores, inputs(tools, "causal")), scores)
    assert not torch.equal(perturb(scores, inputs(tools)), scores)
    assert torch.equal(perturb(scores, inputs(None)), scores)


def test_a_plan_carries_what_the_noise_was() -> None:
    plan = ask(reader(noise="gaussian"), inputs(None))
    assert plan.scores is not None
    noise = (plan.scores - plan.extras["clean_scores"]) / plan.extras["noise_std"]
    assert noise[..., 0].eq(0).all()
    assert np.allclose(noise[..., 1].detach().numpy(), normal(3, 4), atol=1e-4)
    assert ask(reader(noise="jitter"), inputs(None)).extras == {}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_dropout_drops_experts_for_whole_sequences_at_its_rate_and_leaves_enough(
    share: float,
) -> None:
    batch, least = 4000, 2
    found = perturb(
        torch.zeros(batch, 3, EXPERTS),
        inputs(training_noise(least=least, expert_dropout=share), batch=batch, seq=3),
    )
    dropped = found == DROPPED
    assert bool((dropped | (found == 0)).all())
    assert torch.equal(dropped[:, 0], dropped[:, 2])
    assert int((~dropped[:, 0]).sum(-1).min()) >= least
    # the number of draws below the share is binomial; of five, no more than three are dropped
    ways = np.array(
        [
            np.prod(range(EXPERTS - k + 1, EXPERTS + 1)) / np.prod(range(1, k + 1))
            for k in range(EXPERTS + 1)
        ]
    )
    chance = (
        ways * share ** np.arange(EXPERTS + 1) * (1 - share) ** (EXPERTS - np.arange(EXPERTS + 1))
    )
    expected = (np.minimum(np.arange(EXPERTS + 1), EXPERTS - least) * chance).sum() / EXPERTS
    assert dropped.float().mean().item() == pytest.approx(expected, abs=0.02)
    assert torch.equal(found.softmax(-1) > 0, ~dropped)


def test_experts_are_chosen_by_the_biased_probability_and_weighed_by_none() -> None:
    tools = training_noise(balance_bias=0.001)
    assert tools.bias is not None
    scores, run = draw(3, 4, EXPERTS), inputs(tools, "causal")
    assert torch.equal(top_experts(scores, 2, run), scores.topk(2).indices)  # the bias starts at 0
    tools.bias.copy_(torch.tensor([0.0, 0.0, 2.0, 0.0, -2.0]))
    for selection in ("topk", "causal"):
        run = inputs(tools, selection)
        chosen = top_experts(scores, 4, run)
        assert (chosen[..., 0] == 2).all()
        assert not (chosen == 4).any()
        p = scores.softmax(-1)
        assert torch.equal(biased(p, run) - p, (p + tools.bias) - p)
    assert torch.equal(top_experts(scores, 2, inputs(None)), scores.topk(2).indices)


def test_a_step_of_the_bias_is_the_sign_of_what_is_missing() -> None:
    tools = training_noise(balance_bias=0.25)
    mask = torch.zeros(1, 4, EXPERTS, dtype=torch.bool)
    mask[0, torch.arange(4), torch.tensor([0, 0, 0, 1])] = (
        True  # loads 3, 1, 0, 0, 0; the mean is 0.8
    )
    tools.after_step(mask)
    assert tools.bias is not None
    assert tools.bias.tolist() == [-0.25, -0.25, 0.25, 0.25, 0.25]
    tools.after_step(torch.ones_like(mask))
    assert tools.bias.tolist() == [-0.25, -0.25, 0.25, 0.25, 0.25]
    training_noise(noise="jitter").after_step(mask)


def test_a_path_beside_the_experts_is_not_balanced() -> None:
    """Of 9 tokens 3, 1 and 1 take an expert, and 4 skip; the mean of experts is 5/3, of all 9/4."""
    paths = Paths(Site.FFN, ("skip", "expert0", "expert1", "expert2"))
    tools = training_noise(paths, balance_bias=0.25)
    taken = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2, 3]])
    tools.after_step(torch.nn.functional.one_hot(taken, 4).bool())
    assert tools.bias is not None
    assert tools.bias.tolist() == [0.0, -0.25, 0.25, 0.25]
    tools.after_step(torch.tensor([[[True, False, False, False], [False, True, True, True]]]))
    assert tools.bias.tolist() == [0.0, -0.25, 0.25, 0.25]


def test_the_bias_evens_a_skewed_load() -> None:
    """Scores that favour some experts, and do not learn: only the bias can spread the tokens."""
    skew = torch.linspace(1.5, -1.5, EXPERTS)
    tools, noise = training_noise(balance_bias=0.01), generator(0, "tokens")

    def load() -> Tensor:
        scores = torch.randn(8, 32, EXPERTS, generator=noise) + skew
        chosen = top_experts(scores, 1, inputs(tools, batch=8, seq=32))
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(2, chosen, True)
        tools.after_step(mask)
        return mask.float().mean((0, 1)) * EXPERTS

    before = torch.stack([load() for _ in range(5)]).mean(0)
    for _ in range(150):
        load()
    after = torch.stack([load() for _ in range(40)]).mean(0)
    assert before.max() > 2.5 and before.min() < 0.3
    assert after.max() < 1.15 and after.min() > 0.85


def test_a_router_in_float32_keeps_it_under_bfloat16() -> None:
    run = inputs(None)
    exact = ask(reader(), run).scores
    with torch.autocast("cpu", torch.bfloat16):
        rough, kept = ask(reader(), run).scores, ask(reader(float32=True), run).scores
        assert torch.is_autocast_enabled("cpu")
        from_half = ask(
            reader(float32=True), RouterInput(run.hidden.bfloat16(), *list(vars(run).values())[1:])
        ).scores
    assert exact is not None and rough is not None and kept is not None and from_half is not None
    assert torch.equal(kept, exact)
    assert from_half.dtype is torch.float32
    assert not torch.equal(rough.float(), exact)


def test_a_learnt_deviation_is_priced_in_training_and_free_in_evaluation() -> None:
    base, noisy = equipped("top2_moe"), equipped("top2_moe", noise="noisy_top_k")
    router = noisy.decoder.routers[0]
    width, count = noisy.decoder.config.d_model, 8
    assert router.noise is not None
    assert router.noise.noise_weight.shape == (width, count)
    more = noisy.ledger.sites[0].router - base.ledger.sites[0].router
    assert 2 * width * count < more <= 2 * width * count + 5 * count
    assert noisy.evaluation_ledger.sites[0].router == base.evaluation_ledger.sites[0].router
    assert noisy.solution == base.solution
    jittered = equipped("top2_moe", noise="jitter")
    assert jittered.ledger.sites[0].router - base.ledger.sites[0].router == width
    balanced = equipped("top2_moe", balance_bias=0.001)
    fit(balanced, 3, meter=balanced.meter(0))
    assert balanced.ledger.spent["router/after_step"] > 0


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("top2_moe", EQUIPMENT),
        ("adaptive_moe", {**EQUIPMENT, "noise": "noisy_top_k"}),
        ("mod", {"noise": "noisy_top_k"}),
    ],
)
def test_the_counter_finds_what_the_ledger_says(name: str, training: dict[str, Any]) -> None:
    found = equipped(name, **training)
    for lines in audit(
        found, tokens(2, SEQ_LEN + 1), torch.zeros(2, SEQ_LEN + 1, dtype=torch.long)
    ).values():
        for line in lines:
            if line.phase == "forward":
                assert line.counted == pytest.approx(line.ledger, abs=2), (
                    line
                )  # the cost of a pass of any size


def test_evaluation_keeps_the_bias_and_drops_the_noise() -> None:
    found, plain = equipped("top2_moe", **EQUIPMENT), equipped("top2_moe")
    noise = found.decoder.routers[0].noise
    assert noise is not None
    masks = [
        evaluate(each, windows(), batch_size=4, keep=True).masks[0]
        for each in (found, found, plain)
    ]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    assert noise.bias is not None
    noise.bias[3] = 2.0
    assert evaluate(found, windows(), batch_size=4, keep=True).masks[0][..., 3].all()


def test_experts_are_weighed_without_the_bias() -> None:
    found = equipped("top2_moe", balance_bias=0.001)
    noise = found.decoder.routers[0].noise
    assert noise is not None and noise.bias is not None
    noise.bias[3] = 2.0
    run = run_of(tokens(), "causal")
    found.decoder(run)
    plan = run.traces[0].plan
    assert plan.scores is not None and plan.weight is not None
    p = plan.scores.softmax(-1) * plan.mask
    assert torch.allclose(plan.weight, p / p.sum(-1, keepdim=True))
    assert plan.mask[..., 3].all()
