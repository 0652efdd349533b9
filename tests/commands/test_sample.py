"""`bench sample`: text from kept weights, and one line for bad input."""

from pathlib import Path

import pytest

from bench.cli import main
from bench.record import read_record, write_record

ROW = ["--suite", "tiny.yaml"]


@pytest.fixture(scope="module")
def kept(elsewhere: Path) -> Path:
    """A tree of records with the weights of two rows."""
    from tests import world

    folder = elsewhere / "kept"
    folder.mkdir()
    suite = world.write_suite(folder / "tiny.yaml", elsewhere / "text.jsonl")
    chosen = ["--routers", "mlp_gate,mod", "--seeds", "1", "--workers", "0", "--keep-weights"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(elsewhere / "cache"))
        patch.chdir(folder)
        assert main(["run", "--suite", str(suite), *chosen]) == 0
    return folder / "runs"


def sampled(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    """Return the stdout and stderr of `bench sample`."""
    capsys.readouterr()
    assert main(["sample", *arguments]) == code
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_a_prompt_is_continued_by_seed(
    place: Path, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ["mod", *ROW, "--results", str(kept), "--prompt", "abc def", "--tokens", "20"]
    first, again = (sampled(capsys, *row)[0] for _ in range(2))
    assert first == again and first.startswith("abc def")
    assert sampled(capsys, *row, "--seed", "1")[0] != first
    greedy = [sampled(capsys, *row, "--temperature", "0", "--seed", seed)[0] for seed in "12"]
    assert greedy[0] == greedy[1]
    # Sampling among one token is taking the most probable one.
    assert sampled(capsys, *row, "--top-k", "1")[0] == greedy[0]


def test_a_record_names_its_model_and_several_are_shown_in_order(
    place: Path, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = next((kept / "tiny" / "mod").rglob("seed-0.json"))
    common = ["--prompt", "abc", "--tokens", "4"]
    alone, _ = sampled(capsys, str(file), *common)
    both, _ = sampled(capsys, str(file), "mlp_gate", *ROW, "--results", str(kept), *common)
    assert both.startswith(f"mod seed 0\n{alone}") and "\nmlp_gate seed 0\nabc" in both


def test_paths_are_shown_for_every_token(
    place: Path, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ["mlp_gate", *ROW, "--results", str(kept), "--prompt", "abc", "--tokens", "5", "--paths"]
    head, _, *lines = sampled(capsys, *row)[0].splitlines()
    assert head.split("  ")[0] == "token" and "layer 1 ffn" in head and "layer 2 ffn" in head
    assert len(lines) <= 8 and lines[0].startswith("'a'")
    for line in lines[:-1]:
        assert set(line.split()[-2:]) <= {"cheap", "full"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--prompt", ""], "--prompt is empty"),
        (["--tokens", "0"], "--tokens is 0; it must be at least 1"),
        (["--top-k", "0"], "--top-k is 0; it must be at least 1"),
        (
            ["--tokens", "40"],
            "--tokens is 40; the model has 32 positions",
        ),
        (["--temperature", "-1"], "it is '-1'; give a number, 0 or more"),
        (["--domain", "none"], "Unknown domain 'none'"),
        (["--results", "nowhere"], "There are no records in"),
    ],
)
def test_bad_input_is_one_line(
    place: Path, kept: Path, capsys: pytest.CaptureFixture[str], change: list[str], said: str
) -> None:
    row = ["mlp_gate", *ROW, "--results", str(kept), "--prompt", "abc", "--tokens", "4"]
    _, err = sampled(capsys, *row, *change, code=2)
    assert said in err and err.count("\n") == 1


def test_a_record_of_a_gpu_is_refused_where_there_is_none(
    place: Path, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = read_record(next((kept / "tiny" / "mod").rglob("seed-0.json")))
    config = made.provenance.config | {"device": "cuda:99"}
    provenance = made.provenance.model_copy(update={"config": config})
    write_record(made.model_copy(update={"provenance": provenance}), place / "of_a_gpu.json")
    _, err = sampled(capsys, "of_a_gpu.json", "--prompt", "abc", code=2)
    assert "device is 'cuda:99', which this machine does not offer" in err
    assert err.count("\n") == 1


def test_unknown_rows_files_and_missing_weights_are_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [*ROW, "--prompt", "abc", "--tokens", "4"]
    for row, said in (
        ("mlp_gat", "Unknown row 'mlp_gat'. Did you mean 'mlp_gate'?"),
        ("no.json", "There is no record 'no.json'"),
        ("mlp_gate", "No weights of mlp_gate seed 0 are kept"),
    ):
        _, err = sampled(capsys, row, *common, code=2)
        assert said in err and err.count("\n") == 1
