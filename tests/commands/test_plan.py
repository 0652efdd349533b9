"""The numbers of `bench plan`, against sums written out."""

import re
from pathlib import Path

import pytest

from bench.backbone.presets import decoder_config
from bench.cli import main
from bench.data import load_corpus
from tests import world


def test_budget_and_training_flops_are_those_of_the_formula(
    place: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = world.suite(elsewhere / "text.jsonl")
    assert main(["plan", "--suite", "tiny.yaml", "--routers", "mlp_gate,random@ffn"]) == 0
    said = capsys.readouterr().out
    config = decoder_config("tiny", load_corpus(suite.data).vocab_size, suite.seq_len)
    d, layers, routed = config.d_model, config.num_layers, len(suite.routed_layers)
    full, cheap = 6 * d * config.ffn_width, 4 * d * config.cheap_rank
    attention = 8 * d * d + 4 * d * (suite.seq_len + 1) / 2
    fixed = 2 * d * config.vocab_size + layers * attention + (layers - routed) * full
    budget = fixed + routed * (0.5 * full + 0.5 * cheap)
    dense = fixed + routed * full
    line = r"^tiny: B = ([\d,]+) FLOPs a token, ([\d.]+)% of dense; training (\S+)"
    found = re.search(line, said, re.MULTILINE)
    assert found is not None
    assert int(found[1].replace(",", "")) == round(budget)
    assert float(found[2]) == pytest.approx(100 * budget / dense, abs=0.05)
    assert float(found[3]) == pytest.approx(3 * budget * suite.train.reference_tokens, rel=0.005)
    table, _, prediction = said.rstrip().rpartition("\n\n")
    assert [line.split()[:2] for line in table.splitlines()[-2:]] == [
        ["mlp_gate", "ranked"],
        ["random@ffn", "control"],
    ]
    total = 2 * suite.seeds * 3 * budget * suite.train.reference_tokens
    assert f"training  {total:.3g} FLOPs\n" in prediction
    assert f"\n{2 * suite.seeds} cells at {suite.seeds} seeds\n" in table, "the sum is below"
    assert not (place / "runs").exists()


def test_plan_shows_the_card_of_the_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = world.write_suite(tmp_path / "tiny.yaml", world.write_text(tmp_path))
    assert main(["plan", "--suite", str(suite), "--routers", "mlp_gate"]) == 0
    said = capsys.readouterr().out
    reading, *card = said.partition("\n\n")[0].splitlines()
    assert reading.startswith("reading ") and "text.jsonl" in reading
    assert "1 file, " in card[0] and " bytes per token" in card[0]
    assert card[1] == "left out: nothing"
    assert 4 <= len(card) <= 15
