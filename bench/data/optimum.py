"""Compute the best possible loss on the planted task, in closed form.

A predictor that knows the process and its tables loses only the entropy of the random draws: the
order of the segments, the symbols that open them, and the noise. No model can do better. If the
budget is too small for all hard tokens, each remaining hard token costs a guess of its symbol.
"""

from math import comb, log

from bench.config.data import PlantedConfig


def symbol_entropy(task: PlantedConfig) -> float:
    """Return the entropy, in nats, of a symbol after noise.

    With probability `noise` the symbol is drawn from all symbols, the right one included.
    """
    wrong = task.noise / task.symbols
    right = 1 - wrong * (task.symbols - 1)
    return -right * log(right) - (wrong * (task.symbols - 1) * log(wrong) if wrong else 0.0)


def hard_share(task: PlantedConfig) -> float:
    """Return the share of predicted tokens that follow from the tables."""
    # A marker and the first `order` symbols of a hard segment come before the tables apply.
    return task.hard_segments * (task.segment_tokens - 1 - task.order) / (task.document_tokens - 1)


def best_loss(task: PlantedConfig, share: float = 1.0, layers: int = 1) -> float:
    """Return the best loss, in nats per token over whole documents.

    It assumes that only the full path, or the right expert, holds the tables. One full path serves
    a token, so at most `share * layers` of the tokens are served. The other hard tokens are
    guessed. For them the result is an ideal figure and no bound: attention and the cheap path may
    hold a part of the tables, and symbols may be copied from earlier in the document.

    Args:
        task: the configuration.
        share: share of tokens on the full path in a layer: 1 for the dense model and for experts,
            `rho` for a choice of cheap or full.
        layers: number of routed layers.
    """
    symbols, opening = task.segment_tokens - 1, log(task.symbols)
    hard, easy = task.hard_segments, task.segments - task.hard_segments
    # Nobody can predict these draws: the domain, the order of the segments, the opening symbols.
    given = (
        log(task.domains) + log(comb(task.segments, hard)) + (easy + hard * task.order) * opening
    )
    predicted = easy * (symbols - 1) + hard * (symbols - task.order)
    floor = (given + predicted * symbol_entropy(task)) / (task.document_tokens - 1)
    return floor + max(0.0, hard_share(task) - share * layers) * (opening - symbol_entropy(task))


def best_loss_at(task: PlantedConfig, rho: float, layers: int) -> float:
    """Return `best_loss` at a budget.

    `rho` limits a choice of cheap or full. Among experts every token has a full expert.
    """
    return best_loss(task, rho, layers) if task.route == "depth" else best_loss(task)
