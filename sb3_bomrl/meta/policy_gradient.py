"""Policy gradients of all tasks, and the steps that follow them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch as th

from sb3_bomrl.core.gradient_step import limited_gradient_step
from sb3_bomrl.core.params import grad, require_grad
from sb3_bomrl.core.surrogates import Surrogate, likelihood_ratio
from sb3_bomrl.core.surrogates import linear as linear_surrogate
from sb3_bomrl.meta.lower_level import LowerLevel
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Adaptation, Batch, Params


class StepSize(NamedTuple):
    """
    Step sizes of the inner policy-gradient steps.

    :param first: α > 0 of the first step of a task
    :param decay: factor on α of every further step, > 0
    :param max_kl: limit of KL(π_θk ‖ π_θk+1), in nats; a step beyond it is halved until it is within
    """

    first: float
    decay: float = 1.0
    max_kl: float = float("inf")

    def at(self, number: int) -> float:
        """
        Return the size of a step.

        :param number: number of the step, from 0
        :return: α of the first step, α · decay of the others
        """
        return self.first if number == 0 else self.first * self.decay


def query_surrogate(
    actor: Actor, query: Batch, task_params: Params, surrogate: Surrogate = linear_surrogate
) -> th.Tensor:
    r"""
    Compute Σ_t w_t h(π_θ/π_θ') A_t on data of π_θ', whose gradient at θ = θ' is the policy gradient of task τ.

    :param actor: policy as a function of stacked parameters
    :param query: post-adaptation data
    :param task_params: θ, each of shape (n_tasks, \*shape)
    :param surrogate: h, by default the linear one
    :return: (n_tasks,)
    """
    log_prob = actor(task_params, query.observations).log_prob(query.actions)
    ratio = likelihood_ratio(log_prob, query.log_probs)
    return (query.weights * surrogate(ratio, query.advantages) * query.advantages).sum(-1)


def policy_gradient(actor: Actor, query: Batch, task_params: Params) -> Params:
    r"""
    Compute ∇_θ J_τ at θ', the cotangent of Eq. (A3).

    :param actor: policy as a function of stacked parameters
    :param query: post-adaptation data
    :param task_params: θ', each of shape (n_tasks, \*shape)
    :return: same shapes
    """
    theta = require_grad(task_params)
    return grad(query_surrogate(actor, query, theta).sum(), theta)


def policy_gradient_step(
    actor: Actor,
    support: Batch,
    params: Params,
    inner_lr: float,
    surrogate: str | Surrogate = "linear",
    differentiable: bool = False,
    max_kl: float = float("inf"),
) -> Adaptation:
    r"""
    Take one step θ + 2⁻ⁿ α ∇_θ Σ_t w_t h(π_θ/π_old) A_t (Finn et al., 2017, Section 2.2), n = 0 without ``max_kl``.

    It is one gradient step on Eq. (A2) of Alg(3) with λ = 1, whose distance has no slope where it starts.

    :param actor: policy as a function of stacked parameters
    :param support: data of the step
    :param params: θ, each of shape (n_tasks, \*shape)
    :param inner_lr: α > 0
    :param surrogate: h, or its name, ``"linear"`` (likelihood ratio) or ``"log"`` (log-likelihood)
    :param differentiable: keep the graph; ``params`` must then require a gradient
    :param max_kl: limit of KL(π_old ‖ π_new) at the support states, see
        :func:`~sb3_bomrl.core.gradient_step.limited_gradient_step`
    :return: the new parameters and the solver's report
    """
    lower = LowerLevel(actor, support, "parameter", surrogate, reg_coef=1.0)
    return limited_gradient_step(lower.objective(params, differentiable), params, inner_lr, max_kl, differentiable)


def gradient_path(
    actor: Actor,
    supports: Sequence[Batch],
    meta_params: Params,
    step_size: StepSize,
    surrogate: str | Surrogate = "linear",
) -> list[Params]:
    r"""
    Take the inner steps and keep their graph.

    :param actor: policy as a function of stacked parameters
    :param supports: data of each step, K of them
    :param meta_params: θ_0 = φ, each of shape (n_tasks, \*shape), requiring a gradient
    :param step_size: α of every step and its limit
    :param surrogate: h, as in :func:`policy_gradient_step`
    :return: θ_0 … θ_K, differentiable in φ
    """
    path = [meta_params]
    for number, support in enumerate(supports):
        step = (step_size.at(number), surrogate, True, step_size.max_kl)
        path.append(policy_gradient_step(actor, support, path[-1], *step).params)
    return path
