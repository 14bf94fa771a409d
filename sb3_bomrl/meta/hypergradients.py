"""The hypergradients of BO-MRL, values of one signature."""

from collections.abc import Callable
from typing import NamedTuple

from sb3_bomrl.core.hypergradient import (
    first_order_hypergradient,
    implicit_hypergradient,
    unrolled_hypergradient,
)
from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.linear_solve import Solve, SolveInfo
from sb3_bomrl.core.params import require_grad
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.types import Params

SamplingTerm = Callable[[Params], Params]
"""x -> [part (b) of ∇²_{θφ} F]ᵀ x, Eq. (A5)."""


class SolvedLowerLevel(NamedTuple):
    """
    A solution of the lower level, and what its hypergradient is made of.

    :param lower: the lower level on the support data
    :param meta_params: φ, each of shape (n_tasks, \\*shape)
    :param adapted_params: θ', same shapes
    :param cotangent: ∇_θ J(θ'), same shapes
    :param solver: inner solver, whose steps ``"unrolled"`` differentiates
    :param solve: linear solver of the implicit forms
    :param sampling_term: part (b), for ``"implicit_sampling"``
    """

    lower: LowerLevel
    meta_params: Params
    adapted_params: Params
    cotangent: Params
    solver: InnerSolver
    solve: Solve
    sampling_term: SamplingTerm | None


Hypergradient = Callable[[SolvedLowerLevel], tuple[Params, SolveInfo | None]]
"""Pull ∇_θ J(θ') back to φ, per task; with the linear solver's report where there is one."""


def implicit(at: SolvedLowerLevel) -> tuple[Params, SolveInfo | None]:
    """Solve Eq. (A3) with the distance term (A4) alone."""
    return implicit_hypergradient(at.lower.loss, at.adapted_params, at.meta_params, at.cotangent, at.solve)


def implicit_sampling(at: SolvedLowerLevel) -> tuple[Params, SolveInfo | None]:
    """Solve Eq. (A3) with the distance term and the sampling term, (A4) and (A6)."""
    if at.sampling_term is None:
        raise ValueError("sampling_term must be given for hypergradient='implicit_sampling', got None")
    return implicit_hypergradient(
        at.lower.loss, at.adapted_params, at.meta_params, at.cotangent, at.solve, at.sampling_term
    )


def unrolled(at: SolvedLowerLevel) -> tuple[Params, SolveInfo | None]:
    """Differentiate through the steps of the inner solver."""
    phi = require_grad(at.meta_params)
    path = adapt(at.lower, phi, at.solver, differentiable=True)
    return unrolled_hypergradient(path.params, phi, at.cotangent), None


def first_order(at: SolvedLowerLevel) -> tuple[Params, SolveInfo | None]:
    """Take ∇_θ J(θ') as it is."""
    return first_order_hypergradient(at.cotangent), None


HYPERGRADIENTS: dict[str, Hypergradient] = {
    "implicit": implicit,
    "implicit_sampling": implicit_sampling,
    "unrolled": unrolled,
    "first_order": first_order,
}
"""By the name that ``BOMRL(hypergradient=...)`` takes."""
