"""Meta-gradients: functions (meta_params, support, adapted, query) -> gradient of the post-adaptation return."""

from functools import partial
from typing import NamedTuple

import torch as th

from sb3_bomrl.actor import Actor
from sb3_bomrl.core.hypergradient import (
    HYPERGRADIENTS,
    first_order_hypergradient,
    implicit_hypergradient,
    score_function_sampling_term,
    unrolled_hypergradient,
)
from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.linear_solve import SolveInfo, damped_solve
from sb3_bomrl.core.params import flatten, grad, mean_over_tasks, require_grad
from sb3_bomrl.core.surrogates import Surrogate, likelihood_ratio
from sb3_bomrl.core.surrogates import linear as linear_surrogate
from sb3_bomrl.meta.adaptation import LowerLevel, adapt
from sb3_bomrl.meta.chunks import join_params, take_batch, take_params
from sb3_bomrl.rollout.estimation import linear_features
from sb3_bomrl.types import Batch, Params, Rollout


class MetaGradient(NamedTuple):
    """
    Gradient of E_τ[J_τ(π_θ'(φ))] with respect to φ.

    :param gradient: mean over tasks, each of shape \\*shape
    :param task_norms: (n_tasks,) norm of each task's own contribution
    :param solve: report of the linear solver, ``None`` where none was used
    """

    gradient: Params
    task_norms: th.Tensor
    solve: SolveInfo | None


def query_surrogate(
    actor: Actor, query: Batch, task_params: Params, surrogate: Surrogate = linear_surrogate
) -> th.Tensor:
    r"""
    Σ_t w_t h(π_θ(a_t∣s_t)/π_θ'(a_t∣s_t)) A_t on data of π_θ': its gradient at θ = θ' is the policy gradient of task τ.

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
    ∇_θ J_τ at θ', the cotangent of Eq. (A3).

    :param actor: policy as a function of stacked parameters
    :param query: post-adaptation data
    :param task_params: θ', each of shape (n_tasks, \*shape)
    :return: same shapes
    """
    theta = require_grad(task_params)
    return grad(query_surrogate(actor, query, theta).sum(), theta)


def bomrl_meta_gradient(
    lower: LowerLevel,
    support: Rollout,
    meta_params: Params,
    adapted_params: Params,
    query: Batch,
    solver: InnerSolver,
    hypergradient: str,
    gamma: float,
    cg_max_steps: int = 10,
    cg_damping: float = 0.0,
    unmerged: LowerLevel | None = None,
    baseline_is_fitted: bool = False,
) -> MetaGradient:
    r"""
    BO-MRL's meta-gradient: the policy gradient at θ', pulled back to φ, Eq. (A3), in chunks of tasks.

    :param lower: the lower level on the support data
    :param support: support rollout, with its time axis
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param adapted_params: θ', same shapes
    :param query: post-adaptation data
    :param solver: inner solver, for ``"unrolled"``
    :param hypergradient: ``"implicit"``, ``"implicit_sampling"``, ``"unrolled"`` or ``"first_order"``
    :param gamma: discount factor in [0, 1], for ``"implicit_sampling"``
    :param cg_max_steps: largest number of conjugate-gradient iterations
    :param cg_damping: δ of each task relative to the curvature along its right-hand side, see
        :func:`~sb3_bomrl.core.linear_solve.damped_solve`
    :param unmerged: the lower level on every single step of ``support``, which ``"implicit_sampling"`` needs, where the
        samples of ``lower`` were merged
    :param baseline_is_fitted: whether the advantages' baseline was fitted to ``support``, for ``"implicit_sampling"``
    :return: mean hypergradient over tasks, and reports
    :raises ValueError: for an unknown ``hypergradient``
    """
    if hypergradient not in HYPERGRADIENTS:
        raise ValueError(f"hypergradient must be one of {HYPERGRADIENTS}, got {hypergradient!r}")

    def pull_back(tasks: slice) -> tuple[Params, SolveInfo | None]:
        part, phi, theta = lower.take(tasks), take_params(meta_params, tasks), take_params(adapted_params, tasks)
        cotangent = policy_gradient(lower.actor, take_batch(query, tasks), theta)
        if hypergradient == "first_order":
            return first_order_hypergradient(cotangent), None
        if hypergradient == "unrolled":
            phi = require_grad(phi)
            path = adapt(part, phi, solver, differentiable=True)
            return unrolled_hypergradient(path.params, phi, cotangent), None
        solve = partial(damped_solve, max_iterations=cg_max_steps, relative_damping=cg_damping)
        sampling = None
        if hypergradient == "implicit_sampling":
            every_step = part if unmerged is None else unmerged.take(tasks)
            rollout = _take_rollout(support, tasks)
            sampling = partial(
                sampling_term, every_step, rollout, phi, theta, gamma, baseline_is_fitted=baseline_is_fitted
            )
        return implicit_hypergradient(part.loss, theta, phi, cotangent, solve, sampling)

    gradients, infos = zip(*lower.map_chunks(pull_back), strict=True)
    joined = join_params(list(gradients))
    report = None if infos[0] is None else SolveInfo(*map(th.cat, zip(*infos, strict=True)))
    return MetaGradient(mean_over_tasks(joined), flatten(joined).norm(dim=1), report)


def _take_rollout(rollout: Rollout, tasks: slice) -> Rollout:
    """What :func:`sampling_term` reads of some tasks' rollout."""
    names = ("rewards", "episode_starts", "episode_ends", "mask")
    return rollout._replace(**{name: getattr(rollout, name)[tasks] for name in names})


def sampling_term(
    lower: LowerLevel,
    support: Rollout,
    meta_params: Params,
    adapted_params: Params,
    gamma: float,
    direction: Params,
    baseline_is_fitted: bool = False,
) -> Params:
    r"""
    Part (b) of the mixed derivative on support data, Eq. (A6), with the visitation of the distance.

    :param lower: the lower level on the support data
    :param support: the same data with their time axis
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param adapted_params: θ', same shapes
    :param gamma: discount factor in [0, 1]
    :param direction: x of Eq. (A3), same shapes
    :param baseline_is_fitted: whether the advantages' baseline was fitted to ``support``, linear in
        :func:`~sb3_bomrl.rollout.estimation.linear_features`, and so moves with φ
    :return: [part (b)]ᵀ x, same shapes
    """
    shape, device = support.rewards.shape, lower.batch.weights.device

    def log_prob(params: Params) -> th.Tensor:
        return lower.policy(params).log_prob(lower.batch.actions).reshape(shape)

    def state_distance(params: Params) -> th.Tensor:
        return lower.state_distance(params, meta_params).reshape(shape)

    features = None
    if baseline_is_fitted:
        features = linear_features(lower.actor.policy.observation_space, lower.batch.observations)
        features = features.reshape(*shape, -1) * support.mask.to(device)[..., None]
    return score_function_sampling_term(
        log_prob,
        adapted_params,
        meta_params,
        direction,
        lower.surrogate,
        lower.batch.advantages.reshape(shape),
        lower.batch.weights.reshape(shape),
        support.episode_starts.to(device),
        support.episode_ends.to(device),
        gamma,
        lower.reg_coef,
        None if lower.distance == "parameter" else state_distance,
        features,
    )
