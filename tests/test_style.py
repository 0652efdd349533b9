"""The limits of `benchmarks/style.py`, and its counts on a small source."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


style = _load(ROOT / "benchmarks" / "style.py")

SOURCE = '''"""Say what it is, and what it is not."""

X = 1  # a comment
"""The docstring of an attribute."""


def f():
    # another comment
    return "what"  # noqa: X1
'''


def test_a_small_source_is_counted() -> None:
    found = style.count(SOURCE)
    assert found.lines == 9 and found.code_lines == 3
    assert found.comments == 2, "one beside code, one alone; a directive is none"
    assert found.words == 14 and found.whats == 2, "a string that is no docstring does not count"
    # Module, Assign, Name, Constant; FunctionDef, arguments, Return, Constant
    assert found.nodes == 8
    assert found.long_lines == found.long_functions == found.long_modules == 0


def test_long_lines_functions_and_modules_are_counted() -> None:
    long = "def f():\n" + 40 * "    x = 1\n" + "y = 1  # " + 92 * "-" + "\n"
    assert style.count(long).long_functions == style.count(long).long_lines == 1
    assert style.count(8 * long).long_modules == 1
    assert style.count(long.replace("    x = 1\n", "", 1)[:-2]).long_functions == 0
    assert style.count(long.replace("    x = 1\n", "", 1)[:-2]).long_lines == 0


def test_the_tree_keeps_the_limits() -> None:
    code = style.count_files(ROOT, ("bench", "routers"))
    everything = style.count_files(ROOT, ("bench", "routers", "tests", "benchmarks"))
    assert everything.long_lines == 0
    assert code.whats_per_1000_words < 2
    assert code.comments_per_100_lines >= 4
    assert code.nodes_per_line <= 6.5
