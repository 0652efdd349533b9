"""Measure how the code reads: line lengths, comments, wording, density, sizes.

    python benchmarks/style.py [ROOT]

Each row is one part of the tree. `tests/test_style.py` holds the limits of the whole.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

MAX_COLUMNS = 100
MAX_FUNCTION_LINES = 40
MAX_MODULE_LINES = 280
DIRECTIVE = re.compile(r"#\s*(noqa|type:|pyright:|pragma|!)")
"""Comments that only a tool reads; they explain nothing."""


@dataclass
class Counts:
    """Sums over the files of one part of the tree."""

    lines: int = 0
    long_lines: int = 0
    code_lines: int = 0
    comments: int = 0
    nodes: int = 0
    words: int = 0
    whats: int = 0
    long_functions: int = 0
    long_modules: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            *(getattr(self, field.name) + getattr(other, field.name) for field in fields(self))
        )

    @property
    def comments_per_100_lines(self) -> float:
        """Comments per 100 lines of code."""
        return 100 * self.comments / max(1, self.code_lines)

    @property
    def nodes_per_line(self) -> float:
        """Syntax nodes per line of code."""
        return self.nodes / max(1, self.code_lines)

    @property
    def whats_per_1000_words(self) -> float:
        """How often the word "what" stands in 1,000 words of docstrings."""
        return 1000 * self.whats / max(1, self.words)


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield every docstring: a string that is a statement, also one below an attribute."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.value


def count(source: str) -> Counts:
    """Count the source text of one file."""
    tree = ast.parse(source)
    lines = source.splitlines()
    strings = list(_docstrings(tree))
    text = [line for string in strings for line in range(string.lineno, _end(string) + 1)]

    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    # A line that holds nothing but a comment is no code.
    alone = {token.start[0] for token in comments if token.line.lstrip().startswith("#")}
    blank = {number for number, line in enumerate(lines, 1) if not line.strip()}

    # A load or store context is a mark of the parser, and no part of the text.
    nodes = sum(not isinstance(node, ast.expr_context) for node in ast.walk(tree))
    words = re.findall(r"[\w'-]+", " ".join(str(string.value) for string in strings).lower())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return Counts(
        lines=len(lines),
        long_lines=sum(len(line) > MAX_COLUMNS for line in lines),
        code_lines=len(lines) - len(blank | alone | set(text)),
        comments=sum(not DIRECTIVE.match(token.string) for token in comments),
        nodes=nodes - 2 * len(strings),
        words=len(words),
        whats=words.count("what"),
        long_functions=sum(
            _end(node) - node.lineno + 1 > MAX_FUNCTION_LINES
            for node in ast.walk(tree)
            if isinstance(node, functions)
        ),
        long_modules=len(lines) > MAX_MODULE_LINES,
    )


def _end(node: ast.stmt | ast.expr) -> int:
    return node.end_lineno or node.lineno


def count_files(root: Path, folders: Sequence[str]) -> Counts:
    """Count every Python file below the folders."""
    files = [file for folder in folders for file in sorted((root / folder).rglob("*.py"))]
    return sum((count(file.read_text(encoding="utf-8")) for file in files), Counts())


def complex_functions(root: Path, folders: Sequence[str]) -> int | None:
    """Count the functions that ruff finds too complex; None without ruff."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.is_file():
        return None
    command = [str(ruff), "check", "--isolated", "--select", "C901,PLR0912", "--exit-zero"]
    done = subprocess.run(
        [*command, "--output-format", "concise", *folders],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"^(\S+?:\d+):", done.stdout, flags=re.MULTILINE)
    return len(set(found))


def main() -> None:
    """Print the figures of the packages, and of the tests apart."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    parts = [("bench", "routers"), ("tests",)]
    columns = [count_files(root, folders) for folders in parts]
    complexity = [complex_functions(root, folders) for folders in parts]
    rows = [
        ("lines", [f"{each.lines}" for each in columns]),
        (f"lines over {MAX_COLUMNS} columns", [f"{each.long_lines}" for each in columns]),
        (
            "comments per 100 lines of code",
            [f"{each.comments_per_100_lines:.2f}" for each in columns],
        ),
        (
            '"what" per 1,000 words of docstrings',
            [f"{each.whats_per_1000_words:.2f}" for each in columns],
        ),
        ("syntax nodes per line of code", [f"{each.nodes_per_line:.2f}" for each in columns]),
        (
            f"functions above {MAX_FUNCTION_LINES} lines",
            [f"{each.long_functions}" for each in columns],
        ),
        (f"modules above {MAX_MODULE_LINES} lines", [f"{each.long_modules}" for each in columns]),
        ("functions with C901 or PLR0912", [str(each) for each in complexity]),
    ]
    print(f"{'':38}{'bench, routers':>16}{'tests':>10}")
    for name, (package, tests) in rows:
        print(f"{name:38}{package:>16}{tests:>10}")


if __name__ == "__main__":
    main()
