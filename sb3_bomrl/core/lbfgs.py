"""Limited-memory BFGS for many problems at once, each with its own steps (Nocedal and Wright, 2006, Algorithm 7.5)."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

from sb3_bomrl.core.params import flatten, grad, require_grad, unflatten
from sb3_bomrl.types import Params

_MEMORY = 10
_SUFFICIENT_DECREASE = 1e-4
_SHORTER = 1 / 3
_SHORTEST = 1e-8
_LEAST_CURVATURE = 1e-8


class CurvaturePairs:
    """
    The last steps s and changes of the gradient y of every task, and the inverse Hessian that they make.

    :param scale: (n_tasks,) inverse Hessian without any pair, a multiple of the identity
    """

    def __init__(self, scale: th.Tensor) -> None:
        self.scale = scale
        self._pairs: list[tuple[th.Tensor, th.Tensor, th.Tensor]] = []

    def add(self, step: th.Tensor, change: th.Tensor, taken: th.Tensor) -> None:
        """
        Add the pairs of tasks whose curvature sᵀy along the step is positive; the other tasks double their scale.

        :param step: s, (n_tasks, n_params)
        :param change: y, (n_tasks, n_params)
        :param taken: (n_tasks,) bool, tasks that have taken the step
        """
        curvature, square = (step * change).sum(1), (change * change).sum(1)
        is_convex = taken & (curvature > _LEAST_CURVATURE * step.norm(dim=1) * square.sqrt())
        self.scale = th.where(is_convex, curvature / square, th.where(taken, 2 * self.scale, self.scale))
        rho = th.where(is_convex, 1 / curvature, 0.0)  # a pair of weight 0 changes nothing
        keep = is_convex[:, None]
        self._pairs.append((th.where(keep, step, 0.0), th.where(keep, change, 0.0), rho))
        self._pairs = self._pairs[-_MEMORY:]

    def direction(self, gradient: th.Tensor) -> th.Tensor:
        """
        Multiply the inverse Hessian by the negative gradient (the two-loop recursion, Algorithm 7.4).

        :param gradient: (n_tasks, n_params)
        :return: (n_tasks, n_params); the scaled negative gradient where the product is no descent direction
        """
        q, alphas = gradient, list[th.Tensor]()
        for s, y, rho in reversed(self._pairs):
            alphas.append(rho * (s * q).sum(1))
            q = q - alphas[-1][:, None] * y
        r = self.scale[:, None] * q
        for (s, y, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            r = r + (alpha - rho * (y * r).sum(1))[:, None] * s
        descends = (r * gradient).sum(1) > 0
        return -th.where(descends[:, None], r, self.scale[:, None] * gradient)


class Point(NamedTuple):
    """
    An iterate, per task.

    :param vector: (n_tasks, n_params)
    :param objective: (n_tasks,)
    :param gradient: (n_tasks, n_params)
    :param others: (n_tasks,) each, what the objective reports beside its value
    """

    vector: th.Tensor
    objective: th.Tensor
    gradient: th.Tensor
    others: tuple[th.Tensor, ...]

    def replaced(self, other: "Point", where: th.Tensor) -> "Point":
        """
        Take some tasks from another point.

        :param other: another point
        :param where: (n_tasks,) bool
        :return: the other's values where true
        """
        wide = where[:, None]
        return Point(
            th.where(wide, other.vector, self.vector),
            th.where(where, other.objective, self.objective),
            th.where(wide, other.gradient, self.gradient),
            tuple(th.where(where, new, old) for new, old in zip(other.others, self.others, strict=True)),
        )


class Minimum(NamedTuple):
    """
    Where the steps have ended.

    :param point: the last iterate
    :param n_steps: (n_tasks,) int, evaluations after the first
    :param converged: (n_tasks,) bool
    :param limited: (n_tasks,) bool, a step was shortened for being not allowed
    """

    point: Point
    n_steps: th.Tensor
    converged: th.Tensor
    limited: th.Tensor


Evaluate = Callable[[Params], tuple[th.Tensor, tuple[th.Tensor, ...]]]
"""θ -> objective, (n_tasks,), differentiable, and numbers to report, (n_tasks,) each."""


def minimize(
    evaluate: Evaluate,
    start: Params,
    n_steps: int,
    tolerance: float,
    is_allowed: Callable[[tuple[th.Tensor, ...]], th.Tensor],
) -> Minimum:
    r"""
    Minimise every task's objective from the same start.

    The first step is Newton's along the gradient. A step that is not allowed, is not finite, or does not decrease the
    objective by a part of what the slope promises is tried again at a third of its length, so that no step size is to
    be chosen. A task ends at ‖∇f‖ ≤ tolerance · ‖∇f at the start‖.

    :param evaluate: the objective
    :param start: each of shape (n_tasks, \*shape)
    :param n_steps: largest number of evaluations after the first
    :param tolerance: relative norm of the gradient
    :param is_allowed: numbers that ``evaluate`` reports -> (n_tasks,) bool, whether the point may be stepped to
    :return: the last iterate of every task
    """
    point, curvature = _first_point(evaluate, start)
    square = (point.gradient * point.gradient).sum(1)
    pairs = CurvaturePairs(square / curvature.abs().clamp(min=th.finfo(square.dtype).tiny))
    pairs.scale = th.where(pairs.scale.isfinite(), pairs.scale, 1.0)
    enough = tolerance * square.sqrt()
    active = (square.sqrt() > enough) & point.objective.isfinite()
    direction, length = pairs.direction(point.gradient), th.ones_like(square)
    taken_steps, limited = th.zeros(len(square), dtype=th.long, device=square.device), th.zeros_like(active)
    for _ in range(n_steps):
        if not active.any():
            break
        slope = (direction * point.gradient).sum(1)
        move = th.where(active, length, 0.0)[:, None] * direction
        new = _point(evaluate, point.vector + move, start)
        allowed = is_allowed(new.others)
        limited |= active & ~allowed
        decreases = new.objective <= point.objective + _SUFFICIENT_DECREASE * length * slope
        taken = active & allowed & decreases & new.gradient.isfinite().all(1)
        pairs.add(move, th.where(taken[:, None], new.gradient - point.gradient, 0.0), taken)
        point = point.replaced(new, taken)
        direction = th.where(taken[:, None], pairs.direction(point.gradient), direction)
        length = th.where(taken, 1.0, length * _SHORTER)
        taken_steps += active
        active = active & (point.gradient.norm(dim=1) > enough) & (length > _SHORTEST)
    converged = point.gradient.norm(dim=1) <= enough
    return Minimum(point, taken_steps, converged, limited & ~converged)


def _point(evaluate: Evaluate, vector: th.Tensor, like: Params) -> Point:
    params = require_grad(unflatten(vector, like))
    objective, others = evaluate(params)
    gradient = flatten(grad(objective.sum(), params)).detach()
    return Point(vector, objective.detach(), gradient, others)


def _first_point(evaluate: Evaluate, start: Params) -> tuple[Point, th.Tensor]:
    """With the curvature gᵀHg along the gradient g."""
    params = require_grad(start)
    objective, others = evaluate(params)
    slope = flatten(grad(objective.sum(), params, create_graph=True))
    g = slope.detach()
    product = flatten(grad((slope * g).sum(), params)) if slope.requires_grad else th.zeros_like(g)
    return Point(flatten(start).detach(), objective.detach(), g, others), (g * product).sum(1)
