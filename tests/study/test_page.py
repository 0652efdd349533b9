"""Pages from synthetic records."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

from bench.cli import build_parser
from bench.commands.write_leaderboard import page_files, stale_pages
from bench.record import read_record, read_records, write_record
from tests.study import made


def page(folder: Path) -> str:
    return page_files(made.study(), folder)[0]


def find(text: str, *parts: str) -> str:
    """The one line that holds all the parts."""
    (line,) = [line for line in text.splitlines() if all(part in line for part in parts)]
    return line


def edit(folder: Path, name: str, **changes: object) -> None:
    """Put another record in the place of one."""
    (path,) = [path for path, _ in read_records(folder) if str(path).endswith(name)]
    write_record(read_record(path).model_copy(update=changes), path)


def test_claims_figures_and_verdicts_stand_side_by_side(tmp_path: Path) -> None:
    text = page(made.fill(tmp_path, made.study()))
    assert "At size small, 3 seeds, of 2 claims: 2 reproduced." in text
    assert "**reproduced**" in find(
        text, "The gate beats random choice.", "(https://arxiv.org/abs/2604.17228)", "1 nats"
    )
    assert (
        len(re.findall(r"\| `(half|quarter)` +\| loss +\| `mlp_gate` +\| `random@ffn`", text)) == 2
    )
    assert "Scope: None at all." in text and "predicted core-minutes" in text


def test_names_in_purpose_and_scope_are_code_and_nothing_else_is_markup(tmp_path: Path) -> None:
    text = page_files(made.study(purpose="Does `mod` win?", scope="`a b` and *c*"), tmp_path)[0]
    assert "Does `mod` win?" in text and "Scope: &#96;a b&#96; and &#42;c&#42;" in text


def test_what_is_found_is_the_mean_difference_of_the_records(tmp_path: Path) -> None:
    folder = made.fill(tmp_path, made.study())
    losses = {(r.cell.row, r.cell.seed): r.loss for _, r in read_records(folder / "small" / "half")}
    mean = fmean(losses["mlp_gate", seed] - losses["random@ffn", seed] for seed in range(3))
    line = find(page(folder), "`half`", "`mlp_gate` ", "`random@ffn`")
    assert f"−{abs(mean):.4f} [" in line and "3/3" in line


def test_the_bytes_depend_on_nothing_but_declaration_and_records(tmp_path: Path) -> None:
    first, second = (made.fill(tmp_path / place, made.study()) for place in ("here", "over/there"))
    (page, drawn), (again, redrawn) = (page_files(made.study(), at) for at in (first, second))
    assert page == again and drawn.keys() == redrawn.keys()
    assert all(drawn[name].standalone() == redrawn[name].standalone() for name in drawn)


def test_a_page_names_a_command_of_its_own_tree(tmp_path: Path) -> None:
    folder = made.fill(tmp_path, made.study())
    (command,) = re.findall(
        r"Made by `(python -m bench study [^`]+)`, in this folder", page(folder)
    )
    given = shlex.split(command)[3:]
    arguments = build_parser(given).parse_args(given)
    assert arguments.render and (folder / arguments.out).resolve() == tmp_path.resolve()


def test_cells_without_a_record_are_named_and_claim_nothing(tmp_path: Path) -> None:
    folder = made.fill(tmp_path, made.study())
    for path, record in list(read_records(folder)):
        if record.cell.row == "mlp_gate@wide" and record.cell.seed > 0:
            path.unlink()
    text = page(folder)
    assert "- `mlp_gate@wide` in `half`: no record of seeds 1-2." in text
    assert "| open " in find(text, "= (margin 0.0200)")
    assert "inconclusive" in find(text, "Width does not matter.")
    assert "1 of 3 seeds have the measure in both rows" in text


def test_a_study_that_was_not_run_has_a_page(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "**Not run yet.**" in text and "made-up --size full" in text


def test_a_failed_cell_is_told_and_its_row_wins_nothing(tmp_path: Path) -> None:
    folder = made.fill(tmp_path, made.study())
    edit(
        folder / "small" / "half",
        "mlp_gate/b50-flops/seed-1.json",
        status="failed",
        reason="the loss is nan",
        loss=None,
    )
    text = page(folder)
    assert "failed: seed 1: the loss is nan" in text
    assert "inconclusive" in find(text, "The gate beats random choice.")
    assert "a cell failed, broke a rule or did not reach the loss, so nothing is claimed" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"provenance": {"data_hash": "other"}}, "data other, the board has da7a"),
        ({"provenance": {"commit": "4444"}}, ""),
    ],
)
def test_records_of_other_conditions_stand_apart(tmp_path: Path, changes: dict, said: str) -> None:
    folder = made.fill(tmp_path, made.study())
    other = made.one(made.study(), "half", "mlp_gate", 2, **changes)
    write_record(other, folder / "small/half/quick/mlp_gate/b50-flops/seed-2.json")
    text = page(folder)
    assert ("seeds 2, is left out" in text) == bool(said)
    assert said in text


def test_a_record_of_other_options_is_no_cell_of_the_study(tmp_path: Path) -> None:
    folder = made.fill(tmp_path, made.study())
    rows = made.data()["rows"]
    rows[1]["options"] = {"width_ratio": 0.75}
    text, _ = page_files(made.study(rows=rows), folder)
    assert (
        "`mlp_gate@wide` in `half`, seeds 0-2, is left out: the row was run with other options."
        in text
    )
    assert "not run" in find(text, "Width does not matter.")


def test_a_record_compared_with_another_row_elsewhere_is_a_cell_of_the_study(
    tmp_path: Path,
) -> None:
    folder = made.fill(tmp_path, made.study())
    rows = made.data()["rows"]
    rows[1]["control"] = "mlp_gate"
    text, _ = page_files(made.study(rows=rows), folder)
    assert "left out" not in text


def test_both_sizes_stand_on_the_page(tmp_path: Path) -> None:
    made.fill(tmp_path, made.study())
    text = page(made.fill(tmp_path, made.study(), "full"))
    assert "verdict, small" in text and "verdict, full" in text and "At size full, 6 seeds" in text


def test_a_page_that_was_changed_is_told(tmp_path: Path) -> None:
    declared = made.write_file(tmp_path / "made-up.yaml")
    folder = made.fill(tmp_path, made.study())
    text, figures = page_files(made.study(), folder)
    (folder / "README.md").write_text(text, encoding="utf-8")
    for name, figure in figures.items():
        (folder / name).write_text(figure.standalone(), encoding="utf-8")
    assert stale_pages(tmp_path, str(declared)) == []
    readme = folder / "README.md"
    readme.write_text(
        readme.read_text(encoding="utf-8").replace("reproduced", "disproved"), encoding="utf-8"
    )
    (folder / "small-half-losses.svg").unlink()
    told = "\n".join(stale_pages(tmp_path, str(declared)))
    assert "disproved" in told
    assert "small-half-losses.svg does not agree with its records" in told


def test_another_drawing_of_the_same_data_is_fresh(tmp_path: Path) -> None:
    declared = made.write_file(tmp_path / "made-up.yaml")
    folder = made.fill(tmp_path, made.study())
    text, figures = page_files(made.study(), folder)
    (folder / "README.md").write_text(text, encoding="utf-8")
    for name, figure in figures.items():
        svg = figure.standalone().replace("stroke-width:1.75", "stroke-width:2")
        (folder / name).write_text(svg, encoding="utf-8")
    assert stale_pages(tmp_path, str(declared)) == []
    (path,) = folder.glob("*half-losses.svg")
    digest = figures[path.name].digest
    path.write_text(path.read_text("utf-8").replace(digest, "0" * 64), encoding="utf-8")
    (folder / "extra.svg").write_text("old", encoding="utf-8")
    told = stale_pages(tmp_path, str(declared))
    assert [Path(line.split(" ")[0]).name for line in told] == [path.name, "extra.svg"]


def test_names_from_records_cannot_disturb_the_page(tmp_path: Path) -> None:
    folder = made.fill(tmp_path, made.study(), provenance={"processor": "a | b\n# c <script>"})
    text = page(folder)
    assert "<script>" not in text and "\n# c" not in text


def test_the_page_half_loads_no_torch() -> None:
    code = (
        "import sys, bench.study.page, bench.study.results, bench.study.read_study, "
        "bench.commands.study; print('torch' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )
