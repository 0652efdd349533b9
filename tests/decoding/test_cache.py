"""Ragged columns grow, pad and give back each sequence's own."""

import torch

from bench.decoding.cache import ROOM, Ragged


def test_each_sequence_gets_back_its_own_columns() -> None:
    draw = torch.Generator().manual_seed(0)
    expected: list[list[list[float]]] = [[], [], []]
    found = Ragged(torch.zeros(3, 0, 2), torch.zeros(3, dtype=torch.long))
    for _ in range(2 * ROOM + 5):
        rows = torch.rand(3, generator=draw).lt(0.6).nonzero().squeeze(1)
        column = torch.rand(len(rows), 2, generator=draw)
        found.append(rows, column)
        for row, values in zip(rows.tolist(), column.tolist(), strict=True):
            expected[row].append(values)
    lengths = [len(one) for one in expected]
    assert found.lengths.tolist() == lengths and max(lengths) > ROOM
    for rows in ([0, 1, 2], [1], [0, 2]):
        index = torch.tensor(rows)
        data, real = found.of(index), found.real(index)
        assert data.shape[1] == max(lengths[row] for row in rows)
        for place, row in enumerate(rows):
            assert data[place, : lengths[row]].tolist() == expected[row]
            if real is not None:
                assert int(real[place].sum()) == lengths[row]
    assert found.size == sum(lengths) * 2 * 4 <= found.reserved


def test_equal_lengths_need_no_mask_and_no_sequence_is_no_error() -> None:
    found = Ragged(torch.ones(2, 3, 1), torch.tensor([3, 3]))
    assert found.real(torch.tensor([0, 1])) is None
    none = torch.empty(0, dtype=torch.long)
    found.append(none, torch.empty(0, 1))
    assert found.of(none).shape == (0, 0, 1) and found.real(none) is None
