"""Causal probes: their windows and their results."""

from pathlib import Path

import numpy as np
import torch

from bench.model.assemble import assemble
from bench.runner.probes import Watch, cut
from bench.runner.resolve import resolve
from tests import world


def watch(text: Path) -> Watch:
    resolved = resolve(world.cell(text))
    return Watch(resolved, assemble(resolved.blueprint(), 0))


def test_windows_are_of_the_split_that_was_asked_for_and_stay_the_same(text: Path) -> None:
    resolved = resolve(world.cell(text))
    calibration, validation = (cut(resolved, split, 3) for split in ("calibration", "validation"))
    for found, split in (
        (calibration, resolved.corpus.calibration),
        (validation, resolved.corpus.validation),
    ):
        held_out = split.tokens.tobytes()
        assert all(line.astype(split.tokens.dtype).tobytes() in held_out for line in found.tokens)
        assert np.bincount(found.tags).tolist() == [3, 3] and found.tokens.shape[1] == 33
    assert not np.array_equal(calibration.tokens, validation.tokens)
    assert np.array_equal(cut(resolved, "validation", 3).tokens, validation.tokens)


def test_a_probe_leaves_weights_alone_and_keeps_losses_and_plans(text: Path) -> None:
    found = watch(text)
    before = {name: part.clone() for name, part in found.model.decoder.named_parameters()}
    found.probe(step=1, tokens=128, flops=2.0, seconds=0.5, train_loss=5.0)
    assert all(
        torch.equal(part, before[name]) for name, part in found.model.decoder.named_parameters()
    )
    (point,) = found.curve
    assert (point.step, point.tokens, point.flops, point.train_loss) == (1, 128, 2.0, 5.0)
    assert abs(point.loss - np.log(256)) < 1, "an untrained model knows nothing of bytes"
    assert {site: len(masks) for site, masks in found.masks.items()} == {0: 1, 1: 1}


def test_a_state_gives_back_what_the_probes_found(text: Path) -> None:
    first, second = watch(text), watch(text)
    first.probe(step=1, tokens=128, flops=2.0, seconds=0.5, train_loss=5.0)
    second.load_state_dict(first.state_dict())
    assert second.curve == first.curve and second.masks == first.masks
