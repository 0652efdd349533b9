"""The rules of rooms and of mirrored tests, by `benchmarks/structure.py`, each shown to fail on a
tree that breaks it.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


structure = _load(ROOT / "benchmarks" / "structure.py")

MAX_FLAT_MODULES = 6
ROOMS = (
    *("bench.errors", "bench.files", "bench.ranks", "bench.rng", "bench.suites"),
    *("bench.config", "bench.record", "bench.routing", "routers"),
    *("bench.backbone", "bench.flops", "bench.model", "bench.decoding"),
    *("bench.data", "bench.training"),
    *(
        "bench.evaluation",
        "bench.conformance",
        "bench.executors",
        "bench.runner",
        "bench.planning",
        "bench.speed",
    ),
    *(
        "bench.stats",
        "bench.board",
        "bench.figures",
        "bench.pages",
        "bench.study",
        "bench.commands",
        "bench.cli",
    ),
    "bench.__main__",
)
"""The rooms from low to high: none imports a room after it, anywhere in a file."""

MIN_MIRRORED_LINES = 30
"""Shorter modules are tested where they are used."""
CROSS_CUTTING = {
    "test_annotations.py": "types",
    "test_architecture.py": "layout",
    "test_audit.py": "audit",
    "test_charges.py": "costs",
    "test_docs.py": "documents",
    "test_fingerprints.py": "numerics",
    "test_fuzz.py": "input",
    "test_libraries.py": "libraries",
    "commands/test_check_plugins.py": "plugins",
    "commands/test_plan_rows.py": "rows",
    "test_no_home.py": "homes",
    "test_packaging.py": "installation",
    "test_surroundings.py": "surroundings",
    "test_structure.py": "rooms",
    "test_style.py": "text",
    "routers/test_experts.py": "experts",
    "routers/test_options.py": "options",
    "routers/test_parity.py": "libraries",
    "board/test_browser.py": "browsers",
    "board/test_not_run.py": "roster",
    "board/test_scale.py": "size",
    "board/test_studies_apart.py": "studies",
    "conformance/test_check_command.py": "command",
    "conformance/test_gallery.py": "cheaters",
    "conformance/test_odd_plugins.py": "plugins",
    "conformance/test_readme.py": "text",
    "runner/test_kill.py": "recovery",
    "stats/test_null_boards.py": "simulation",
}
"""Tests that belong to no single module -> their subject across modules."""


def test_few_modules_lie_flat() -> None:
    assert len(structure.flat_modules(ROOT)) <= MAX_FLAT_MODULES


def test_no_room_imports_one_above_it() -> None:
    assert structure.upward(structure.rooms(ROOT), ROOMS) == []


def test_every_module_has_its_test_and_every_test_its_module() -> None:
    assert not structure.unmirrored(ROOT, MIN_MIRRORED_LINES)
    assert not structure.orphans(ROOT, CROSS_CUTTING)
    assert all((ROOT / "tests" / test).is_file() for test in CROSS_CUTTING)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two rooms, one flat module and a router, each with its test."""
    for name, text in {
        "bench/low/__init__.py": "",
        "bench/low/sum.py": "import math\n",
        "bench/high/__init__.py": "",
        "bench/high/draw.py": "from bench.low.sum import add\nimport bench.flat\n",
        "bench/flat.py": "def f():\n    from bench import low\n",
        "routers/gate.py": "import torch\n",
        **{f"tests/{name}.py": "" for name in ("low/test_sum", "high/test_draw", "test_flat")},
        "tests/routers/test_gate.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_an_arrow_upward_is_found_wherever_it_stands(tree: Path) -> None:
    arrows = structure.rooms(tree)
    assert structure.flat_modules(tree) == ["bench.flat"]
    order = ("bench.low", "bench.flat", "bench.high", "routers")
    assert structure.upward(arrows, order) == structure.circles(arrows) == []
    assert set(structure.upward(arrows, order[::-1])) == {
        *("bench.flat -> bench.low", "bench.high -> bench.flat", "bench.high -> bench.low")
    }
    assert structure.upward(arrows, order[1:])[0] == "bench.low is not in the order of rooms"
    (tree / "bench/low/sum.py").write_text("def f():\n    import bench.high.draw\n", "utf-8")
    assert structure.upward(structure.rooms(tree), order) == ["bench.low -> bench.high"]
    assert structure.circles(structure.rooms(tree)) == [["bench.flat", "bench.high", "bench.low"]]


def test_a_module_without_a_test_and_a_test_without_a_module_are_found(tree: Path) -> None:
    assert structure.unmirrored(tree, 0) == structure.orphans(tree, ()) == []
    for name in ("low/test_sum", "routers/test_gate"):
        (tree / f"tests/{name}.py").rename(tree / f"tests/{name}_moved.py")
    assert structure.unmirrored(tree, 0) == ["bench/low/sum.py", "routers/gate.py"]
    assert structure.unmirrored(tree, 2) == []
    left = ["tests/low/test_sum_moved.py", "tests/routers/test_gate_moved.py"]
    assert structure.orphans(tree, ()) == left
    assert structure.orphans(tree, ["low/test_sum_moved.py"]) == left[1:]
