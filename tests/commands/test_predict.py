"""The cost of a grid, as `plan` and `--dry-run` show it."""

import re
from pathlib import Path

import pytest

from bench.cli import main
from bench.commands.predict import error_lines
from tests.runner.test_rates import grid


def test_a_dry_run_lists_kept_and_missing_cells_and_writes_nothing(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in runs.rglob("*"))
    arguments = ["--suite", "tiny.yaml", "--routers", "mlp_gate,hash", "--seeds", "2"]
    assert main(["run", *arguments, "--dry-run", "--workers", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split()[:4] for line in lines if re.match("kept|to run", line)]
    assert [" ".join(words) for words in cells] == [
        *("kept mlp_gate seed 0", "kept hash seed 0"),
        *("to run mlp_gate seed", "to run hash seed"),
    ]
    assert "4 cells: 2 kept, 2 to run" in lines
    assert [line.split()[0] for line in lines[-4:]] == ["time", "training", "memory", "disk"]
    assert "for 2 at once" in lines[-4]
    assert sorted(path for path in runs.rglob("*")) == before
    assert main(["run", *arguments[:-1], "1", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 cells: 2 kept, 0 to run"


def test_a_plan_names_its_assumption_or_its_records(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["plan", "--suite", "tiny.yaml", "--routers", "mlp_gate", "--workers", "64"]
    assert main([*plan, "--device", "h100"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"time .*64 at once.*assumed: 20% of the 6\.7e\+13 FLOP/s of h100", said)
    assert "error     unknown" in said
    assert main([*plan, "--device", "k80"]) == 2
    assert "--device is 'k80'" in capsys.readouterr().err


def test_text_from_the_network_is_not_read_for_a_plan(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "data={path: some/text, tokenizer: bpe, vocab_size: 1000}"
    plan = ["plan", "--suite", "tiny.yaml", "--routers", "mlp_gate", "--device", "a100"]
    assert main([*plan, "--set", data]) == 0
    assert "some/text: the text is not read; a vocabulary of 1,000 ids" in capsys.readouterr().out


def test_the_error_is_shown_for_each_suite_with_enough_rows() -> None:
    (line,) = error_lines(grid(noise=0.2))
    found = re.fullmatch(
        r"error     s on made up, each row predicted from the 12 records without it: "
        r"seconds (\d+)% \(at most (\d+)%, row\d+\), memory 0% \(at most 0%, row\d+\)",
        line,
    )
    assert found is not None and 0 < int(found[1]) <= int(found[2]) <= 60
