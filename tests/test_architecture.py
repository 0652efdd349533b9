"""The rules of imports and of texts, read from the sources with `ast`, each shown to fail on a
source that breaks it. The rules of rooms and of mirrored tests are in `test_structure.py`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.test_structure import ROOT, structure
from tests.test_style import style

MAX_FILE_LINES = 420
MAX_FUNCTION_LINES = 100
MAX_ROUTER_LINES = 80
"""Lines of code for each router of a file."""
LARGER_ROUTERS = {"routers.partially_supervised": 125}
"""Files with a limit of their own. This router passes on everything of the one that it wraps."""

ROUTERS_MAY_IMPORT = ("bench.routing", "torch", "jaxtyping")
TORCH_FREE = (
    *(
        "bench.stats",
        "bench.board",
        "bench.data",
        "bench.record",
        "bench.config.suite",
        "bench.config.base",
        "bench.config.read_suite",
        "bench.config.read_yaml",
    ),
    *("bench.errors", "bench.cli", "bench.__main__"),
)
PATH_NAMES = {"cheap", "full", "skip", "block"}


def sources(*folders: str) -> dict[str, str]:
    """Dotted module name -> text, for every Python file below the folders."""
    files = structure.modules(ROOT, folders)
    return {name: file.read_text("utf-8") for name, file in files.items()}


def _at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported."""
    for node in body:
        yield node
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for nested in ("body", "orelse", "finalbody"):
            yield from _at_import(getattr(node, nested, []))
        for handler in getattr(node, "handlers", []):
            yield from _at_import(handler.body)


def imported(text: str, everywhere: bool = True) -> list[tuple[int, str]]:
    """(line, dotted name) of each import.

    Anywhere, or of those alone that run when the module is imported.
    """
    tree = ast.parse(text)
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree) if everywhere else _at_import(tree.body):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = "." * node.level + (node.module or "")
            found += [(node.lineno, f"{stem}.{alias.name}") for alias in node.names]
    return found


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def foreign_imports(text: str) -> list[str]:
    """Rule: a router imports torch, the standard library and its share of bench.

    Not another router: its hash covers one file.
    """
    allowed = (*ROUTERS_MAY_IMPORT, *sys.stdlib_module_names)
    return [
        f"{line}: {name}"
        for line, name in imported(text)
        if not any(_within(name, package) for package in allowed)
    ]


def router_imports(text: str) -> list[str]:
    """Rule: bench finds routers by registration, and never imports them by name."""
    return [f"{line}: {name}" for line, name in imported(text) if _within(name, "routers")]


def relative_imports(text: str) -> list[str]:
    """Rule: imports are absolute, which the other rules rely on."""
    return [f"{line}: {name}" for line, name in imported(text) if name.startswith(".")]


def torch_chains(modules: dict[str, str], roots: tuple[str, ...]) -> list[str]:
    """Rule: code that judges records needs the JSON alone, so no import chain from the roots
    reaches torch.
    """
    chains: list[str] = []
    seen: set[str] = set()
    queue = [(module,) for module in modules if any(_within(module, root) for root in roots)]
    for chain in queue:
        if chain[-1] in seen:
            continue
        seen.add(chain[-1])
        for _, name in imported(modules[chain[-1]], everywhere=False):
            if _within(name, "torch") or name == "safetensors.torch":
                chains.append(" -> ".join((*chain, name)))
            parts = name.split(".")
            prefixes = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
            queue += [(*chain, prefix) for prefix in prefixes if prefix in modules]
    return chains


def registered_names(texts: dict[str, str]) -> set[str]:
    """Names given to `@register(...)`."""
    calls = (
        node
        for text in texts.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
    )
    named = (
        call.args[0]
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "register" and call.args
    )
    return {str(name.value) for name in named if isinstance(name, ast.Constant)}


def special_cases(text: str, names: set[str]) -> list[str]:
    """Rule: the core treats all routers alike, so no comparison or match with a router's name.

    Some routers bear a path's name; a comparison with one of those counts where it speaks of a
    router or a row.
    """
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Compare | ast.match_case):
            looked_at = node if isinstance(node, ast.Compare) else node.pattern
            said = ast.unparse(looked_at)
            constants = {
                str(part.value) for part in ast.walk(looked_at) if isinstance(part, ast.Constant)
            }
            of_a_router = re.search(r"router|row\b", said) is not None
            if constants & (names if of_a_router else names - PATH_NAMES):
                found.append(f"{looked_at.lineno}: {said}")
    return found


def too_long(text: str) -> list[str]:
    """Rule: a file tells one thing. Docstrings count for files, not for functions."""
    lines = text.count("\n")
    found = [f"{lines} lines"] if lines > MAX_FILE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) else None
            length = (node.end_lineno or 0) - node.lineno + 1
            length -= (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
            if length > MAX_FUNCTION_LINES:
                found.append(f"{node.lineno}: {node.name} has {length} lines")
    return found


def large_routers(text: str, most: int = MAX_ROUTER_LINES) -> list[str]:
    """Rule: a router is one screen of code, on average where routers of a family share a file.

    Blank lines, docstrings, comments and imports do not count.
    """
    imports = [
        node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    lines = style.count(text).code_lines
    lines -= sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in imports)
    routers = len(registered_names({"": text}))
    too_many = lines > most * max(1, routers)
    return [f"{lines} lines of code for {routers} routers"] if too_many else []


def machine_paths(text: str) -> list[str]:
    """Rule: nothing in the repository depends on, or tells of, the machine it was made on."""
    pattern = r"(?<![\w.~*-])/(?:work|tmp|root|home|Users)/\w+"
    return [
        f"{number}: {match}"
        for number, line in enumerate(text.splitlines(), 1)
        for match in re.findall(pattern, line)
    ]


_ROUTER = "@register('mod', family='depth')\nclass Mod:\n    'Skip blocks.'\n"


def _breaches(found: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: breaches for name, breaches in found.items() if breaches}


def test_routers_import_only_their_share_of_bench() -> None:
    assert not _breaches({name: foreign_imports(text) for name, text in sources("routers").items()})


def test_bench_never_imports_routers() -> None:
    assert not _breaches({name: router_imports(text) for name, text in sources("bench").items()})


def test_imports_are_absolute() -> None:
    assert not _breaches(
        {name: relative_imports(text) for name, text in sources("bench", "routers").items()}
    )


def test_no_import_chain_from_judging_to_torch() -> None:
    assert not torch_chains(sources("bench"), TORCH_FREE)


def test_judging_loads_no_torch() -> None:
    """The same as the chains above, but through other packages too.

    What an interpreter has loaded in the end.
    """
    modules = [
        name
        for name in sources("bench")
        if any(_within(name, root) for root in TORCH_FREE) and name != "bench.__main__"
    ]
    program = (
        f"import sys, importlib; [importlib.import_module(name) for name in {modules}]; "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr or "torch was loaded"


def test_bench_knows_no_router_by_name() -> None:
    names = registered_names(sources("routers"))
    assert not _breaches(
        {name: special_cases(text, names) for name, text in sources("bench").items()}
    )


def test_files_and_functions_are_short() -> None:
    assert not _breaches(
        {
            name: too_long(text)
            for name, text in sources("bench", "routers", "benchmarks", "tests").items()
        }
    )


def test_a_router_is_one_screen() -> None:
    assert not _breaches(
        {
            name: large_routers(text, LARGER_ROUTERS.get(name, MAX_ROUTER_LINES))
            for name, text in sources("routers").items()
        }
    )


def test_no_machine_path_in_tracked_files() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    texts = {
        str(file.relative_to(ROOT)): file.read_text("utf-8", errors="replace")
        for file in files
        if file.is_file()
    }
    assert texts
    assert not _breaches({name: machine_paths(text) for name, text in texts.items()})


@pytest.mark.parametrize(
    ("rule", "breaking", "keeping"),
    [
        (
            foreign_imports,
            "from bench.training.loop import step",
            "from bench.routing.capacity import top_k\nimport torch.nn.functional as F\nimport re",
        ),
        (
            foreign_imports,
            "from bench.rng import generator",
            "from bench.routing import hash_uniform",
        ),
        (foreign_imports, "from routers.gates import Gate", "from jaxtyping import Float"),
        (foreign_imports, "def f():\n    import numpy", "def f():\n    import torch"),
        (router_imports, "from routers import mod", "from bench import registry"),
        (
            router_imports,
            "def f():\n    import routers.mod",
            "import importlib\nimportlib.import_module('routers')",
        ),
        (relative_imports, "from . import flops", "from bench import flops"),
        (
            lambda text: special_cases(text, {"mod"}),
            "if name == 'mod': pass",
            "if name == 'other': pass",
        ),
        (
            lambda text: special_cases(text, {"mod"}),
            "x = name in ('top2', 'mod')",
            "x = ('top2', 'mod')",
        ),
        (
            lambda text: special_cases(text, {"mod"}),
            "match name:\n    case 'mod': pass",
            "match name:\n    case 'other': pass",
        ),
        (
            lambda text: special_cases(text, {"cheap"}),
            "if cell.router == 'cheap': pass",
            "if paths.base == 'cheap': pass",
        ),
        (too_long, "x = 1\n" * (MAX_FILE_LINES + 1), "x = 1\n" * MAX_FILE_LINES),
        (
            too_long,
            "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES,
            "def f():\n    '''" + "a\n" * 70 + "'''\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1),
        ),
        (
            large_routers,
            _ROUTER + "    x = 1\n" * (MAX_ROUTER_LINES - 1),
            "import re\n\n" + _ROUTER + "    x = 1\n    # why\n" * (MAX_ROUTER_LINES - 2),
        ),
        (
            large_routers,
            _ROUTER + "x = 1\n" * 80,
            "x = 1\n" * 80 + _ROUTER + _ROUTER.replace("mod", "other"),
        ),
        (machine_paths, "open('/" + "home/ann/data')", "open('~/data'); see docs/home/ann"),
    ],
)
def test_each_rule_tells_a_breach_from_a_clean_source(rule, breaking: str, keeping: str) -> None:
    assert rule(breaking)
    assert not rule(keeping)


def test_torch_is_found_behind_other_modules_but_not_in_functions() -> None:
    modules = {
        "bench.board": "from bench.helper import x",
        "bench.helper": "try:\n    import torch.nn\nexcept ImportError: pass",
    }
    assert torch_chains(modules, ("bench.board",)) == ["bench.board -> bench.helper -> torch.nn"]
    assert not torch_chains(
        modules | {"bench.helper": "def f():\n    import torch"}, ("bench.board",)
    )
    assert torch_chains(
        {"bench.board.a": "from bench.stats import t", "bench.stats": "from torch import mean"},
        ("bench.board",),
    )


def test_registered_names_are_read_from_the_decorator() -> None:
    assert registered_names({"m": "@register('mod', family='depth')\nclass Mod: ..."}) == {"mod"}
