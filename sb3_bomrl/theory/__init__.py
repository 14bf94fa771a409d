"""Optimality gaps and bounds, exactly, in finite MDPs."""

from sb3_bomrl.theory.bounds import (
    Bounds,
    adaptation_certificate,
    bounds,
    expected_bounds,
    optimality_gap,
    surrogate_error,
)
from sb3_bomrl.theory.comparators import comparators
from sb3_bomrl.theory.variance import task_variance, variance_minimizing_policy

__all__ = [
    "Bounds",
    "adaptation_certificate",
    "bounds",
    "comparators",
    "expected_bounds",
    "optimality_gap",
    "surrogate_error",
    "task_variance",
    "variance_minimizing_policy",
]
