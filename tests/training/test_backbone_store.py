"""Files of backbones: the same weights come back, or none."""

from pathlib import Path

import pytest
import torch

from bench.training.backbone_store import Pretrained, read_backbone, write_backbone

FOUND = Pretrained({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(1)}, flops=0.1 + 0.2)


def test_a_backbone_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    write_backbone(tmp_path / "b.safetensors", FOUND)
    again = read_backbone(tmp_path / "b.safetensors")
    assert again is not None and again.flops == FOUND.flops
    assert again.weights.keys() == FOUND.weights.keys()
    assert all(torch.equal(weight, FOUND.weights[name]) for name, weight in again.weights.items())
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"]


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    assert read_backbone(tmp_path / "b.safetensors") is None


@pytest.mark.parametrize("place", [5, -1])
def test_a_damaged_file_is_set_aside(tmp_path: Path, place: int) -> None:
    path = tmp_path / "b.safetensors"
    write_backbone(path, FOUND)
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    assert read_backbone(path) is None
    assert [found.name for found in tmp_path.iterdir()] == ["damaged-b.safetensors"]
