"""Parse options of a router on the command line: `--routers mlp_gate:width_ratio=0.5:depth=2`."""

import re
from typing import Any

from bench.config.read_yaml import read_value
from bench.config.row import RowConfig
from bench.errors import UserError

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.@+=-]+")


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """Split the name of a row from the options after it.

    Args:
        text: a name, then any number of `:option=value`. Values are YAML.

    Raises:
        UserError: a part without a name or a value, a repeated option, or invalid YAML.
    """
    name, *parts = text.split(":")
    options: dict[str, Any] = {}
    for part in parts:
        option, _, value = part.partition("=")
        # An empty value would be YAML's null, which nobody means.
        if not option or not value:
            raise UserError(
                f"--routers {text!r}: {part!r} sets no option. Write name:option=value, "
                "e.g. mlp_gate:width_ratio=0.5."
            )
        if option in options:
            raise UserError(f"--routers {text!r} sets {option!r} twice. Give it once.")
        options[option] = read_value(part)
    return name, options


def with_options(row: RowConfig, options: dict[str, Any]) -> RowConfig:
    """Return a row with further options, named after them: `mlp_gate@width_ratio=0.5`.

    A control that the row names is dropped, since the options may change the paths.
    """
    if not options:
        return row
    # Records are files named after their row, so other characters become dashes.
    said = "+".join(f"{name}={value}" for name, value in options.items())
    suffix = _NOT_IN_A_NAME.sub("-", said)
    merged = {**row.options, **options}
    name = f"{row.name}@{suffix}"
    return row.model_copy(update={"name": name, "options": merged, "control": ""})
