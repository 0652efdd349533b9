"""The learning-rate schedule, on the share of the budget spent."""


def trapezoid(progress: float, warmup: float, decay: float) -> float:
    """Factor on the learning rate: linear up, flat, linear down to zero.

    Args:
        progress: share of the training budget spent, 0 to 1.
        warmup: share over which it rises.
        decay: share over which it falls at the end.
    """
    rise = min(1.0, progress / warmup) if warmup > 0 else 1.0
    fall = min(1.0, (1.0 - progress) / decay) if decay > 0 else 1.0
    return max(0.0, min(rise, fall))
