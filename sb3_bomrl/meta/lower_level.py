"""The lower level: from a support rollout to adapted parameters, Eq. (A2)."""

from collections.abc import Callable
from functools import partial

import torch as th
from torch.distributions import Distribution

from sb3_bomrl.core.distances import STATE_DISTANCES, parameter_distance, policy_distance, policy_kl
from sb3_bomrl.core.inner_solvers import InnerSolver, InnerValue, Objective, solve_inner
from sb3_bomrl.core.surrogates import Surrogate, get_surrogate, likelihood_ratio
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Adaptation, Batch, Params


class LowerLevel:
    """
    F(θ, φ) of Eq. (A2) on one batch of data, and a ridge κ‖θ − φ‖² beside a distance that is a KL.

    A KL sees only the directions in which the policy changes on the sampled states. In all others the curvature of the
    surrogate decides, and where that is negative there is no minimum. The ridge has curvature 2κ in every direction.

    :param actor: policy as a function of stacked parameters
    :param batch: support data
    :param distance: ``"kl_meta_task"``, ``"kl_task_meta"`` or ``"parameter"``
    :param surrogate: h, or its name: ``"linear"``, ``"sigmoid"``, ``"clip"`` or ``"log"``
    :param reg_coef: λ > 0
    :param clip_range: ε of ``"clip"``
    :param ridge_coef: κ ≥ 0
    """

    def __init__(
        self,
        actor: Actor,
        batch: Batch,
        distance: str,
        surrogate: str | Surrogate,
        reg_coef: float,
        clip_range: float = 0.2,
        ridge_coef: float = 0.0,
    ) -> None:
        self.actor = actor
        self.batch = batch
        self.distance = distance
        self.surrogate = get_surrogate(surrogate, clip_range) if isinstance(surrogate, str) else surrogate
        self.reg_coef = reg_coef
        self.ridge_coef = ridge_coef if distance in STATE_DISTANCES else 0.0
        self._policy: Callable[[Params], Distribution] | None = None

    def policy(self, params: Params) -> Distribution:
        r"""
        Return π(·∣s) at the support states.

        :param params: stacked, each of shape (n_tasks, \*shape)
        :return: batch shape (n_tasks, n_samples)
        """
        if self._policy is None:
            self._policy = self.actor.at(self.batch.observations)
        return self._policy(params)

    def value(self, task_params: Params, meta_params: Params, meta_policy: Distribution) -> InnerValue:
        r"""
        Compute F = −(1/λ) Σ_t w_t h(π_θ/π_φ) A_t + D(φ, θ) + κ‖θ − φ‖², Eq. (A2).

        :param task_params: θ, each of shape (n_tasks, \*shape)
        :param meta_params: φ, same shapes
        :param meta_policy: π_φ at the support states
        :return: objective, distance (with the ridge) and KL per task
        """
        policy, w = self.policy(task_params), self.batch.weights
        ratio = likelihood_ratio(policy.log_prob(self.batch.actions), self.batch.log_probs)
        gain = (w * self.surrogate(ratio, self.batch.advantages) * self.batch.advantages).sum(-1)
        distance = policy_distance(self.distance, meta_params, task_params, meta_policy, policy, w)
        if self.distance == "kl_meta_task":
            kl = distance.detach()
        else:
            with th.no_grad():
                kl = policy_kl(meta_policy, policy, w)
        if self.ridge_coef > 0:
            distance = distance + self.ridge_coef * parameter_distance(meta_params, task_params)
        return InnerValue(distance - gain / self.reg_coef, distance, kl)

    def objective(self, meta_params: Params, differentiable: bool = False) -> Objective:
        r"""
        Return θ -> :meth:`value` at a fixed φ.

        :param meta_params: φ, each of shape (n_tasks, \*shape)
        :param differentiable: keep the graph of π_φ
        :return: the objective of the inner solvers
        """
        with th.set_grad_enabled(differentiable):
            meta_policy = self.policy(meta_params)
        return partial(self.value, meta_params=meta_params, meta_policy=meta_policy)

    def loss(self, task_params: Params, meta_params: Params) -> th.Tensor:
        r"""
        Compute F(θ, φ) as a function of both, for the hypergradient.

        :param task_params: θ, each of shape (n_tasks, \*shape)
        :param meta_params: φ, same shapes
        :return: (n_tasks,)
        """
        return self.value(task_params, meta_params, self.policy(meta_params)).objective

    def state_distance(self, task_params: Params, meta_params: Params) -> th.Tensor:
        r"""
        Compute d²(π_φ(·∣s), π_θ(·∣s)) at every support state, whose average is D for Alg(1) and Alg(2).

        :param task_params: θ, each of shape (n_tasks, \*shape)
        :param meta_params: φ, same shapes
        :return: (n_tasks, n_samples)
        :raises KeyError: for ``"parameter"``, which is no average over states
        """
        return STATE_DISTANCES[self.distance](self.policy(meta_params), self.policy(task_params))

    def metric(self, task_params: Params) -> th.Tensor:
        r"""
        Compute KL(π_θ held fixed ‖ π_θ), whose Hessian at θ is the Fisher matrix.

        :param task_params: θ, each of shape (n_tasks, \*shape)
        :return: (n_tasks,)
        """
        with th.no_grad():
            fixed = self.policy(task_params)
        return policy_kl(fixed, self.policy(task_params), self.batch.weights)


def adapt(lower: LowerLevel, meta_params: Params, solver: InnerSolver, differentiable: bool = False) -> Adaptation:
    r"""
    Solve the lower level: θ'_τ(φ) = argmin_θ F_τ(θ, φ), Eq. (A2), started at θ = φ.

    :param lower: the lower level on the support data
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param solver: method and limits
    :param differentiable: keep the graph from φ to θ'
    :return: adapted parameters and the solver's report
    """
    objective = lower.objective(meta_params, differentiable)
    return solve_inner(objective, meta_params, solver, lower.metric, differentiable)
