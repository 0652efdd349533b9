"""Read studies, from the YAML files of the bench or of the user.

Every problem is reported in one line.
"""

import json
from typing import Any

from pydantic import ValidationError

from bench.config.problems import first_problem
from bench.config.read_suite import load_suite
from bench.config.read_yaml import declared, read_declaration
from bench.config.suite import SuiteConfig
from bench.errors import UserError
from bench.study.config import Setting, Size, StudyConfig

_LENGTHS = ("tokens", "windows", "seq_len", "probes")
"""Endings of fields for the length of a cell and of its evaluation. A study may not lower them."""


def study_names() -> list[str]:
    """Return the names of the studies that come with the bench."""
    return declared("studies")


def load_study(name_or_file: str) -> StudyConfig:
    """Read a study by name or from a YAML file.

    Raises:
        UserError: no such study, unreadable YAML, or a field that is unknown or out of range.
    """
    data = read_declaration("study", name_or_file, "studies", "bench/studies/")
    try:
        return StudyConfig.model_validate(data)
    except ValidationError as error:
        raise UserError(f"Study {name_or_file!r}: {first_problem(error, StudyConfig)}") from None


def suites_of(study: StudyConfig, size: Size) -> dict[str, SuiteConfig]:
    """Return setting -> suite of its cells, with the study's rows and replaced fields.

    Raises:
        UserError: no such suite, an unknown field, or a field that would make a cell shorter than
            the suite's.
    """
    found: dict[str, SuiteConfig] = {}
    for name, rows in study.grid(size).items():
        setting = setting_at(study, size, name)
        _refuse_shorter(study, setting)
        # Fields are replaced in the same way as by `--set` on the command line.
        listed = [row.plain().model_dump(mode="json", exclude_unset=True) for row in rows]
        if setting.set.get("dtype") == "auto":
            raise UserError(
                f"Study {study.name!r} sets dtype to 'auto', which differs between machines. Write "
                "float32 or bfloat16."
            )
        assignments = [f"{field}={json.dumps(value)}" for field, value in setting.set.items()]
        found[name] = load_suite(setting.suite, {"rows": listed, "seeds": size.seeds}, assignments)
    return found


def setting_at(study: StudyConfig, size: Size, name: str) -> Setting:
    """Return a setting with the changes of a size."""
    setting = study.settings[name]
    return Setting(suite=size.suites.get(name, setting.suite), set={**setting.set, **size.set})


def value_at(data: Any, field: str) -> Any:
    """Return the value at a dotted field of plain data, or None."""
    # A missing group on the way gives None, as a missing field does.
    for part in field.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _refuse_shorter(study: StudyConfig, setting: Setting) -> None:
    # With another backbone a token costs otherwise, so that lengths in tokens say nothing.
    if "backbone" in setting.set:
        return
    # Compare with the suite as it is committed, before the study's own changes.
    whole = load_suite(setting.suite).model_dump(mode="json")
    for field, value in setting.set.items():
        own = value_at(whole, field)
        if (
            field.endswith(_LENGTHS)
            and isinstance(own, int | float)
            and isinstance(value, int | float)
            and value < own
        ):
            raise UserError(
                f"Study {study.name!r} sets {field} to {value}, and the suite {setting.suite!r} "
                f"has {own}: a study's cells are never shorter than its suite's. Cut rows or "
                "settings instead."
            )
