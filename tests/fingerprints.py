"""Losses and FLOPs of each router, and of each row of a suite or study, in a few steps, kept in
`fingerprints.json`.

    python -m tests.fingerprints        write the file anew

Do that only for a router or row that is new, or that was meant to move: the file is there so that
no change of numerics goes unseen. Entries whose losses agree within `LOSS_TOLERANCE` and whose
other figures are equal stay as they are, so that another processor retires no record.
"""

import json
from typing import Any

import numpy as np

from bench.backbone.decoder import DecoderConfig
from bench.config.read_suite import load_suite, suite_names
from bench.config.row import RouterTraining
from bench.data import Split, windows
from bench.evaluation.evaluate import evaluate
from bench.record import RULES_VERSION
from bench.routing.fingerprint import FINGERPRINTS, row_name
from bench.routing.load_routers import find, load_all
from bench.routing.registry import Entry
from bench.study.read_study import load_study, study_names
from tests import world

PATH = FINGERPRINTS
LOSS_TOLERANCE = 1e-6
"""Relative.

Processors and instruction sets that sum in another order move these losses by 2e-7 at most; a
z-loss of a third of its weight moves them by 1e-5, a momentum of 0.94 instead of 0.95 by 2e-5, 1 %
of Muon's learning rate by 2e-4, of AdamW's by 2e-3.
"""
STEPS = 5
SEQ_LEN, DOMAINS = 16, 2
DECODER = DecoderConfig(
    vocab_size=64,
    d_model=16,
    num_layers=4,
    num_heads=2,
    ffn_width=64,
    cheap_rank=2,
    max_seq_len=SEQ_LEN,
)


def split() -> Split:
    """Draw two documents in two domains, of tokens that follow each other by a rule with noise."""
    draw = np.random.Generator(np.random.PCG64(1))
    steps = draw.integers(1, 4, size=4096)
    tokens = (steps.cumsum() % DECODER.vocab_size).astype(np.uint8)
    return Split(tokens, np.array([0, 2048, 4096]), np.array([0, 1], np.uint8), ("a", "b"))


def rows() -> dict[str, tuple[str, dict[str, Any], RouterTraining]]:
    """Every combination of router, options and training that a bundled suite or study runs, by
    its name.
    """
    listed = [row for name in suite_names() for row in load_suite(name).rows]
    listed += [row for name in study_names() for row in load_study(name).rows]
    found: dict[str, tuple[str, dict[str, Any], RouterTraining]] = {}
    for row in listed:
        training = row.training or RouterTraining(lr_ratio=0.125)
        told = training.model_dump(exclude_defaults=True)
        if row.options or row.training:
            found[row_name(row.router, row.options, told)] = (
                row.router,
                row.options,
                training,
            )
    return found


def fingerprint(
    entry: Entry, options: dict[str, Any] | None = None, training: RouterTraining | None = None
) -> dict[str, Any]:
    """Losses and FLOPs of a router in five steps of training and one causal evaluation, on tokens
    that need no corpus.
    """
    losses: list[float] = []
    training = training or RouterTraining()
    sizes = {"decoder": DECODER, "seq_len": SEQ_LEN, "num_domains": DOMAINS}
    model = world.model(entry, options, training=training, **sizes)

    def probe(step: int, tokens: int, flops: float, seconds: float, train_loss: float) -> None:
        losses.append(train_loss)

    world.fit(model, STEPS, split(), seq_len=SEQ_LEN, probe=probe, router=training)
    evaluation = evaluate(model, windows(split(), seq_len=SEQ_LEN, per_domain=4), batch_size=4)
    return {
        "losses": [*losses, float(evaluation.nats.mean())],
        "training_flops": dict(sorted(model.ledger.spent.items())),
        "active_flops": evaluation.active,
        "budget": model.solution.target,
        "dense": model.solution.dense,
    }


def agrees(stored: dict[str, Any], found: dict[str, Any]) -> bool:
    """Return whether two fingerprints are of the same numerics."""
    close = np.allclose(stored["losses"], found["losses"], rtol=LOSS_TOLERANCE, atol=0)
    return bool(close) and {**stored, "losses": 0} == {**found, "losses": 0}


def kept(stored: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the entries found, each as it is stored where both agree; print the others' names."""
    for name, value in found.items():
        if name in stored and agrees(stored[name], value):
            found[name] = stored[name]
        else:
            print(("moved: " if name in stored else "new: ") + name)
    return found


def main() -> None:
    """Write the file."""
    stored = json.loads(PATH.read_text(encoding="utf-8"))
    routers = {name: fingerprint(entry) for name, entry in load_all().items()}
    made = {
        said: fingerprint(find(name), options, training)
        for said, (name, options, training) in sorted(rows().items())
    }
    routers, made = kept(stored["routers"], routers), kept(stored["rows"], made)
    PATH.write_text(
        json.dumps({"rules_version": RULES_VERSION, "routers": routers, "rows": made}, indent=1)
        + "\n",
        encoding="utf-8",
    )
    print(
        f"{PATH.name}: {len(routers)} routers and {len(made)} rows under rules version "
        f"{RULES_VERSION}"
    )


if __name__ == "__main__":
    main()
