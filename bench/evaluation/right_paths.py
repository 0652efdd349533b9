"""Compare the plans with the right paths, on tasks where these are known."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bench.backbone.decoder import Decoder
from bench.config.suite import SuiteConfig
from bench.data import Corpus, Windows
from bench.data.optimum import best_loss_at
from bench.evaluation.evaluate import Evaluation
from bench.record import RightPaths
from bench.routing.paths import Paths


def right_paths(
    decoder: Decoder, suite: SuiteConfig, corpus: Corpus, windows: Windows, evaluation: Evaluation
) -> RightPaths | None:
    """Return the accuracy of every routed site, and the best loss that the budget allows.

    None if the right paths are unknown.

    Args:
        decoder: has the paths of the routers.
        suite: names the task and the budget.
        corpus: knows the right paths.
        windows: the evaluated windows.
        evaluation: the evaluation with its plans.
    """
    task = suite.data.planted
    if task is None or corpus.truth is None:
        return None
    truth = corpus.truth(windows.tokens[:, :-1])
    gated = task.route == "depth"
    labels = 2 if gated else task.domains
    accuracy: list[float | None] = []
    chance: list[float | None] = []
    for site, mask in evaluation.masks.items():
        # A gate fits a task of depth, a bank of experts fits a task of experts; other pairs have no
        # accuracy.
        paths = decoder.routers[site].paths
        fits = (paths.base is not None) == gated and len(paths.names) > 1
        met = shares(mask, truth, labels)
        accuracy.append(agreement(met, paths) if fits else None)
        # By chance: the same loads and the same labels, but independent of each other.
        chance.append(agreement(np.outer(met.sum(1), met.sum(0)), paths) if fits else None)
    least = best_loss_at(task, suite.budget, len(suite.routed_layers))
    return RightPaths(accuracy=tuple(accuracy), chance=tuple(chance), best_loss=least)


def shares(
    mask: Bool[Tensor, "window seq path"], truth: np.ndarray, labels: int
) -> Float[np.ndarray, "path label"]:
    """Return the joint shares of paths and labels, over the tokens with a right path.

    A token on several paths is divided among them.
    """
    known = truth >= 0
    taken = mask.numpy()[known].astype(np.float64)
    taken /= np.maximum(1.0, taken.sum(1, keepdims=True))
    return taken.T @ np.eye(labels)[truth[known]] / max(1, int(known.sum()))


def agreement(met: Float[np.ndarray, "path label"], paths: Paths) -> float:
    """Return the share of tokens on their right path.

    Experts have no given order, so they are matched to labels one to one in the best way.
    """
    # With a base, label 0 is the base and label 1 the upgrade.
    if paths.base is not None:
        return float(np.trace(met))
    rows, columns = linear_sum_assignment(met, maximize=True)
    return float(met[rows, columns].sum())
