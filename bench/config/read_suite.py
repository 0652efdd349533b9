"""Read suites, from the YAML files of the bench or of the user.

Every problem is reported in one line.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.config.problems import first_problem
from bench.config.read_yaml import declared, read_declaration, read_value
from bench.config.roles import check_matched
from bench.config.suite import SuiteConfig
from bench.errors import UserError, shortened


def suite_names() -> list[str]:
    """Return the names of the suites that come with the bench."""
    return declared("suites")


def load_suite(
    name_or_file: str, overrides: dict[str, Any] | None = None, assignments: Sequence[str] = ()
) -> SuiteConfig:
    """Read a suite by name or from a YAML file, and change fields of it.

    Args:
        name_or_file: name of a suite of the bench, or path of a YAML file.
        overrides: top-level fields to replace.
        assignments: texts such as `train.batch_size=8`, applied last.

    Raises:
        UserError: no such suite, unreadable YAML, or a field that is unknown or out of range.
    """
    data = read_declaration("suite", name_or_file, "suites", "bench/suites/quick.yaml")
    data = {**data, **_plugins_beside(name_or_file, data), **(overrides or {})}
    suite = parse_suite(_with_dtype(_assign(data, assignments)), name_or_file)
    # A study brings its own rows, and these need not hold the suite's control.
    if "rows" not in (overrides or {}):
        check_matched(suite.comparison.dense_matched, suite.rows)
    return suite


def parse_suite(data: dict[Any, Any], origin: str) -> SuiteConfig:
    """Validate the data of a suite; `origin` names it in the error."""
    try:
        return SuiteConfig.model_validate(data)
    except ValidationError as error:
        raise UserError(f"Suite {origin!r}: {first_problem(error, SuiteConfig)}") from None


def _with_dtype(data: dict[Any, Any]) -> dict[Any, Any]:
    """Replace a `dtype` of `auto` by bfloat16 if the device has instructions for it."""
    if data.get("dtype") != "auto":
        return data
    if str(data.get("device", "cpu")).startswith("cuda"):
        # The import of torch takes longer than all else here.
        import torch

        # A suite for GPUs is also read on machines without one, to plan it.
        native = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(
            including_emulation=False
        )
    else:
        native = bool(bfloat16_instructions())
    return {**data, "dtype": "bfloat16" if native else "float32"}


def bfloat16_instructions() -> str:
    """Return the instructions with which this CPU multiplies in bfloat16, "" without any."""
    import torch

    found = torch.cpu.get_capabilities()
    # torch takes matrix units first; the last name is Arm's.
    return next((name for name in ("amx_bf16", "avx512_bf16", "bf16") if found.get(name)), "")


def _plugins_beside(name_or_file: str, data: dict[Any, Any]) -> dict[str, Any]:
    """Return the field `plugins` with paths relative to the working directory.

    In a suite's file they are relative to that file.
    """
    given = data.get("plugins")
    if not isinstance(given, list) or not all(isinstance(path, str) for path in given):
        # No plugins, or a value that validation refuses.
        return {}
    return {"plugins": [(Path(name_or_file).parent / path).as_posix() for path in given]}


def _assign(data: dict[Any, Any], assignments: Sequence[str]) -> dict[Any, Any]:
    """Set fields by their dotted names. Values are YAML."""
    _refuse_repeats(assignments)
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if not name or not value.strip():
            raise UserError(
                f"--set {assignment!r} assigns nothing: write field=value, e.g. "
                "train.batch_size=8; null means none."
            )
        *parents, last = name.split(".")
        target = data
        # Walk down to the group that holds the field, and copy each group on the way.
        for parent in parents:
            child = target.get(parent) or {}
            if not isinstance(child, dict):
                raise UserError(
                    f"--set {assignment!r}: {parent!r} is not a group of fields. Name one inside a "
                    "group, as train.batch_size=8."
                )
            target[parent] = dict(child)
            target = target[parent]
        target[last] = read_value(assignment)
    named = {assignment.partition("=")[0] for assignment in assignments}
    if "data.path" in named and "data.source" not in named:
        # The suite's source belongs to the suite's own path, so infer the source anew.
        data["data"].pop("source", None)
    return data


def _refuse_repeats(assignments: Sequence[str]) -> None:
    """Refuse a field that is assigned twice, also as a part of a group that comes later."""
    before: dict[str, str] = {}
    for assignment in assignments:
        name = assignment.partition("=")[0]
        for earlier, text in before.items():
            if f"{earlier}.".startswith(f"{name}."):
                raise UserError(
                    f"--set {shortened(text)} and --set {shortened(assignment)} assign the same "
                    "field. Give one of them."
                )
        before[name] = assignment
