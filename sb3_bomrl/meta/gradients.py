"""Meta-gradients of all methods, side by side."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch as th

from sb3_bomrl.core.advantages import normalize
from sb3_bomrl.core.distances import policy_kl
from sb3_bomrl.core.hypergradient import (
    HYPERGRADIENTS,
    first_order_hypergradient,
    implicit_hypergradient,
    unrolled_hypergradient,
)
from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.linear_solve import SolveInfo, damped_solve
from sb3_bomrl.core.params import flatten, grad, mean_over_tasks, require_grad
from sb3_bomrl.core.surrogates import between_linear_and_log, get_surrogate
from sb3_bomrl.meta.batches import steps_in_episode
from sb3_bomrl.meta.chunks import join_params, map_chunks, take_batch, take_params, task_chunks
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.meta.policy_gradient import gradient_path, policy_gradient, query_surrogate
from sb3_bomrl.meta.sampling_term import sampling_term
from sb3_bomrl.policies.actor import Actor
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


def _in_chunks(actor: Actor, query: Batch, per_task: Callable[[slice], Params]) -> MetaGradient:
    """Mean of what a function says of every task's gradient, given a slice of the task axis, and its norms."""
    joined = join_params(map_chunks(actor, query, per_task, task_chunks(actor, query)))
    return MetaGradient(mean_over_tasks(joined), flatten(joined).norm(dim=1), None)


def _take_batches(batches: Sequence[Batch], tasks: slice) -> list[Batch]:
    return [take_batch(batch, tasks) for batch in batches]


def maml_meta_gradient(
    actor: Actor,
    supports: Sequence[Batch],
    meta_params: Params,
    adapted_params: Params,
    query: Batch,
    inner_lr: float,
    surrogate: str = "linear",
    first_order: bool = False,
) -> MetaGradient:
    r"""
    MAML's meta-gradient (Finn et al., 2017, Algorithm 3): Π_k (I + α H_k) ∇J(θ_K), H_k the Hessian of step k.

    With the linear h that Hessian is the low-variance-curvature estimate of ∇²J (Rothfuss et al., 2019, Section 5);
    with the log it has the terms ∇² log π A alone.

    :param actor: policy as a function of stacked parameters
    :param supports: data of each inner step
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param adapted_params: θ_K, same shapes
    :param query: data of π_θK
    :param inner_lr: α > 0
    :param surrogate: h of the inner steps, ``"linear"`` or ``"log"``
    :param first_order: leave the Hessians out (Finn et al., 2017, Section 5.2): FOMAML
    :return: mean over tasks, and reports
    """

    def per_task(tasks: slice) -> Params:
        cotangent = policy_gradient(actor, take_batch(query, tasks), take_params(adapted_params, tasks))
        if first_order:
            return first_order_hypergradient(cotangent)
        phi = require_grad(take_params(meta_params, tasks))
        path = gradient_path(actor, _take_batches(supports, tasks), phi, inner_lr, surrogate)
        return unrolled_hypergradient(path[-1], phi, cotangent)

    return _in_chunks(actor, query, per_task)


def emaml_meta_gradient(
    actor: Actor,
    supports: Sequence[Batch],
    steps: Sequence[Batch],
    meta_params: Params,
    adapted_params: Params,
    query: Batch,
    credit: th.Tensor,
    credit_coef: float,
    inner_lr: float,
) -> MetaGradient:
    r"""
    E-MAML's meta-gradient: MAML's, plus the credit to what was sampled before adapting,

        E[ [dθ_K/dφ]ᵀ ∇J(θ_K) + c J(θ_K) ∇_φ Σ_k Σ_t log π_θk(a_t∣s_t) ]

    (Stadie et al., 2018; for K > 1 Al-Shedivat et al., 2018). The sums are over all that was sampled in step k, and θ_k
    depends on φ. The Hessian of the likelihood ratio, ∇² log π A + ∇log π ∇log πᵀ A, has a part of the credit in its
    second term: that of a_t for what it does to the inner step by its own A_t. The inner steps take it with the weight
    1 − c, h(r) = (1 − c) r + c (1 + log r), so that it counts once whatever c is.

    :param actor: policy as a function of stacked parameters
    :param supports: data of each inner step
    :param steps: the same data, every sampled step by itself, with weight 1 where it counts
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param adapted_params: θ_K, same shapes
    :param query: data of π_θK
    :param credit: (n_tasks,), J(θ_K) less a baseline that does not depend on the task's own support data
    :param credit_coef: c ≥ 0; 1 is unbiased, 0 leaves MAML
    :param inner_lr: α > 0
    :return: mean over tasks, and reports
    """
    surrogate = between_linear_and_log(credit_coef)

    def per_task(tasks: slice) -> Params:
        cotangent = policy_gradient(actor, take_batch(query, tasks), take_params(adapted_params, tasks))
        phi = require_grad(take_params(meta_params, tasks))
        path = gradient_path(actor, _take_batches(supports, tasks), phi, inner_lr, surrogate)
        scores = [
            (step.weights * actor(theta, step.observations).log_prob(step.actions)).sum(-1)
            for theta, step in zip(path[:-1], _take_batches(steps, tasks), strict=True)
        ]
        score = credit_coef * (credit[tasks] * th.stack(scores).sum(0)).sum()
        inner = th.stack([(path[-1][name] * value.detach()).sum() for name, value in cotangent.items()]).sum()
        return grad(inner + score, phi)

    return _in_chunks(actor, query, per_task)


def leave_one_out_credit(query: Rollout, visitation_gamma: float, normalize_advantage: bool) -> th.Tensor:
    r"""
    J_τ(θ_K) less the mean of the other tasks', in the units of the query surrogate's gradient.

    J_τ is the return of the episodes, which γ discounts only where the visitation is: where it is not, the policy
    gradient's γ in the advantages is a means against variance (Schulman et al., 2016, Section 3), and J_τ has none.

    The baseline is that of the other tasks because the task's own returns before adaptation depend on the very data
    that are to be credited. With one task there is none.

    :param query: post-adaptation rollout, with advantages
    :param visitation_gamma: γ where steps are weighted by γ^t, else 1
    :param normalize_advantage: whether the query advantages are divided by the standard deviation that all tasks share
    :return: (n_tasks,)
    """
    weights = query.mask.double()
    if visitation_gamma < 1.0:
        weights = weights * visitation_gamma ** steps_in_episode(query).double()
    n_episodes = (query.episode_starts & query.mask).sum((1, 2))
    returns = (weights * query.rewards).sum((1, 2)) / n_episodes
    n_tasks = len(returns)
    if n_tasks > 1:
        returns = returns - (returns.sum() - returns) / (n_tasks - 1)
    credit = returns * n_episodes / weights.sum((1, 2))
    if not normalize_advantage:
        return credit
    centred = normalize(query.advantages, query.mask, scale=False)
    variance = centred.square().sum((1, 2)) / query.mask.sum((1, 2)).clamp(min=1)
    return credit / (variance.mean().sqrt() + 1e-8)


def promp_meta_gradient(
    actor: Actor,
    supports: Sequence[Batch],
    sampling_params: Sequence[Params],
    meta_params: Params,
    query: Batch,
    inner_lr: float,
    clip_range: float,
    kl_coefs: th.Tensor,
) -> tuple[MetaGradient, th.Tensor]:
    r"""
    ProMP's meta-gradient (Rothfuss et al., 2019, Section 6 and Algorithm 1): that of

        Σ_t w_t min(r_t A_t, clip(r_t, 1 − ε, 1 + ε) A_t) − (1/K) Σ_k η_k KL(π_θk,old ‖ π_θk),  r_t = π_θK / π_θK,old,

    through the inner steps, whose likelihood ratio is that of the low-variance-curvature estimator. All data may come
    from an older φ; at the φ that sampled them the KL's own gradient is zero.

    :param actor: policy as a function of stacked parameters
    :param supports: data of each inner step
    :param sampling_params: θ_k,old that sampled them, each of shape (n_tasks, \*shape); the first is the older φ
    :param meta_params: φ, same shapes
    :param query: data of π_θK,old
    :param inner_lr: α > 0
    :param clip_range: ε > 0
    :param kl_coefs: η, (n_inner_steps,)
    :return: mean over tasks with reports, and (n_inner_steps,) KL of every inner step, mean over tasks, in nats
    """
    kl = th.zeros(len(supports), len(query.weights)).to(query.weights)

    def per_task(tasks: slice) -> Params:
        phi, batches = require_grad(take_params(meta_params, tasks)), _take_batches(supports, tasks)
        path = gradient_path(actor, batches, phi, inner_lr)
        divergences = []
        for old, new, support in zip(sampling_params, path[:-1], batches, strict=True):
            with th.no_grad():
                sampled = actor(take_params(old, tasks), support.observations)
            divergences.append(policy_kl(sampled, actor(new, support.observations), support.weights))
        divergence = th.stack(divergences)
        kl[:, tasks] = divergence.detach()
        gain = query_surrogate(actor, take_batch(query, tasks), path[-1], get_surrogate("clip", clip_range))
        return grad((gain - (kl_coefs.to(kl)[:, None] * divergence).mean(0)).sum(), phi)

    return _in_chunks(actor, query, per_task), kl.mean(1)


def reptile_meta_gradient(
    actor: Actor,
    supports: Sequence[Batch],
    meta_params: Params,
    adapted_params: Params,
    inner_lr: float,
    surrogate: str = "linear",
) -> MetaGradient:
    r"""
    Reptile's direction θ_K − φ (Nichol et al., 2018, Algorithm 1), with the last inner steps still to be made.

    :param actor: policy as a function of stacked parameters
    :param supports: data of the inner steps that remain
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param adapted_params: where the inner steps have got to, same shapes
    :param inner_lr: α > 0
    :param surrogate: h, as in :func:`gradient_path`; it does not matter to a first derivative
    :return: mean over tasks, and reports
    """

    def per_task(tasks: slice) -> Params:
        theta = require_grad(take_params(adapted_params, tasks))
        last = gradient_path(actor, _take_batches(supports, tasks), theta, inner_lr, surrogate)[-1]
        return {name: value.detach() - meta_params[name][tasks] for name, value in last.items()}

    return _in_chunks(actor, supports[0], per_task)
