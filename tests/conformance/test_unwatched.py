"""What only the run's own model would show: work without a counter, and side effects."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode as get_current_dispatch_mode  # pyright: ignore[reportPrivateUsage]

from bench.conformance.unwatched import side_work
from bench.routing.contract import FFN_GATE, Router, RouterInput, RoutingPlan
from bench.routing.registry import Entry
from bench.routing.select import gate_plan
from tests import world


class _Alternate(Router):
    paths = FFN_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return gate_plan(inputs.positions % 2 == 0, None)


class _Works(_Alternate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if get_current_dispatch_mode() is None:
            _ = inputs.hidden @ torch.ones(inputs.hidden.shape[-1], 8)
        return super().forward(inputs)


class _Writes(_Alternate):
    place: ClassVar[Path]

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if get_current_dispatch_mode() is None:
            self.place.write_text("seen", encoding="utf-8")
        return super().forward(inputs)


@pytest.mark.parametrize(
    ("router", "says"), [(_Alternate, ""), (_Works, "it runs"), (_Writes, "open of")]
)
def test_a_router_that_looks_for_counters_is_found_in_its_own_run(
    router: type[Router], says: str, tmp_path: Path
) -> None:
    _Writes.place = tmp_path / "note"
    found = side_work(world.model(Entry("x", "test", "", router)), world.windows())
    assert says in found and bool(says) == bool(found)
