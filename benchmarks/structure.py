"""Measure the structure of the code: rooms, import levels, arrows between rooms, circles, lines.

    python benchmarks/structure.py [ROOT]

`tests/test_structure.py` holds the rules that rest on these figures.
another, anywhere in a file. A level is the length of the longest chain of arrows below a room.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

PACKAGES = ("bench", "routers")


def modules(root: Path, folders: Sequence[str] = PACKAGES) -> dict[str, Path]:
    """Return dotted name -> file for every module below the folders."""
    files = [file for folder in folders for file in sorted((root / folder).rglob("*.py"))]
    return {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


def imports(file: Path, known: set[str]) -> set[str]:
    """Modules of the packages that a file imports, at once or later."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) or {node.module}
    return found & known


def room_of(module: str) -> str:
    """The room of a module: two parts of its name at most."""
    return ".".join(module.split(".")[:2]) if module.startswith("bench") else "routers"


def rooms(root: Path) -> dict[str, set[str]]:
    """Room -> rooms that it imports.

    Modules that only start the program or carry the version are no rooms.
    """
    files = modules(root)
    arrows: dict[str, set[str]] = defaultdict(set)
    for name, file in files.items():
        if name in PACKAGES:
            continue
        here = room_of(name)
        arrows[here] |= {room_of(other) for other in imports(file, set(files)) - set(PACKAGES)} - {
            here
        }
    return dict(arrows)


def flat_modules(root: Path) -> list[str]:
    """Return the modules that lie flat in `bench/`."""
    return [
        name
        for name, file in modules(root).items()
        if name.count(".") == 1 and name.startswith("bench.") and file.name != "__init__.py"
    ]


def upward(arrows: dict[str, set[str]], order: Sequence[str]) -> list[str]:
    """Return the arrows that point up in an order of rooms, lowest first, and unlisted rooms.

    An order that no arrow points up in also shows that there is no circle.
    """
    level = {room: index for index, room in enumerate(order)}
    listed = {room: arrows[room] for room in arrows if room in level}
    found = [f"{room} is not in the order of rooms" for room in arrows if room not in level]
    found += [
        f"{room} -> {other}"
        for room, below in listed.items()
        for other in sorted(below)
        if level.get(other, -1) >= level[room]
    ]
    return found


def mirror(module: Path) -> Path:
    """Return where the tests of a module lie, both relative to the root.

    `bench/X/Y.py` has `tests/X/test_Y.py`, and `routers/Y.py` has `tests/routers/test_Y.py`.
    """
    folders = module.parts[module.parts[0] == "bench" : -1]
    return Path("tests", *folders, f"test_{module.name}")


def unmirrored(root: Path, min_lines: int) -> list[str]:
    """Return the modules of at least so many lines that have no test file of their own."""
    return [
        str(file.relative_to(root))
        for file in modules(root).values()
        if file.name not in ("__init__.py", "__main__.py")
        and file.read_text(encoding="utf-8").count("\n") >= min_lines
        and not (root / mirror(file.relative_to(root))).is_file()
    ]


def orphans(root: Path, cross_cutting: Collection[str]) -> list[str]:
    """Return the test files without a module that are not among the cross-cutting ones."""
    mirrors = {mirror(file.relative_to(root)) for file in modules(root).values()}
    tests = [file.relative_to(root) for file in sorted((root / "tests").rglob("test_*.py"))]
    return [
        str(test)
        for test in tests
        if test not in mirrors and test.relative_to("tests").as_posix() not in cross_cutting
    ]


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of rooms that import each other, directly or by way of others."""

    def reached(start: str) -> set[str]:
        seen, pending = set[str](), [start]
        while pending:
            for other in arrows.get(pending.pop(), set()) - seen:
                seen.add(other)
                pending.append(other)
        return seen

    below = {room: reached(room) for room in arrows}
    groups = {
        tuple(sorted(other for other in below[room] if room in below.get(other, set())))
        for room in arrows
        if room in below[room]
    }
    return [list(group) for group in sorted(groups)]


def levels(arrows: dict[str, set[str]]) -> int:
    """Number of levels, if there is no circle; a circle counts as one room."""
    member = {room: min(group) for group in circles(arrows) for room in group}
    depth: dict[str, int] = {}

    def level(room: str) -> int:
        room = member.get(room, room)
        if room not in depth:
            inside = [other for other in arrows if member.get(other, other) == room]
            below = {member.get(other, other) for one in inside for other in arrows[one]} - {room}
            depth[room] = 1 + max((level(other) for other in below), default=0)
        return depth[room]

    return max(level(room) for room in arrows)


def lines(root: Path, folder: str) -> int:
    """Lines of Python in a folder."""
    return sum(
        file.read_text(encoding="utf-8").count("\n") for file in (root / folder).rglob("*.py")
    )


def main() -> None:
    """Print the figures."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    arrows = rooms(root)
    print(f"flat modules in bench/        {len(flat_modules(root))}")
    print(f"rooms                         {len(arrows)}")
    print(f"import levels                 {levels(arrows)}")
    print(f"arrows between rooms          {sum(map(len, arrows.values()))}")
    print(f"circles                       {circles(arrows) or 'none'}")
    counts = ", ".join(str(lines(root, folder)) for folder in (*PACKAGES, "tests"))
    print(f"lines of bench, routers, tests  {counts}")
    print(f"modules without a mirrored test {len(unmirrored(root, 0))}")


if __name__ == "__main__":
    main()
