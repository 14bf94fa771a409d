"""One gradient step on the lower level whose KL is limited, for all tasks at once."""

import torch as th

from sb3_bomrl.core.inner_solvers import InnerStatus, Objective, evaluate
from sb3_bomrl.core.params import flatten, require_grad, unflatten
from sb3_bomrl.types import Adaptation, Params

MAX_HALVINGS = 30
"""Times that a step is halved before its task stays where it is."""


def limited_gradient_step(
    objective: Objective, params: Params, step_size: float, max_kl: float, differentiable: bool = False
) -> Adaptation:
    r"""
    Take one step θ − 2⁻ⁿ α ∇F(θ), with n the smallest number for which the KL of each task is within its limit.

    n is a constant of the derivative: it is the same on a neighbourhood of θ, but for the θ where it jumps.

    :param objective: θ, each of shape (n_tasks, \*shape) -> :class:`~sb3_bomrl.core.inner_solvers.InnerValue`, with the
        KL from the policy before the step
    :param params: θ, each of shape (n_tasks, \*shape)
    :param step_size: α > 0
    :param max_kl: largest KL of the step, in nats
    :param differentiable: keep the graph from ``params``, which must require a gradient, to the new parameters
    :return: new parameters with objective, distance, KL and gradient norm there. The status is ``KL_LIMIT`` where
        n > 0, and ``NON_FINITE`` where no step of finite objective was found; such a task stays at θ
    """
    leaves = params if differentiable else require_grad(params)
    theta = flatten(params)
    value, gradient, norm = evaluate(objective, leaves, differentiable)
    is_finite = value.objective.isfinite() & norm.isfinite()
    scale = is_finite.to(theta)

    def moved() -> Params:
        # where the scale is 0, the gradient may be not finite
        new = theta - step_size * scale[:, None] * gradient
        return unflatten(th.where((scale > 0)[:, None], new, theta), params)

    for n in range(MAX_HALVINGS + 1):
        with th.no_grad():
            there = objective(moved())
        too_far = is_finite & ~((there.kl <= max_kl) & there.objective.isfinite())  # nan is too far as well
        if not too_far.any():
            break
        scale = th.where(too_far, scale / 2 if n < MAX_HALVINGS else 0.0, scale)

    new = moved()
    value, _, norm = evaluate(objective, new if differentiable else require_grad(new), differentiable)
    status = th.full_like(scale, InnerStatus.MAX_STEPS, dtype=th.long)
    status[scale < 1] = InnerStatus.KL_LIMIT
    status[scale == 0] = InnerStatus.NON_FINITE
    new = new if differentiable else {name: x.detach() for name, x in new.items()}
    objective_there, distance, kl = (x.detach() for x in value)
    return Adaptation(new, (scale > 0).long(), objective_there, distance, kl, norm, status)
