"""The best loss that can be reached on the planted task, in closed form.

A predictor that knows the process and its tables loses the entropy of what is drawn at random and
nothing else: the order of the segments, the symbols that open them, and the noise. No model can do
better. Where a budget is too small for all hard tokens, each of those left over costs what it takes
to guess a symbol instead.
"""

from math import comb, log

from bench.config.data import PlantedConfig


def symbol_entropy(task: PlantedConfig) -> float:
    """Nats of a symbol that is the right one, or with probability `noise` any one, the right one
    included.
    """
    wrong = task.noise / task.symbols
    right = 1 - wrong * (task.symbols - 1)
    return -right * log(right) - (wrong * (task.symbols - 1) * log(wrong) if wrong else 0.0)


def hard_share(task: PlantedConfig) -> float:
    """Share of predicted tokens that are drawn from the tables."""
    return task.hard_segments * (task.segment_tokens - 1 - task.order) / (task.document_tokens - 1)


def best_loss(task: PlantedConfig, share: float = 1.0, layers: int = 1) -> float:
    """Nats a token over whole documents, where only the full path, or the right expert, holds the
    tables.

    One full path is enough for a token, so with `share` of the tokens on it in each of `layers`
    layers at most `share * layers` of them can be served. Below the hard share the rest is guessed.
    There it is an idealised figure and no bound: attention and the cheap path may hold a part of
    the tables, and symbols may be copied from earlier in the document.

    Args:
        task: the configuration.
        share: of tokens on the full path in a layer: 1 for the dense model and for experts, `rho`
            for a choice of cheap or full.
        layers: routed layers.
    """
    symbols, opening = task.segment_tokens - 1, log(task.symbols)
    hard, easy = task.hard_segments, task.segments - task.hard_segments
    given = (
        log(task.domains) + log(comb(task.segments, hard)) + (easy + hard * task.order) * opening
    )
    predicted = easy * (symbols - 1) + hard * (symbols - task.order)
    floor = (given + predicted * symbol_entropy(task)) / (task.document_tokens - 1)
    return floor + max(0.0, hard_share(task) - share * layers) * (opening - symbol_entropy(task))


def best_loss_at(task: PlantedConfig, rho: float, layers: int) -> float:
    """`best_loss` at a budget.

    `rho` limits a choice of cheap or full, and not one among experts, each of which takes every
    token.
    """
    return best_loss(task, rho, layers) if task.route == "depth" else best_loss(task)
