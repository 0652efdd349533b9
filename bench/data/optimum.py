"""The best loss that any model can reach on the planted task, in closed form.

A predictor that knows the process and its tables loses the entropy of what is drawn at random and nothing else: the order of
the segments, the symbols that open them, and the noise. Where a budget keeps some hard tokens from the tables, each of those costs what
it takes to guess a symbol instead.
"""

from math import comb, log

from bench.data.config import PlantedConfig


def symbol_entropy(task: PlantedConfig) -> float:
    """Nats of a symbol that is the right one, or with probability `noise` any one, the right one included."""
    wrong = task.noise / task.symbols
    right = 1 - wrong * (task.symbols - 1)
    return -right * log(right) - (wrong * (task.symbols - 1) * log(wrong) if wrong else 0.0)


def hard_share(task: PlantedConfig) -> float:
    """Share of predicted tokens that are drawn from the tables."""
    return task.hard_segments * (task.segment_tokens - 1 - task.order) / (task.document_tokens - 1)


def best_loss(task: PlantedConfig, share: float = 1.0) -> float:
    """Nats a token over whole documents when the tables may be asked for at most `share` of the tokens.

    What could be copied from an earlier occurrence of the same symbols in the same document is left out, so with a share too small
    for the hard tokens this is the loss of guessing, not a bound.

    Args:
        task: the configuration.
        share: of tokens that may use the tables: 1 for the dense model and for experts, `rho` for a choice of cheap or full.
    """
    symbols, opening = task.segment_tokens - 1, log(task.symbols)
    hard, easy = task.hard_segments, task.segments - task.hard_segments
    given = log(task.domains) + log(comb(task.segments, hard)) + (easy + hard * task.order) * opening
    predicted = easy * (symbols - 1) + hard * (symbols - task.order)
    floor = (given + predicted * symbol_entropy(task)) / (task.document_tokens - 1)
    return floor + max(0.0, hard_share(task) - share) * (opening - symbol_entropy(task))
