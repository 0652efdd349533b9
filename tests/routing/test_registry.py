from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.routing import registry
from bench.routing.contract import Router
from bench.routing.load_routers import find, load_file
from bench.routing.paths import FFN_GATE
from tests.routing.plugin import PLUGIN
from tests.world import row_id

pytestmark = pytest.mark.usefixtures("own_registry")


def test_options_are_checked_by_name_and_by_the_router(plugin: Path) -> None:
    (entry,) = load_file(plugin)
    with pytest.raises(
        UserError, match=r"Unknown option of router 'from_a_file' 'widht'\. Did you mean 'width'\?"
    ):
        entry.make({"widht": 3})
    with pytest.raises(UserError, match="width is 0; it must be above 0"):
        entry.make({"width": 0})
    assert isinstance(entry.make({"width": 5}), Router)


def test_a_router_that_does_not_initialise_its_base_is_told_so(plugin: Path) -> None:
    plugin.write_text(PLUGIN.replace("super().__init__()", "self.width = width"), encoding="utf-8")
    (entry,) = load_file(plugin)
    with pytest.raises(UserError, match=r"not initialised: call `super\(\).__init__\(\)`"):
        entry.make({})


def test_a_name_belongs_to_one_class() -> None:
    class First(Router):
        paths = FFN_GATE

    class Second(Router):
        paths = FFN_GATE

    registry.register("taken", family="tests")(First)
    registry.register("taken", family="tests")(First)
    with pytest.raises(UserError, match=r"'taken' is registered twice: by .*First.* and .*Second"):
        registry.register("taken", family="tests")(Second)
    assert find("taken").router is First


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("top2_moe", {"num_experts": 1}, "at least 2"),
        ("adaptive_moe", {"mean_experts": 2.5}, r"1 to 2 experts"),
        ("adaptive_moe", {"threshold": "free"}, "'controlled', 'fixed'"),
        ("mod", {"layers": "third"}, "'every', 'other'"),
        ("mlp_gate", {"width_ratio": 0}, "above 0"),
        ("mlp_gate", {"scale": "none"}, "'both', 'full'"),
        ("random", {"over": "heads"}, "'ffn', 'block', 'experts'"),
        ("random", {"active_experts": 9}, "above 0 and at most num_experts"),
        ("hash", {"num_experts": 0}, "at least 2"),
        ("mod", {"cappacity": 1.0}, "Did you mean 'capacity'"),
    ],
    ids=row_id,
)
def test_an_option_out_of_range_is_the_users_error(
    name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        find(name).make(options)
