"""Signal of hypergradients, and their agreement, from samples of many meta-batches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """
    What one hypergradient says on one meta-batch.

    :param gradient: (n_params,) meta-gradient
    :param step: (n_params,) what the outer step added to the meta-parameters
    :param residual: relative residual of the hypergradient's conjugate gradients, mean over tasks; ``None`` without any
    """

    gradient: np.ndarray
    step: np.ndarray
    residual: float | None


def summarize(samples: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """
    Signal and agreement, each with its jackknife standard error over meta-batches.

    A hypergradient without a positive signal agrees with none: ``None``.

    :param samples: at least three by hypergradient, of the same meta-batches
    :return: a row per hypergradient
    """
    cosines = {(a, b): _cosines(samples[a], samples[b]) for a in samples for b in samples}
    rows = []
    for name, found in samples.items():
        own = cosines[name, name]
        row: dict[str, Any] = {
            "hypergradient": name,
            "gradient_norm": float(np.mean([np.linalg.norm(sample.gradient) for sample in found])),
            "cg_residual": _mean([sample.residual for sample in found]),
            "signal": jackknife(mean_of_pairs, own),
        }
        row["agreement"] = {
            other: jackknife(_agreement, cosines[name, other], cosines[other, name], own, cosines[other, other])
            for other in samples
            if other != name
        }
        rows.append(row)
    return rows


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _cosines(steps: list[Sample], gradients: list[Sample]) -> np.ndarray:
    """(n, n): between step i of the one and step j of the other; 0 where the trust region let none pass."""
    s, g = np.array([sample.step for sample in steps]), np.array([sample.gradient for sample in gradients])
    promised = np.array([sample.step @ sample.gradient for sample in gradients])
    return s @ g.T / np.where(promised > 0.0, promised, np.inf)


def mean_of_pairs(matrix: np.ndarray) -> float:
    """
    :param matrix: (n, n), a row and a column per meta-batch
    :return: mean of what is not on the diagonal
    """
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1)))


def _agreement(one: np.ndarray, other: np.ndarray, own: np.ndarray, others: np.ndarray) -> float:
    scale = mean_of_pairs(own) * mean_of_pairs(others)
    return (mean_of_pairs(one) + mean_of_pairs(other)) / 2 / scale**0.5 if scale > 0.0 else float("nan")


def jackknife(statistic: Callable[..., float], *matrices: np.ndarray) -> tuple[float, float] | None:
    """
    :param statistic: of matrices
    :param matrices: (n, n) each, a row and a column per meta-batch
    :return: the statistic, and its standard error (Efron and Stein, 1981); ``None`` if it is not defined, with all
        meta-batches or without one of them
    """
    n = len(matrices[0])
    without = [statistic(*(np.delete(np.delete(m, i, 0), i, 1) for m in matrices)) for i in range(n)]
    found = statistic(*matrices), float(np.sqrt((n - 1) * np.var(without)))
    return found if np.isfinite(found).all() else None
