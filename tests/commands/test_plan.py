from pathlib import Path

import pytest

from bench.cli import main
from tests import tiny


def test_plan_shows_the_card_of_the_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tiny.write_suite(tmp_path / "tiny.yaml", tiny.write_text(tmp_path))
    assert main(["plan", "--suite", str(suite), "--routers", "mlp_gate"]) == 0
    said = capsys.readouterr().out
    card = said.partition("\n\n")[0].splitlines()
    assert "1 file, " in card[0] and " bytes per token" in card[0]
    assert card[1] == "left out: nothing"
    assert 4 <= len(card) <= 15
