"""What each router computes in a few steps, kept in `fingerprints.json`.

    python -m tests.fingerprints        write the file anew

Do that only together with a higher `bench.record.RULES_VERSION`, or for a router that is new: the file is there so that no
change of numerics goes unseen.
"""

import json
from pathlib import Path
from typing import Any

from bench.evaluate import evaluate
from bench.record import RULES_VERSION
from bench.registry import Entry, load_all
from tests import tiny

PATH = Path(__file__).with_suffix(".json")
STEPS = 5


def fingerprint(entry: Entry) -> dict[str, Any]:
    """Losses and FLOPs of a router in five steps of training and one causal evaluation, on tokens that need no corpus."""
    losses: list[float] = []
    model = tiny.model(entry)

    def probe(step: int, tokens: int, flops: float, seconds: float, train_loss: float) -> None:
        losses.append(train_loss)

    tiny.train_steps(model, STEPS, probe)
    evaluation = evaluate(model, tiny.windows(), batch_size=4)
    return {
        "losses": [*losses, float(evaluation.nats.mean())],
        "training_flops": dict(sorted(model.ledger.spent.items())),
        "active_flops": evaluation.active,
        "budget": model.solution.target,
        "dense": model.solution.dense,
    }


def main() -> None:
    """Write the file."""
    routers = {name: fingerprint(entry) for name, entry in load_all().items()}
    PATH.write_text(json.dumps({"rules_version": RULES_VERSION, "routers": routers}, indent=1) + "\n", encoding="utf-8")
    print(f"{PATH.name}: {len(routers)} routers under rules version {RULES_VERSION}")


if __name__ == "__main__":
    main()
