"""A small study and synthetic records of it."""

import copy
from pathlib import Path
from typing import Any

import yaml

from bench.record import Record, record_path, write_record
from bench.study.config import StudyConfig
from bench.study.read_study import suites_of
from bench.study.results import study_folder
from tests.board.synthetic import Kind, record

DATA: dict[str, Any] = {
    "name": "made-up",
    "title": "Does the gate do what it says?",
    "purpose": "To test pages.",
    "scope": "None at all.",
    "settings": {
        "half": {"suite": "quick"},
        "quarter": {"suite": "quick", "set": {"budget": 0.25}},
    },
    "rows": [
        {"name": "mlp_gate", "about": "the gate"},
        {"name": "mlp_gate@wide", "options": {"width_ratio": 0.5}},
        {"name": "random@ffn", "role": "control", "options": {"over": "ffn"}},
    ],
    "claims": [
        {
            "text": "The gate beats random choice.",
            "source": "arXiv:2604.17228",
            "figure": "0.1 nats",
            "comparisons": [
                {"row": "mlp_gate", "control": "random@ffn", "expect": "lower", "figure": "−0.1"}
            ],
        },
        {
            "text": "Width does not matter.",
            "source": "this bench",
            "comparisons": [
                {
                    "row": "mlp_gate@wide",
                    "control": "mlp_gate",
                    "expect": "equal",
                    "margin": 0.02,
                    "settings": ["half"],
                }
            ],
        },
    ],
    "sizes": {"small": {"seeds": 3, "core_minutes": 18}, "full": {"seeds": 6, "core_minutes": 36}},
}
TRUE = {"mlp_gate": 2.08, "mlp_gate@wide": 2.08, "random@ffn": 2.17}


def data(**changes: Any) -> dict[str, Any]:
    """The declaration as YAML would give it; `changes` replace top-level fields."""
    return copy.deepcopy(DATA) | changes


def study(**changes: Any) -> StudyConfig:
    """The declaration, validated."""
    return StudyConfig.model_validate(data(**changes))


def write_file(path: Path, **changes: Any) -> Path:
    """The declaration as a file."""
    path.write_text(
        yaml.safe_dump(data(**changes), allow_unicode=True, sort_keys=False), encoding="utf-8"
    )
    return path


def one(
    declared: StudyConfig, setting: str, row: str, seed: int, size: str = "small", **changes: Any
) -> Record:
    """A record of one cell; `spread` and whatever else `tests.board.synthetic.record` takes."""
    suite = suites_of(declared, declared.size(size))[setting]
    config = suite.canonical()
    chosen = suite.row(row)
    kind = Kind(row, TRUE[row], chosen.role)
    cell = {"suite": suite.name}
    return record(
        kind,
        seed,
        budget=suite.budget,
        cell=cell,
        row=chosen.replicas()[0],
        provenance={"config": config, **changes.pop("provenance", {})},
        **changes,
    )


def both(
    declared: StudyConfig, setting: str, row: str, seed: int, losses: tuple[float, ...]
) -> list[Record]:
    """Records of one seed, a loss for each router seed that is declared."""
    made = one(declared, setting, row, seed)
    return [
        made.model_copy(update={"row": replica, "loss": loss})
        for replica, loss in zip(
            suites_of(declared, declared.size("small"))[setting].row(row).replicas(),
            losses,
            strict=True,
        )
    ]


def fill(out: Path, declared: StudyConfig, size: str = "small", **changes: Any) -> Path:
    """Every cell of one size, below `out`; returns the study's folder."""
    folder = study_folder(out, declared.name)
    definition = declared.size(size)
    for setting, rows in declared.grid(definition).items():
        for row in rows:
            for seed in definition.numbers:
                made = one(declared, setting, row.name, seed, size, **copy.deepcopy(changes))
                write_record(made, record_path(folder / size / setting, made.cell))
    return folder
