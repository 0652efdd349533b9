"""Find and read declarations in YAML: suites and studies.

A declaration is found by its name in the bench, or it is a file of the user.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UserError, shortened, unknown


def declared(folder: str) -> list[str]:
    """Return the names of the declarations in a folder of the bench."""
    return sorted(
        item.name.removesuffix(".yaml")
        for item in files("bench").joinpath(folder).iterdir()
        if item.name.endswith(".yaml")
    )


def read_declaration(kind: str, name_or_file: str, folder: str, example: str) -> dict[Any, Any]:
    """Return the fields of a declaration.

    Args:
        kind: "suite" or "study", for errors.
        name_or_file: a name, or a path that ends in .yaml.
        folder: folder of the bench that holds the named declarations.
        example: a valid file that errors point to.

    Raises:
        UserError: the declaration does not exist, or it is not a YAML mapping.
    """
    path, title, names = Path(name_or_file), kind.capitalize(), declared(folder)
    if path.suffix in (".yaml", ".yml"):
        remedy = f"Give an existing YAML file, or one of: {', '.join(names)}."
        try:
            if not path.is_file():
                raise UserError(f"{title} file {name_or_file!r} does not exist. {remedy}")
            text = path.read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError) as error:
            # The name is too long or holds a null byte, or reading the file is not allowed.
            raise UserError(
                f"{title} file {shortened(name_or_file)} cannot be read ({error}). {remedy}"
            ) from None
    elif name_or_file in names:
        text = files("bench").joinpath(folder, f"{name_or_file}.yaml").read_text(encoding="utf-8")
    else:
        raise unknown(kind, name_or_file, names, "A path that ends in .yaml is read as a file.")
    try:
        data = _parsed(text)
    except ValueError as error:
        raise UserError(
            f"{title} {name_or_file!r} is not valid YAML: {error}. Correct it; {example} is a "
            "valid example."
        ) from None
    if not isinstance(data, dict):
        raise UserError(
            f"{title} {name_or_file!r} holds {type(data).__name__}, not a mapping of fields. "
            f"See {example}."
        )
    return data


def read_value(assignment: str, option: str = "--set") -> Any:
    """Return the YAML value of an assignment `name=value` on the command line.

    Args:
        assignment: the text.
        option: the option that it was given to.

    Raises:
        UserError: the value is not valid YAML.
    """
    text = assignment.partition("=")[2]
    try:
        return _parsed(text)
    except ValueError as error:
        allowed = (
            "Give a number, true, false, a word or a list such as [1, 2]; text with other signs "
            "needs quotes of its own"
        )
        said = (
            f"{option} {shortened(assignment)}: the value {shortened(text)} is not valid YAML: "
            f"{error}."
        )
        raise UserError(f"{said} {allowed}: '\"...\"'.") from None


class _OnceLoader(yaml.SafeLoader):
    """Load YAML and refuse a key that occurs twice in one mapping.

    PyYAML's own loader keeps the last value of such a key.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # A `<<` merge adds keys that the mapping's own keys may override: look before the merge.
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    raise ValueError(
                        f"the key {shortened(key.value)} occurs twice, on lines {lines[name]} "
                        f"and {line}"
                    )
                lines[name] = line
        super().flatten_mapping(node)


def _parsed(text: str) -> Any:
    """Parse YAML text.

    Raises:
        ValueError: the text is not valid. PyYAML alone would raise many other errors, for dates,
            numbers and its own tables.
    """
    try:
        data = yaml.load(text, Loader=_OnceLoader)
        # Python refuses to print a number of thousands of digits, so no error could name it.
        repr(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from None
    except Exception as error:
        raise ValueError(
            f"a value does not fit its tag ({type(error).__name__}: {error})"[:300]
        ) from None
    return data
