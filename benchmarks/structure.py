"""Measure the structure of the code: rooms, import levels, arrows between rooms, circles, lines.

    python benchmarks/structure.py [ROOT]

A room is a package of `bench/`, or a module that lies flat in it. An arrow says that a room imports
another, anywhere in a file. A level is the length of the longest chain of arrows below a room.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path

PACKAGES = ("bench", "routers")


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of the packages."""
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
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
    arrows, files = rooms(root), modules(root)
    flat = [
        name
        for name in files
        if name.count(".") == 1 and files[name].name != "__init__.py" and name.startswith("bench")
    ]
    print(f"flat modules in bench/        {len(flat)}")
    print(f"rooms                         {len(arrows)}")
    print(f"import levels                 {levels(arrows)}")
    print(f"arrows between rooms          {sum(map(len, arrows.values()))}")
    print(f"circles                       {circles(arrows) or 'none'}")
    print(
        f"lines of bench, routers, tests  {', '.join(str(lines(root, folder)) for folder in (*PACKAGES, 'tests'))}"
    )


if __name__ == "__main__":
    main()
