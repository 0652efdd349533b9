"""How often tokens take the path of their label, in supervised documents and in the others."""

from unittest.mock import patch

import numpy as np
import pytest
from torch import Tensor

from bench.config.suite import EvaluationConfig
from bench.evaluation.supervision import measure_supervision
from bench.routing.contract import LayerTrace, Router
from bench.training.supervision import supervised_documents
from tests import world

NAME = "partially_supervised"


def test_supervision_is_learnt_and_charged() -> None:
    options = {"share": 1.0, "weight": 5.0}
    model = world.model(NAME, options)
    world.fit(model, 60)
    config = EvaluationConfig(validation_windows=32)
    after = measure_supervision(model, world.split(), world.SEQ_LEN, config, 0)
    before = measure_supervision(
        world.model(NAME, options), world.split(), world.SEQ_LEN, config, 0
    )
    assert all(
        late.supervised > early.supervised + 0.1
        for late, early in zip(after, before, strict=True)
        if late.supervised and early.supervised
    )
    assert [monitor.layer for monitor in after] == [1, 2, 3]
    first = world.model(NAME, options)
    world.fit(first, 1)
    assert model.ledger.spent["labels/forward"] == 60 * first.ledger.spent["labels/forward"] > 0


def test_labels_of_supervised_and_other_documents_are_counted_apart() -> None:
    model, split = world.model(NAME, {"share": 0.3}), world.split()
    chosen = supervised_documents(len(split.document_tags), 0.3)

    def label(self: Router, trace: LayerTrace) -> Tensor:
        """The chosen path; but in domain 0, which is the first third of the ids, the other path."""
        return (
            trace.plan.mask[..., 1] ^ (trace.inputs.tokens < world.CONFIG.vocab_size // 3)
        ).long()

    with patch.object(type(model.decoder.routers[0]), "label", label):
        found = measure_supervision(
            model,
            split,
            world.SEQ_LEN,
            EvaluationConfig(validation_windows=10_000, batch_size=64),
            0,
        )
    size = world.SEQ_LEN + 1
    right: dict[bool, list[bool]] = {True: [], False: []}
    for start, stop in split.domain_ranges:
        for first in range(start, stop - size + 1, size):
            for place in range(first, first + size - 1):
                right[bool(chosen[split.document[place]])].append(
                    int(split.tokens[place]) >= world.CONFIG.vocab_size // 3
                )
    for monitor in found:
        assert monitor.documents == int(chosen.sum())
        assert monitor.supervised == pytest.approx(np.mean(right[True]))
        assert monitor.unsupervised == pytest.approx(np.mean(right[False]))
    assert (
        measure_supervision(
            world.model(NAME, {"share": 0.0}), split, world.SEQ_LEN, EvaluationConfig(), 0
        )
        == ()
    )
