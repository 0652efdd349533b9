"""The cost of a grid, as `plan` and `--dry-run` show it."""

import re
from pathlib import Path

import pytest
import yaml

from bench.cli import main
from bench.commands.predict import error_lines
from tests import world
from tests.commands.starts import opened
from tests.planning.test_rates import grid

SLURM = ["--executor", "slurm", "--cluster", "cluster=local"]
TIME = r"\d+(\.\d)? (s|min|h)"


def test_a_dry_run_lists_kept_and_missing_cells_and_writes_nothing(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.executors.pool.cores", lambda: 2)
    before = sorted(path for path in runs.rglob("*"))
    arguments = ["--suite", "tiny.yaml", "--routers", "mlp_gate,hash", "--seeds", "2"]
    assert main(["run", *arguments, "--dry-run", "--workers", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [" ".join(line.split()) for line in lines if re.match("kept|to run", line)]
    assert set(cells[:2]) == {"kept mlp_gate seed 0", "kept hash seed 0"}
    missing = [re.fullmatch(rf"to run (\w+ seed 1) {TIME}", line) for line in cells[2:]]
    assert {found and found[1] for found in missing} == {"mlp_gate seed 1", "hash seed 1"}
    assert "4 cells: 2 kept, 2 to run" in lines
    assert [line.split()[0] for line in lines[-4:]] == ["time", "training", "memory", "disk"]
    assert "for 2 at once" in lines[-4]
    assert sorted(path for path in runs.rglob("*")) == before
    assert main(["run", *arguments[:-1], "1", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 cells: 2 kept, 0 to run"
    # Their weights were not kept.
    assert main(["run", *arguments[:-1], "1", "--dry-run", "--keep-weights"]) == 0
    assert "2 cells: 0 kept, 2 to run" in capsys.readouterr().out.splitlines()


def three_rows(place: Path) -> list[str]:
    """Write a suite whose rows train on the same tokens, the cheapest first."""
    roles = {"cheap": "bracket", "dense_matched": "control", "dense": "bracket"}
    rows = [{"name": name, "role": role} for name, role in roles.items()]
    text = yaml.safe_load((place / "tiny.yaml").read_text(encoding="utf-8"))["data"]["path"]
    world.write_suite(place / "three.yaml", Path(text), rows=rows, match="tokens")
    return ["run", "--suite", "three.yaml", "--seeds", "2"]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_dry_run_has_the_order_and_the_workers_of_the_run(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    """A row that costs more takes longer. One worker ends a seed first, four hold a whole seed."""
    command, starts = three_rows(place), opened(monkeypatch, workers)
    assert main([*command, "--executor", "slurm", "--cluster", "mem_gb=4", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(rf"to run  (\w+ seed \d) +{TIME}", line) for line in lines]
    dear = ("dense", "dense_matched", "cheap")
    by_seed = [f"{row} seed {seed}" for seed in range(2) for row in dear]
    by_cost = [f"{row} seed {seed}" for row in dear for seed in range(2)]
    order = [one[1] for one in found if one]
    assert order == (by_seed if workers == 1 else by_cost)
    assert f"for {workers} at once" in lines[-4]
    assert not starts.names and not Path("runs").exists()
    assert main([*command, "--executor", "slurm", "--cluster", "mem_gb=4"]) == 1
    assert starts.chosen == ("slurm", None, "cpu", {"mem_gb": 4}, Path("runs"))
    assert set(starts.names) == set(order)
    # Several threads of one run start their cells at the same time.
    assert workers > 1 or starts.names == order


def test_a_dry_run_of_slurm_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr("bench.executors.slurm_executor.cores", lambda: 3)
    assert main([*three_rows(place), *SLURM, "--workers", "3", "--dry-run"]) == 0
    assert "for 3 at once" in capsys.readouterr().out
    assert not Path("runs").exists()


def test_the_default_is_all_gpus_or_all_cores(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("bench.executors.pool.cores", lambda: 5)
    monkeypatch.setattr("bench.commands.run.check_device", lambda *_, **__: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    row = ["--suite", "tiny.yaml", "--routers", "mlp_gate"]
    for command, count in {
        ("run", "--dry-run"): 5,
        ("run", "--dry-run", "--device", "cuda"): 3,
        ("run", "--dry-run", "--device", "cuda:1"): 1,
        ("run", "--dry-run", "--workers", "0"): 1,
        ("run", "--dry-run", "--workers", "64"): 5,
        ("plan",): 5,
        ("plan", "--set", "device=cuda"): 3,
        ("plan", "--device", "cpu"): 5,
        ("plan", "--device", "h100"): 1,
        ("plan", "--workers", "64"): 64,
    }.items():
        assert main([*command, *row]) == 0
        assert f"for {count} at once" in capsys.readouterr().out, command


def test_errors_of_other_devices_are_marked(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.planning.rates.read_measured", lambda *_: grid(noise=0.2))
    plan, said = ["plan", "--suite", "tiny.yaml", "--routers", "mlp_gate", "--device"], {}
    for device in ("h100", "cpu"):
        assert main([*plan, device]) == 0
        (said[device],) = re.findall(r"^error .*$", capsys.readouterr().out, re.MULTILINE)
    assert "s on made up" in said["cpu"] and said["cpu"].endswith(")")
    note = "; there are no records of h100 in float32, so its error is unknown"
    assert said["h100"] == said["cpu"] + note


def test_a_plan_names_its_assumption_or_its_records(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["plan", "--suite", "tiny.yaml", "--routers", "mlp_gate", "--workers", "64"]
    assert main([*plan, "--device", "h100"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"time .*64 at once.*assumed: 20% of the 6\.7e\+13 FLOP/s of h100", said)
    assert "error     unknown" in said
    assert main([*plan, "--device", "k80"]) == 2
    out, err = capsys.readouterr()
    assert "--device is 'k80'" in err and not out, "before any row is sized"


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
        r"training seconds (\d+)% \(at most (\d+)%, row\d+\), memory 0% \(at most 0%, row\d+\)",
        line,
    )
    assert found is not None and 0 < int(found[1]) <= int(found[2]) <= 60
