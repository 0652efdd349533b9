"""Finding and reading what is declared in YAML, suites and studies.

By name among those of the bench, or from the user's file.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UserError, shortened, unknown


def declared(folder: str) -> list[str]:
    """Names of the declarations in a folder of the bench."""
    return sorted(
        item.name.removesuffix(".yaml")
        for item in files("bench").joinpath(folder).iterdir()
        if item.name.endswith(".yaml")
    )


def read_declaration(kind: str, name_or_file: str, folder: str, example: str) -> dict[Any, Any]:
    """The fields of a declaration.

    Args:
        kind: what it is called in errors, "suite" or "study".
        name_or_file: its name, or a path that ends in .yaml.
        folder: folder of the bench that holds those with a name.
        example: where the error sends readers for a sound one.

    Raises:
        UserError: there is none, or it is no mapping in YAML.
    """
    path, title, names = Path(name_or_file), kind.capitalize(), declared(folder)
    if path.suffix in (".yaml", ".yml"):
        remedy = f"Give an existing YAML file, or one of: {', '.join(names)}."
        try:
            if not path.is_file():
                raise UserError(f"{title} file {name_or_file!r} does not exist. {remedy}")
            text = path.read_text(encoding="utf-8", errors="replace")
        except (
            OSError,
            ValueError,
        ) as error:  # a name too long, or with a null byte; a file that may not be read
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
            f"{title} {name_or_file!r} is not valid YAML: {error}. Mend it; {example} shows what a sound one is like."
        ) from None
    if not isinstance(data, dict):
        raise UserError(
            f"{title} {name_or_file!r} holds {type(data).__name__}, not a mapping of fields. See {example}."
        )
    return data


def read_value(assignment: str) -> Any:
    """The YAML value of an assignment `name=value` on the command line.

    Raises:
        UserError: it is not valid YAML.
    """
    text = assignment.partition("=")[2]
    try:
        return _parsed(text)
    except ValueError as error:
        allowed = "Give a number, true, false, a word or a list such as [1, 2]; text with other signs wants quotes of its own"
        said = f"--set {shortened(assignment)}: the value {shortened(text)} is not valid YAML: {error}."
        raise UserError(f"{said} {allowed}: '\"...\"'.") from None


class _OnceLoader(yaml.SafeLoader):
    """Loads YAML and refuses a key that stands twice in one mapping; YAML's own loader lets the
    last one win.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # `<<` merges add keys that the mapping's own may override, so look before the merge
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    raise ValueError(
                        f"the key {shortened(key.value)} stands twice, on lines {lines[name]} "
                        f"and {line}"
                    )
                lines[name] = line
        super().flatten_mapping(node)


def _parsed(text: str) -> Any:
    """What YAML text says.

    Raises:
        ValueError: it is not valid. PyYAML itself lets pass whatever dates, numbers and its own
            tables raise.
    """
    try:
        data = yaml.load(text, Loader=_OnceLoader)
        repr(data)  # a number of thousands of digits could be named in no error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from None
    except Exception as error:
        raise ValueError(
            f"a value does not fit its tag ({type(error).__name__}: {error})"[:300]
        ) from None
    return data
