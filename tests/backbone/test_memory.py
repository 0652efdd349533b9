"""The memory of token pairs: the row that a token reads, and its cost."""

import pytest
import torch

from bench.backbone.memory import PairMemory
from bench.model.assemble import Model
from bench.training.optim import muon_parameters
from tests.world import CONFIG, fit, model, run_of, tokens, trained_like


def memories(found: Model) -> list[PairMemory]:
    return [module for module in found.decoder.modules() if isinstance(module, PairMemory)]


def test_a_pair_reads_the_same_row_everywhere_and_most_pairs_their_own() -> None:
    memory = PairMemory(5000, 4, layer=1)
    ids = tokens(20, 30)
    rows = memory.rows_of(ids)
    before = torch.cat((torch.full((20, 1), -1), ids[:, :-1]), dim=1)
    by_pair: dict[tuple[int, int], set[int]] = {}
    for pair, row in zip(
        zip(before.flatten().tolist(), ids.flatten().tolist(), strict=True),
        rows.flatten().tolist(),
        strict=True,
    ):
        by_pair.setdefault(pair, set()).add(row)
    assert all(len(found) == 1 for found in by_pair.values())
    assert len(set().union(*by_pair.values())) > 0.9 * len(by_pair)
    assert not torch.equal(PairMemory(5000, 4, layer=2).rows_of(ids), rows)


def test_a_token_changes_its_row_and_the_next_alone() -> None:
    memory, ids = PairMemory(5000, 4, layer=0), tokens(1, 12)
    changed = ids.clone()
    changed[0, 5] = (changed[0, 5] + 1) % CONFIG.vocab_size
    different = (memory.rows_of(ids) != memory.rows_of(changed))[0].nonzero().flatten()
    assert different.tolist() == [5, 6]


@pytest.mark.parametrize("num_experts", [4, 8])
def test_dense_memory_has_the_parameters_of_hash_at_the_cost_of_dense_matched(
    num_experts: int,
) -> None:
    memory, hashed = (
        model(name, {"num_experts": num_experts}) for name in ("dense_memory", "hash")
    )
    plain = model("dense_matched")
    sizes = [sum(p.numel() for p in found.decoder.parameters()) for found in (memory, hashed)]
    assert sizes[0] == sizes[1]
    assert memory.solution.expert_width == plain.solution.expert_width
    assert memory.evaluation_ledger.fixed == plain.evaluation_ledger.fixed
    read = len(memories(memory)) * CONFIG.d_model
    assert memory.active_parameters() == plain.active_parameters() + read


def test_an_empty_memory_adds_nothing_and_a_full_one_its_rows() -> None:
    memory, plain = model("dense_memory"), model("dense_matched")
    ids = tokens()
    for found in (memory, plain):
        trained_like(found.decoder)
    for module in memories(memory):
        module.reset()
    assert [module.layer for module in memories(memory)] == [1, 2, 3]
    shared = dict(memory.decoder.named_parameters())
    for name, parameter in plain.decoder.named_parameters():
        parameter.data.copy_(shared[name])
    empty = memory.decoder(run_of(ids, "causal"))
    assert torch.equal(empty, plain.decoder(run_of(ids, "causal")))
    entering: list[torch.Tensor] = []
    memory.decoder.layers[1].attention.register_forward_pre_hook(
        lambda _, inputs: entering.append(inputs[0])
    )
    first = memories(memory)[0]
    first.table.data.fill_(1e3)
    memory.decoder(run_of(ids, "causal"))
    assert torch.allclose(entering[0], torch.ones_like(entering[0]), atol=0.1)


def test_adamw_trains_it_and_muon_leaves_it_alone() -> None:
    found = model("dense_memory")
    tables = {id(module.table) for module in memories(found)}
    assert not tables & {id(p) for p in muon_parameters(found.decoder, found.decoder.routers)}
    fit(found, 3)
    for module in memories(found):
        read = module.table.detach().abs().sum(1) > 0
        assert 0 < read.sum() < len(read)
