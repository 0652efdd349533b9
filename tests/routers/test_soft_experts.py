"""One expert by each estimator, and merged experts, against their definitions."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.backbone.decoder import Layer
from bench.backbone.sites import PathSet
from bench.errors import UserError
from bench.routing.contract import LayerTrace
from bench.routing.load_routers import find
from bench.routing.losses import load_balance
from tests.routers.asking import inputs, plan
from tests.world import model, run_of, tokens, trained_like

BATCH, SEQ, COUNT = 3, 24, 8
HARD = ("top_k", "straight_through", "st_gumbel", "reinforce", "dselect_k")


def built(name: str = "estimated_moe", **options: Any) -> Any:
    return model(name, options).decoder.routers[0]


def one_hot(index: Tensor) -> Tensor:
    return F.one_hot(index, COUNT).bool()


@pytest.mark.parametrize("estimator", HARD)
def test_evaluation_takes_the_most_probable_expert(estimator: str) -> None:
    router = built(estimator=estimator)
    seen = inputs("causal")
    found = plan(router, seen)
    assert found.scores is not None
    assert torch.equal(found.mask, one_hot(found.scores.argmax(-1)))
    if estimator == "dselect_k":
        assert found.weight is None  # in training the weights of the mixture add up to 1
    else:
        logits = seen.hidden @ router.logits.weight.detach().T
        assert torch.equal(found.mask, one_hot(logits.argmax(-1)))
        weight = logits.softmax(-1) if estimator == "top_k" else torch.ones_like(logits)
        assert torch.allclose(
            (found.mask.float() if found.weight is None else found.weight)[found.mask],
            weight[found.mask],
            atol=1e-6,
        )


@pytest.mark.parametrize("estimator", ["straight_through", "st_gumbel"])
@pytest.mark.parametrize("dense", [True, False, None])
def test_straight_through_runs_every_expert_only_if_dense(
    estimator: str, dense: bool | None
) -> None:
    """By default it does not, as in the code of SMEAR's authors."""
    router = built(estimator=estimator, estimator_options={} if dense is None else {"dense": dense})
    dense = bool(dense)
    found = plan(router, inputs())
    assert router.trains_dense is dense
    assert found.mask.sum(-1).unique().tolist() == [COUNT if dense else 1]
    assert found.weight is not None
    kept = found.weight.where(found.mask, 0.0).round(decimals=4)
    assert kept.sum(-1).unique().tolist() == [1]
    assert kept.unique().tolist() == [0, 1]


@pytest.mark.parametrize("estimator", ["straight_through", "st_gumbel", "dselect_k", "soft"])
def test_balance_counts_choices_where_more_is_run(estimator: str) -> None:
    """The loss is N sum f P with f of the choices.

    A router that runs every expert has f = 1 for all, and a loss of 1 without gradient.
    """
    straight = estimator in ("straight_through", "st_gumbel")
    router = built(estimator=estimator, estimator_options={"dense": True} if straight else {})
    found = router(inputs())
    trace = LayerTrace(1, router.paths, inputs(), found, torch.zeros_like(inputs().hidden), {})
    value = load_balance(trace)
    (gradient,) = torch.autograd.grad(value, router.logits.weight)
    assert found.scores is not None and found.mask.float().mean() > 0.9
    assert (
        torch.equal(found.chosen.sum(-1), torch.ones(BATCH, SEQ, dtype=torch.long))
        and not (found.chosen & ~found.mask).any()
    )
    share = torch.bincount(found.chosen.flatten(0, 1).int().argmax(-1), minlength=COUNT) / (
        BATCH * SEQ
    )
    expected = COUNT * (share * found.scores.softmax(-1).flatten(0, 1).mean(0)).sum()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert gradient.norm() > 1e-3


def test_no_estimator_is_trained_with_a_balance_loss_by_default() -> None:
    """SMEAR's authors have `load_loss_weight: 0` in all their configurations."""
    assert all(built(estimator=name).aux_losses["load_balance"].weight == 0 for name in HARD)


def test_reinforce_samples_one_expert_and_guesses_the_loss() -> None:
    router = built(estimator="reinforce")
    found = plan(router, inputs())
    assert found.mask.sum(-1).unique().tolist() == [1]
    assert found.scores is not None
    assert not torch.equal(found.mask, one_hot(found.scores.argmax(-1)))
    assert found.extras["baseline"].shape == (BATCH, SEQ)
    assert router.needs == {"token_loss"}


def test_dselect_k_starts_with_all_experts_and_ends_with_those_of_its_code() -> None:
    router = built(estimator="dselect_k")
    assert router.logits.weight.shape[0] == 3
    assert plan(router, inputs()).mask.float().mean() > 0.95
    router.logits.weight.data.mul_(1000)
    seen = inputs()
    found = plan(router, seen)
    bits = (seen.hidden @ router.logits.weight.detach().T > 0).long()
    assert (found.mask == one_hot((bits * torch.tensor([1, 2, 4])).sum(-1))).float().mean() > 0.99


def test_soft_runs_all_experts_in_evaluation_too() -> None:
    for selection in ("topk", "causal"):
        found = plan(built(estimator="soft"), inputs(selection))
        assert found.mask.all()
        assert found.weight is not None
        assert torch.allclose(found.weight.sum(-1), torch.ones(BATCH, SEQ))


@pytest.mark.parametrize("options", [{"estimator": "magic"}, {"num_experts": 1}])
def test_options_that_are_not_allowed_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=str(next(iter(options.values())))):
        find("estimated_moe").make(options)


def test_smear_weighs_a_segment_by_the_mean_of_the_one_before() -> None:
    router, seen = built("smear", segment=10), inputs("causal")
    found = plan(router, seen)
    assert found.merge is not None
    assert torch.allclose(found.merge[:, 0], torch.full((BATCH, COUNT), 1 / COUNT))
    for segment in (1, 2):
        mean = seen.hidden[:, 10 * segment - 10 : 10 * segment].mean(1)
        assert torch.allclose(
            found.merge[:, segment], (mean @ router.logits.weight.detach().T).softmax(-1), atol=1e-6
        )
    assert torch.equal(
        found.mask[:, 10:20], one_hot(found.merge[:, 1].argmax(-1)).unsqueeze(1).expand(-1, 10, -1)
    )


def test_smear_runs_the_expert_whose_parameters_are_merged_by_hand() -> None:
    built_model = model("smear", {"segment": 10})
    trained_like(built_model.decoder)
    run = run_of(tokens(1, SEQ), "causal")
    with torch.no_grad():
        built_model.decoder(run)
    trace, layer = run.traces[0], built_model.decoder.layers[1]
    assert isinstance(layer, Layer)
    assert isinstance(layer.ffn, PathSet)
    assert trace.plan.merge is not None
    bank = layer.ffn.bank
    for position in range(SEQ):
        weights = trace.plan.merge[0, position // 10].tolist()
        gate, up, down = (
            sum(p * rows[e] for e, p in enumerate(weights))
            for rows in (bank.gate, bank.up, bank.down)
        )
        x = trace.inputs.hidden[0, position]
        assert torch.allclose(
            trace.update[0, position], down @ (F.silu(gate @ x) * (up @ x)), atol=1e-4
        )


def test_smear_leaves_experts_out_in_training_only_and_never_all() -> None:
    router = built("smear", expert_dropout=0.6)
    found = plan(router, inputs())
    assert found.merge is not None
    gone = found.merge == 0
    assert torch.equal(gone, gone[:, :1].expand_as(gone))  # for a whole sequence
    assert 0.2 < float(gone.float().mean()) < 0.9
    assert not gone.all(-1).any()
    evaluated = plan(router, inputs("causal")).merge
    assert evaluated is not None
    assert (evaluated > 0).all()
