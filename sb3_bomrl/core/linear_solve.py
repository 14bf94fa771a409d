"""Conjugate gradients for many symmetric systems at once."""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import torch as th

MatVec = Callable[[th.Tensor], th.Tensor]
"""(n_tasks, n_params) -> (n_tasks, n_params), each row times its own task's matrix."""


class SolveStatus(IntEnum):
    """Reason for which a linear solve ended."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    NEGATIVE_CURVATURE = 2
    NON_FINITE = 3


class SolveInfo(NamedTuple):
    """
    Report of a linear solve, per task.

    :param n_iterations: (n_tasks,) int, accepted iterations
    :param residual: (n_tasks,) ‖b − (A + δI)x‖ / ‖b‖ of the returned x, 0 for b = 0
    :param status: (n_tasks,) int, a :class:`SolveStatus`
    """

    n_iterations: th.Tensor
    residual: th.Tensor
    status: th.Tensor


Solve = Callable[[MatVec, th.Tensor], tuple[th.Tensor, SolveInfo]]
"""(matvec, b) -> (x, info)."""


def conjugate_gradient(
    matvec: MatVec,
    b: th.Tensor,
    max_iterations: int,
    damping: float = 0.0,
    tolerance: float = 1e-6,
    may_be_indefinite: bool = False,
) -> tuple[th.Tensor, SolveInfo]:
    """
    Solve (A + δI) x = b for every task by conjugate gradients from x = 0 (Hestenes and Stiefel, 1952), Eq. (A3).

    Started from zero, it finds the minimum-norm solution of a singular but consistent system. A task stops with its
    last good iterate at a direction p with pᵀ(A + δI)p ≤ 0, or at a number that is not finite. The other tasks go on.

    If A is positive definite, the last iterate is the nearest to the solution, in the norm of A. If A is indefinite,
    or b is not in the range of a singular A, a step along a direction of little curvature may be very long, and the
    residual grows. With ``may_be_indefinite``, a task that meets negative curvature, or ends with a residual above
    that of x = 0, returns the iterate with the smallest residual.

    :param matvec: multiplies each row by its task's symmetric matrix A
    :param b: (n_tasks, n_params)
    :param max_iterations: at least 1
    :param damping: δ ≥ 0
    :param tolerance: relative residual at which a task has converged
    :param may_be_indefinite: whether A may be indefinite or singular; costs a copy of x per iteration
    :return: x, (n_tasks, n_params), and the report
    """
    x, r = th.zeros_like(b), b.clone()
    p, rr = r.clone(), (r * r).sum(1)
    best, rr_best, rr_zero = x, rr, rr
    b_norm = rr.sqrt()
    n_iterations = th.zeros(len(b), dtype=th.long, device=b.device)
    status = th.full_like(n_iterations, SolveStatus.MAX_ITERATIONS)
    status[b_norm == 0] = SolveStatus.CONVERGED
    status[~b_norm.isfinite()] = SolveStatus.NON_FINITE

    for _ in range(max_iterations):
        active = status == SolveStatus.MAX_ITERATIONS
        if not active.any():
            break
        ap = matvec(p) + damping * p
        curvature = (p * ap).sum(1)
        status[active & ~curvature.isfinite()] = SolveStatus.NON_FINITE
        status[active & (curvature <= 0)] = SolveStatus.NEGATIVE_CURVATURE

        step = (rr / curvature)[:, None]
        x_next, r_next = x + step * p, r - step * ap
        rr_next = (r_next * r_next).sum(1)
        overflow = ~(x_next.isfinite().all(1) & rr_next.isfinite())
        status[(status == SolveStatus.MAX_ITERATIONS) & overflow] = SolveStatus.NON_FINITE

        active = status == SolveStatus.MAX_ITERATIONS
        rr_next = th.where(active, rr_next, rr)
        x, r = th.where(active[:, None], x_next, x), th.where(active[:, None], r_next, r)
        p = th.where(active[:, None], r + (rr_next / rr)[:, None] * p, p)
        rr = rr_next
        if may_be_indefinite:
            best, rr_best = th.where((rr < rr_best)[:, None], x, best), rr.minimum(rr_best)
        n_iterations += active
        status[active & (rr.sqrt() <= tolerance * b_norm)] = SolveStatus.CONVERGED

    if may_be_indefinite:
        falls_back = (status == SolveStatus.NEGATIVE_CURVATURE) | (rr > rr_zero)
        x, rr = th.where(falls_back[:, None], best, x), th.where(falls_back, rr_best, rr)
    residual = th.where(b_norm == 0, 0.0, rr.sqrt() / b_norm)
    return x, SolveInfo(n_iterations, residual, status)


def damped_solve(
    matvec: MatVec, b: th.Tensor, max_iterations: int, relative_damping: float
) -> tuple[th.Tensor, SolveInfo]:
    """
    Solve (A + δI) x = b by conjugate gradients, with a damping δ per task that has the scale of its matrix:

        δ = c · |bᵀAb| / bᵀb.

    The curvature of the lower level grows by orders of magnitude while the policy's standard deviations shrink, so
    that no constant δ suits a whole training run. A may be indefinite, since the lower level may not have converged.

    :param matvec: multiplies each row by its task's symmetric matrix A
    :param b: (n_tasks, n_params)
    :param max_iterations: at least 1
    :param relative_damping: c ≥ 0
    :return: x, (n_tasks, n_params), and the report
    """
    if relative_damping == 0.0:
        return conjugate_gradient(matvec, b, max_iterations, may_be_indefinite=True)
    tiny = th.finfo(b.dtype).tiny
    curvature = (b * matvec(b)).sum(1).abs() / (b * b).sum(1).clamp(min=tiny)
    damping = relative_damping * curvature[:, None]
    return conjugate_gradient(lambda v: matvec(v) + damping * v, b, max_iterations, may_be_indefinite=True)
