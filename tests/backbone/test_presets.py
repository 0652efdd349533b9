"""Presets of the decoder: their sizes, and a run on shapes alone."""

import pytest
import torch

from bench.backbone.decoder import Decoder
from bench.backbone.presets import PRESETS, decoder_config
from bench.errors import UserError
from bench.routing.load_routers import find
from tests.world import run_of


@pytest.mark.parametrize(
    ("preset", "vocab_size", "millions", "tolerance"),
    [
        ("4m", 257, 4.0, 0.1),
        ("1m", 257, 1.0, 0.12),
        ("paper", 50257, 157.5, 0.005),
        ("30m", 4096, 30.0, 0.02),
        ("tiny", 256, 0.297, 0.01),
    ],
)
def test_presets_have_the_size_they_claim(
    preset: str, vocab_size: int, millions: float, tolerance: float
) -> None:
    config = decoder_config(preset, vocab_size, 128)
    with torch.device("meta"):
        decoder = Decoder(config)
    d, layers, width = config.d_model, config.num_layers, config.ffn_width
    assert sum(p.numel() for p in decoder.parameters()) == 2 * vocab_size * d + layers * (
        4 * d * d + 3 * d * width
    )
    assert sum(p.numel() for p in decoder.parameters()) == pytest.approx(
        millions * 1e6, rel=tolerance
    )


def test_the_paper_preset_runs_on_shapes_alone() -> None:
    config = decoder_config("paper", 50257, 256)
    with torch.device("meta"):
        routers = {1: [find("top2_moe").make({})]}
        decoder = Decoder(config, routers, expert_width=100)
        assert decoder.layers[1].ffn.bank.gate.shape == (8, 100, 768)
        out = Decoder(config)(run_of(torch.zeros(2, 256, dtype=torch.long), generator=None))
    assert out.shape == (2, 256, 50257)


def test_an_unknown_preset_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"Unknown backbone preset 'tinny'.*Did you mean 'tiny'"):
        decoder_config("tinny", 256, 128)
    widths = {"tiny-32", "tiny-48", "tiny-96"}
    assert set(PRESETS) == {"tiny", *widths, "wide", "1m", "4m", "30m", "paper"}
