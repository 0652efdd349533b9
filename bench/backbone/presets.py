"""Define the named sizes of the decoder."""

from bench.backbone.decoder import DecoderConfig
from bench.errors import unknown

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 64, "num_layers": 4, "num_heads": 2, "ffn_width": 256, "cheap_rank": 8},
    "tiny-32": {"d_model": 32, "num_layers": 4, "num_heads": 1, "ffn_width": 128, "cheap_rank": 4},
    "tiny-48": {"d_model": 48, "num_layers": 4, "num_heads": 2, "ffn_width": 192, "cheap_rank": 6},
    "tiny-96": {"d_model": 96, "num_layers": 4, "num_heads": 3, "ffn_width": 384, "cheap_rank": 12},
    "wide": {"d_model": 64, "num_layers": 2, "num_heads": 2, "ffn_width": 512, "cheap_rank": 4},
    "1m": {"d_model": 128, "num_layers": 4, "num_heads": 4, "ffn_width": 512, "cheap_rank": 16},
    "4m": {"d_model": 256, "num_layers": 4, "num_heads": 4, "ffn_width": 1024, "cheap_rank": 16},
    "30m": {"d_model": 512, "num_layers": 8, "num_heads": 8, "ffn_width": 1408, "cheap_rank": 16},
    "paper": {
        "d_model": 768,
        "num_layers": 12,
        "num_heads": 12,
        "ffn_width": 1872,
        "cheap_rank": 16,
    },
}
"""tiny: seconds per cell on one core. tiny-32 to tiny-96: the same at other widths, for questions
about the best size at a training budget. wide: as tiny, with most parameters in its two FFNs, for
the planted task. 1m and 4m: about as many parameters besides embedding and head. 30m: about 30M
parameters with a vocabulary of 4096. paper: 157.5M parameters with GPT-2's vocabulary of 50257, the
size of arXiv:2604.17228, which does not publish its layout.
"""


def decoder_config(
    preset: str, vocab_size: int, max_seq_len: int, qk_gain: bool = False
) -> DecoderConfig:
    """Return the configuration of a named size for a vocabulary and a context length."""
    if preset not in PRESETS:
        raise unknown("backbone preset", preset, PRESETS)
    return DecoderConfig(
        vocab_size=vocab_size, max_seq_len=max_seq_len, qk_gain=qk_gain, **PRESETS[preset]
    )
