"""Iterative solvers of the lower level, Eq. (A2), for all tasks at once."""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import torch as th

from sb3_bomrl.checks import check_choice
from sb3_bomrl.core.lbfgs import minimize
from sb3_bomrl.core.linear_solve import conjugate_gradient
from sb3_bomrl.core.params import flatten, grad, require_grad, unflatten
from sb3_bomrl.types import Adaptation, Params

INNER_METHODS: tuple[str, ...] = ("lbfgs", "adam", "sgd", "rmsprop", "natural_gradient")

NOT_DIFFERENTIABLE = ("lbfgs", "natural_gradient")
"""Methods whose steps the unrolled hypergradient cannot follow."""


class InnerStatus(IntEnum):
    """
    Reason for which a task's lower level ended.

    ``KL_LIMIT``: a step went beyond the KL limit, and the steps after it were shorter than ``learning_rate``.
    """

    MAX_STEPS = 0
    GRADIENT_TOLERANCE = 1
    KL_LIMIT = 2
    NON_FINITE = 3


class InnerSolver(NamedTuple):
    """
    Settings of :func:`solve_inner`.

    :param method: ``"lbfgs"`` (limited-memory BFGS with a line search), ``"adam"``, ``"sgd"``, ``"rmsprop"`` (full
        batch and elementwise: one optimiser per task) or ``"natural_gradient"`` (steps −α G(θ)⁻¹∇F, G the Fisher
        matrix)
    :param learning_rate: step size α > 0; ``"lbfgs"`` finds its own
    :param n_steps: largest number of steps, undone ones included, at least 1
    :param max_kl: largest mean KL(π_φ ‖ π_θ) in nats; a step beyond it is undone, and the task goes on with half the
        step size
    :param gradient_tolerance: a task stops where ‖∇_θ F‖ is at most this times its value at the start
    :param cg_max_steps: conjugate-gradient steps per natural-gradient step
    :param cg_damping: damping of the Fisher matrix in natural-gradient steps
    """

    method: str = "lbfgs"
    learning_rate: float = 3e-3
    n_steps: int = 50
    max_kl: float = 3.0
    gradient_tolerance: float = 0.01
    cg_max_steps: int = 10
    cg_damping: float = 0.0


class InnerValue(NamedTuple):
    """
    Values of the lower level at one θ, per task.

    :param objective: (n_tasks,) F(θ, φ), differentiable
    :param distance: (n_tasks,) D(φ, θ)
    :param kl: (n_tasks,) mean KL(π_φ ‖ π_θ)
    """

    objective: th.Tensor
    distance: th.Tensor
    kl: th.Tensor


Objective = Callable[[Params], InnerValue]
Metric = Callable[[Params], th.Tensor]
"""θ -> (n_tasks,), a function whose Hessian at θ is the Fisher matrix: KL(π_θ held fixed ‖ π_θ)."""

_State = tuple[th.Tensor, th.Tensor]


def _sgd(g: th.Tensor, state: _State, step: th.Tensor) -> tuple[th.Tensor, _State]:
    return g, state


def _adam(g: th.Tensor, state: _State, step: th.Tensor) -> tuple[th.Tensor, _State]:
    """Adam (Kingma and Ba, 2015, Alg. 1), β = (0.9, 0.999), ε = 1e-8."""
    first = 0.9 * state[0] + 0.1 * g
    second = 0.999 * state[1] + 0.001 * g.square()
    c1, c2 = ((1 - beta ** step.double()).to(g.dtype)[:, None] for beta in (0.9, 0.999))
    # the unrolled hypergradient differentiates the root, whose derivative at 0 is not finite
    return (first / c1) / (_safe_sqrt(second / c2) + 1e-8), (first, second)


def _rmsprop(g: th.Tensor, state: _State, step: th.Tensor) -> tuple[th.Tensor, _State]:
    """RMSprop (Tieleman and Hinton, 2012), α = 0.99, ε = 1e-8."""
    second = 0.99 * state[1] + 0.01 * g.square()
    return g / (_safe_sqrt(second) + 1e-8), (state[0], second)


def _safe_sqrt(x: th.Tensor) -> th.Tensor:
    positive = x > 0
    return th.where(positive, th.where(positive, x, 1.0).sqrt(), 0.0)


_UPDATES = {"sgd": _sgd, "adam": _adam, "rmsprop": _rmsprop}


def natural_gradient(gradient: Params, params: Params, metric: Metric, cg_max_steps: int, cg_damping: float) -> Params:
    r"""
    Compute G(θ)⁻¹ g, G the Fisher matrix, per task by conjugate gradients (Kakade, 2001).

    :param gradient: g, each of shape (n_tasks, \*shape)
    :param params: θ, same shapes
    :param metric: function of θ whose Hessian at θ is the Fisher matrix
    :param cg_max_steps: largest number of iterations
    :param cg_damping: δ ≥ 0 added to the diagonal
    :return: same shapes
    """
    theta = require_grad(params)
    slope = flatten(grad(metric(theta).sum(), theta, create_graph=True))

    def fisher_vector_product(v: th.Tensor) -> th.Tensor:
        return flatten(grad((slope * v).sum(), theta, retain_graph=True))

    x, _ = conjugate_gradient(fisher_vector_product, flatten(gradient), cg_max_steps, cg_damping, tolerance=1e-10)
    return unflatten(x.detach(), gradient)


def solve_inner(
    objective: Objective,
    init_params: Params,
    solver: InnerSolver,
    metric: Metric | None = None,
    differentiable: bool = False,
) -> Adaptation:
    r"""
    Minimise F(θ, φ) over θ for every task, Eq. (A2).

    Each task stops on its own, at a small gradient or at a value that is not finite (with the last finite iterate). A
    step beyond the KL limit is undone, and the later steps of its task are half as long.

    :param objective: θ, each of shape (n_tasks, \*shape) -> :class:`InnerValue`
    :param init_params: first iterate, usually φ, each of shape (n_tasks, \*shape)
    :param solver: method and limits
    :param metric: function of θ whose Hessian at θ is the Fisher matrix; needed by ``"natural_gradient"``
    :param differentiable: keep the graph of all steps, from ``init_params``, which must require a gradient, and from
        the tensors in ``objective`` to θ'
    :return: θ' with steps, objective, distance, KL, gradient norm and status per task
    :raises ValueError: for an unknown method, ``"natural_gradient"`` without a metric, and ``differentiable`` with a
        method of :data:`NOT_DIFFERENTIABLE`
    """
    check_choice("method", solver.method, INNER_METHODS)
    if differentiable and solver.method in NOT_DIFFERENTIABLE:
        raise ValueError(f"method {solver.method!r} is not differentiable: use an implicit mode")
    if solver.method == "natural_gradient" and metric is None:
        raise ValueError("method 'natural_gradient' needs a metric")
    if solver.method == "lbfgs":
        return _solve_lbfgs(objective, init_params, solver)

    theta, params = flatten(init_params), init_params if differentiable else require_grad(init_params)

    def split(vector: th.Tensor) -> Params:
        pieces = unflatten(vector, init_params)
        return pieces if differentiable else require_grad(pieces)

    state = (th.zeros_like(theta), th.zeros_like(theta))
    status = th.zeros(len(theta), dtype=th.long, device=theta.device)
    n_steps, scale = th.zeros_like(status), th.ones_like(theta[:, 0])
    last: tuple[th.Tensor, ...] = ()  # iterate, gradient and optimiser state before the last step

    for step in range(1, solver.n_steps + 2):
        value, gradient, norm = evaluate(objective, params, differentiable)
        if step == 1:
            tolerance = solver.gradient_tolerance * norm
        active = status == InnerStatus.MAX_STEPS
        bad = active & ~(value.objective.isfinite() & norm.isfinite())
        too_far = active & ~bad & ~(value.kl <= solver.max_kl)  # nan is too far as well
        status[active & ~too_far & (norm <= tolerance)] = InnerStatus.GRADIENT_TOLERANCE
        status[bad] = InnerStatus.NON_FINITE
        undo = too_far | bad
        if not last:
            status[too_far] = InnerStatus.KL_LIMIT
        elif undo.any():
            theta, gradient, *moments = (
                th.where(undo[:, None], old, new) for old, new in zip(last, (theta, gradient, *state), strict=True)
            )
            state, n_steps, scale = (moments[0], moments[1]), n_steps - undo.long(), th.where(too_far, scale / 2, scale)
        active = status == InnerStatus.MAX_STEPS
        done = step > solver.n_steps or not active.any()
        # before the last step only after a NaN: differentiating through the steps would compute 0 · NaN
        if bad.any() or (done and undo.any()):
            params = split(theta)
            value, gradient, norm = evaluate(objective, params, differentiable)
        if done:
            break
        last = (theta, gradient, *state)
        if solver.method == "natural_gradient":
            assert metric is not None
            g, at = unflatten(gradient, init_params), unflatten(theta, init_params)
            update = flatten(natural_gradient(g, at, metric, solver.cg_max_steps, solver.cg_damping))
        else:
            update, state = _UPDATES[solver.method](gradient, state, n_steps + 1)
        theta = th.where(active[:, None], theta - solver.learning_rate * scale[:, None] * update, theta)
        params = split(theta)
        n_steps = n_steps + active

    status[(status == InnerStatus.MAX_STEPS) & (scale < 1)] = InnerStatus.KL_LIMIT
    params = params if differentiable else {name: value.detach() for name, value in params.items()}
    return Adaptation(
        params, n_steps, value.objective.detach(), value.distance.detach(), value.kl.detach(), norm, status
    )


def _solve_lbfgs(objective: Objective, init_params: Params, solver: InnerSolver) -> Adaptation:
    def value_at(params: Params) -> tuple[th.Tensor, tuple[th.Tensor, ...]]:
        value = objective(params)
        return value.objective, (value.distance.detach(), value.kl.detach())

    def is_near(others: tuple[th.Tensor, ...]) -> th.Tensor:
        return others[1] <= solver.max_kl  # nan is too far as well

    end = minimize(value_at, init_params, solver.n_steps, solver.gradient_tolerance, is_near)
    point = end.point
    status = th.where(end.converged, InnerStatus.GRADIENT_TOLERANCE, InnerStatus.MAX_STEPS)
    status = th.where(end.limited, InnerStatus.KL_LIMIT, status)
    status = th.where(point.objective.isfinite(), status, InnerStatus.NON_FINITE)
    params = {name: value.detach() for name, value in unflatten(point.vector, init_params).items()}
    distance, kl = point.others
    return Adaptation(params, end.n_steps, point.objective, distance, kl, point.gradient.norm(dim=1), status)


def evaluate(objective: Objective, params: Params, differentiable: bool) -> tuple[InnerValue, th.Tensor, th.Tensor]:
    r"""
    Evaluate the lower level and its gradient.

    :param objective: the lower level
    :param params: θ, each of shape (n_tasks, \*shape), requiring a gradient
    :param differentiable: keep the graph of the gradient
    :return: value, gradient (n_tasks, n_params) and its norm (n_tasks,)
    """
    value = objective(params)
    gradient = flatten(grad(value.objective.sum(), params, create_graph=differentiable))
    return value, gradient, gradient.detach().norm(dim=1)
