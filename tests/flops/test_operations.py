"""The price list, against multiplications and additions counted one by one."""

import pytest
import torch

from bench.flops.operations import FREE, FUSED, MATRIX, PER_ELEMENT, elements, operation_name

ATEN = torch.ops.aten


def test_a_product_costs_a_multiplication_and_an_addition_each_time_it_sums() -> None:
    a, b = torch.zeros(3, 4), torch.zeros(4, 5)
    by_hand = sum(2 for _ in range(3) for _ in range(5) for _ in range(4))
    assert MATRIX["mm"](a, b) == MATRIX["addmm"](torch.zeros(5), a, b) == by_hand
    stack = (torch.zeros(2, 3, 4), torch.zeros(2, 4, 5))
    assert MATRIX["bmm"](*stack) == MATRIX["baddbmm"](torch.zeros(2, 3, 5), *stack) == 2 * by_hand
    assert MATRIX["mv"](a, torch.zeros(4)) == 2 * 3 * 4
    assert MATRIX["dot"](torch.zeros(7), torch.zeros(7)) == 2 * 7
    assert MATRIX["addr"](a, torch.zeros(3), torch.zeros(4)) == 2 * 3 * 4
    complex_a, complex_b = a.to(torch.complex64), b.to(torch.complex64)
    assert MATRIX["mm"](complex_a, complex_b) == 4 * by_hand


def test_attention_costs_scores_and_sums_and_twice_that_backward() -> None:
    query, key, value = (torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 7, 4), torch.zeros(2, 3, 7, 6))
    forward = MATRIX["_scaled_dot_product_flash_attention_for_cpu"](query, key, value)
    assert forward == 2 * (2 * 3) * 5 * 7 * (4 + 6)
    name = "_scaled_dot_product_flash_attention_for_cpu_backward"
    assert MATRIX[name](query, query, key, value) == 2 * forward


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (ATEN.mm.default, "mm"),
        (ATEN.sum.dim_IntList, "sum"),
        (ATEN.add_.Tensor, "add_"),
        (ATEN._softmax.default, "_softmax"),
    ],
)
def test_an_operation_has_one_name_for_all_its_overloads(operation: object, name: str) -> None:
    assert operation_name(operation) == name


def test_elements_are_those_of_the_largest_tensor() -> None:
    small, large = torch.zeros(3), torch.zeros(4, 5)
    assert elements("sum", [large], [small]) == elements("add", [small], [large]) == 20
    assert elements("lerp", [large], [large]) == 3 * 20
    assert elements("mul", [large.to(torch.complex64)], [small]) == 6 * 20
    assert elements("_foreach_add", [small, large], [small]) == 23
    assert elements("sum", [], []) == 0


def test_no_operation_has_two_prices() -> None:
    assert not FREE & PER_ELEMENT
    assert not FREE & (MATRIX.keys() | FUSED.keys())
    assert not PER_ELEMENT & MATRIX.keys()
