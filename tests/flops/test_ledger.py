"""The ledger against counting by hand.

Parameters, pairs of tokens one by one, and the sum of a step.
"""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.backbone.decoder import Decoder
from bench.backbone.layers import Attention
from bench.backbone.paths import ExpertBank, LowRank
from bench.backbone.presets import decoder_config
from bench.flops.ledger import Ledger, SiteCost
from bench.routing.contract import Router
from bench.routing.paths import BLOCK_GATE, FFN_GATE, Paths, experts

SEQ_LEN = 16
CONFIG = decoder_config("tiny", 50, SEQ_LEN)
BANK = experts(4)

counts = st.lists(st.lists(st.integers(0, 20), min_size=2, max_size=2), min_size=1, max_size=5).map(
    torch.tensor
)


def ledger(paths: Paths | None = None, seq_len: int = SEQ_LEN, router: float = 0.0) -> Ledger:
    """Of the tiny decoder with layers 1 and 3 routed."""

    class Stub(Router):
        pass

    def stub() -> Router:
        made = Stub()
        assert paths is not None
        made.paths = paths
        return made

    with torch.device("meta"):
        routers = {} if paths is None else {layer: [stub()] for layer in (1, 3)}
        prices = {(layer, made.paths.site): router for layer, (made,) in routers.items()}
        return Ledger(Decoder(CONFIG, routers, expert_width=24), seq_len, prices)


@pytest.mark.parametrize("preset", ["tiny", "30m", "paper"])
@pytest.mark.parametrize("seq_len", [32, 1024])
def test_a_dense_model_costs_two_flops_a_parameter_and_attention(preset: str, seq_len: int) -> None:
    """C = 2N + attention, N without the embedding (Kaplan et al., arXiv:2001.08361, 2.1)."""
    config = decoder_config(preset, 4096, seq_len)
    with torch.device("meta"):
        decoder = Decoder(config)
    matrices = sum(
        p.numel() for name, p in decoder.named_parameters() if not name.startswith("embedding")
    )
    found = Ledger(decoder, seq_len, {})
    mean_keys = sum(range(1, seq_len + 1)) / seq_len
    assert found.fixed == pytest.approx(
        2 * matrices + 4 * config.num_layers * mean_keys * config.d_model
    )
    assert found.fixed_executed == pytest.approx(
        2 * matrices + 4 * config.num_layers * seq_len * config.d_model
    )


@pytest.mark.parametrize("module", [ExpertBank(8, 24), LowRank(8, 3), Attention(8, 2, 4)])
def test_a_token_through_a_path_costs_two_flops_a_parameter(module: torch.nn.Module) -> None:
    assert isinstance(module, (ExpertBank, LowRank, Attention))
    assert module.flops() == 2 * sum(p.numel() for p in module.parameters())


@given(counts)
def test_active_attention_is_one_price_a_causal_pair(n: Tensor) -> None:
    site = SiteCost(0, ("skip", "block"), (1.0, 10.0), (0.0, 3.0), 0.0)
    by_hand = 0.0
    for skipped, kept in n.tolist():
        pairs = [
            (query, key) for query, key in itertools.product(range(kept), repeat=2) if key <= query
        ]
        by_hand += skipped * 1.0 + kept * 10.0 + len(pairs) * 3.0
    assert site.active(n) == by_hand


@given(counts)
def test_executed_is_the_square_and_padding_makes_every_sequence_the_longest(n: Tensor) -> None:
    site = SiteCost(0, ("skip", "block"), (0.0, 10.0), (0.0, 3.0), 0.0)
    assert site.executed(n, padded=False) == sum(10 * kept + 3 * kept**2 for _, kept in n.tolist())
    longest = max(kept for _, kept in n.tolist())
    assert site.executed(n, padded=True) == len(n) * (10 * longest + 3 * longest**2)
    assert site.active(n) <= site.executed(n, padded=False) <= site.executed(n, padded=True)


@given(counts)
def test_a_pass_is_the_sum_of_its_parts(n: Tensor) -> None:
    found = ledger(FFN_GATE, router=7.0)
    tokens = len(n) * SEQ_LEN
    sites = [n, n.flip(0)]
    paths = sum(
        float((count.sum(0) * torch.tensor(site.token)).sum())
        for count, site in zip(sites, found.sites, strict=True)
    )
    assert found.active(sites, tokens) == pytest.approx((found.fixed + 14.0) * tokens + paths)
    assert found.executed(sites, tokens, padded=True) == pytest.approx(
        (found.fixed_executed + 14.0) * tokens + paths
    )


def test_sites_are_priced_by_the_paths_that_stand_there() -> None:
    d, full = CONFIG.d_model, 6 * CONFIG.d_model * CONFIG.ffn_width
    assert [site.token for site in ledger(FFN_GATE).sites] == [
        (4 * d * CONFIG.cheap_rank, full)
    ] * 2
    assert [site.token for site in ledger(BANK).sites] == [(6 * d * 24,) * 4] * 2
    assert [site.token for site in ledger(BLOCK_GATE).sites] == [(0, 8 * d**2 + full)] * 2
    assert [site.pair for site in ledger(BLOCK_GATE).sites] == [(0, 4 * d)] * 2
    assert [site.layer for site in ledger(BLOCK_GATE).sites] == [1, 3]


def test_every_token_on_the_full_path_costs_what_the_dense_model_does() -> None:
    n = torch.tensor([[0, SEQ_LEN]] * 3)
    tokens, dense = 3 * SEQ_LEN, ledger()
    for paths in (FFN_GATE, BLOCK_GATE):
        found = ledger(paths)
        assert found.active([n, n], tokens) == pytest.approx(dense.fixed * tokens)
        assert found.executed([n, n], tokens, padded=True) == pytest.approx(
            dense.fixed_executed * tokens
        )


@given(share=st.floats(0, 1))
def test_a_share_of_tokens_costs_what_so_many_tokens_do(share: float) -> None:
    site = SiteCost(0, ("skip", "block"), (1.0, 10.0), (0.0, 3.0), 0.0)
    kept = share * 20
    assert site.at((1 - share, share), 20) == pytest.approx(
        ((20 - kept) + 10 * kept + 3 * kept * (kept + 1) / 2) / 20
    )


def test_a_step_is_charged_forward_once_and_backward_twice_in_components_that_add_up() -> None:
    found, n = ledger(FFN_GATE, router=5.0), torch.tensor([[4, 12], [8, 8]])
    tokens = 2 * SEQ_LEN
    cost = found.charge_step([n, n], tokens, auxiliary=100.0)
    assert cost == pytest.approx(3 * (found.active([n, n], tokens) + 100.0))
    found.charge("router", "after_step", 9.0)
    assert found.total == pytest.approx(cost + 9.0)
    assert found.spent["router/forward"] == 10.0 * tokens
    assert found.spent["auxiliary/backward"] == 200.0
    for component in ("backbone", "router", "paths", "auxiliary"):
        assert found.spent[f"{component}/backward"] == 2 * found.spent[f"{component}/forward"]


def test_what_a_gradient_does_not_reach_costs_nothing_on_the_way_back() -> None:
    n, tokens = torch.tensor([[4, 12], [8, 8]]), 2 * SEQ_LEN
    for paths in (FFN_GATE, BLOCK_GATE):
        spent: list[float] = []
        for reached in range(-1, CONFIG.num_layers + 1):
            found = ledger(paths, router=5.0)
            found.charge_step([n, n], tokens, 100.0, reached)
            assert found.spent["router/backward"] == 2 * found.spent["router/forward"]
            assert found.spent["auxiliary/backward"] == 200.0
            spent.append(found.spent["backbone/backward"] + found.spent["paths/backward"])
        assert spent == sorted(spent, reverse=True)
        assert spent[-1] == 0.0
        assert spent[-2] == 2 * CONFIG.d_model * CONFIG.vocab_size * tokens  # the head
        forward = found.spent["backbone/forward"] + found.spent["paths/forward"]
        assert forward < spent[0] < 2 * forward  # once a weight, twice attention's pairs
