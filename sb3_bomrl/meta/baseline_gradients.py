r"""
Meta-gradients of the methods whose adaptation is K policy-gradient steps, side by side.

All share the inner step θ_{k+1} = θ_k + α ∇_θ Σ_t w_t h(r_t) A_t, θ_0 = φ, each on fresh data of π_θk, and differ in
what they make of it:

- MAML: [dθ_K/dφ]ᵀ ∇J(θ_K), the data held where they are;
- FOMAML: ∇J(θ_K) alone, the Hessians in dθ_K/dφ left out;
- E-MAML: MAML's, and the score-function term for the data having been sampled with φ;
- ProMP: MAML's, of a clipped outer objective that holds for several outer steps, with a KL penalty on the inner steps;
- Reptile: θ_K − φ.
"""

from collections.abc import Callable, Sequence

import torch as th

from sb3_bomrl.actor import Actor
from sb3_bomrl.core.advantages import normalize
from sb3_bomrl.core.distances import policy_kl
from sb3_bomrl.core.hypergradient import first_order_hypergradient, unrolled_hypergradient
from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.params import flatten, grad, mean_over_tasks, require_grad
from sb3_bomrl.core.surrogates import Surrogate, between_linear_and_log, get_surrogate
from sb3_bomrl.meta.adaptation import LowerLevel, adapt, steps_in_episode
from sb3_bomrl.meta.chunks import join_params, map_chunks, take_batch, take_params, task_chunks
from sb3_bomrl.meta.gradients import MetaGradient, policy_gradient, query_surrogate
from sb3_bomrl.types import Adaptation, Batch, Params, Rollout


def _in_chunks(actor: Actor, query: Batch, per_task: Callable[[slice], Params]) -> MetaGradient:
    """Mean of what a function says of every task's gradient, given a slice of the task axis, and its norms."""
    joined = join_params(map_chunks(actor, query, per_task, task_chunks(actor, query)))
    return MetaGradient(mean_over_tasks(joined), flatten(joined).norm(dim=1), None)


def _take_batches(batches: Sequence[Batch], tasks: slice) -> list[Batch]:
    return [take_batch(batch, tasks) for batch in batches]


def policy_gradient_step(
    actor: Actor,
    support: Batch,
    params: Params,
    inner_lr: float,
    surrogate: str | Surrogate = "linear",
    differentiable: bool = False,
    tasks_per_chunk: int | None = None,
) -> Adaptation:
    r"""
    θ + α ∇_θ Σ_t w_t h(π_θ/π_old) A_t (Finn et al., 2017, Section 2.2), as one gradient step on Eq. (A2) of Alg(3) with
    λ = 1, whose distance has no slope where it starts.

    :param actor: policy as a function of stacked parameters
    :param support: data of the step
    :param params: θ, each of shape (n_tasks, \*shape)
    :param inner_lr: α > 0
    :param surrogate: h, or its name, ``"linear"`` (likelihood ratio) or ``"log"`` (log-likelihood)
    :param differentiable: keep the graph; ``params`` must then require a gradient
    :param tasks_per_chunk: see :func:`~sb3_bomrl.meta.chunks.task_chunks`
    :return: the new parameters and the solver's report
    """
    lower = LowerLevel(actor, support, "parameter", surrogate, 1.0, tasks_per_chunk=tasks_per_chunk)
    return adapt(lower, params, InnerSolver("sgd", inner_lr, 1, float("inf")), differentiable)


def gradient_path(
    actor: Actor,
    supports: Sequence[Batch],
    meta_params: Params,
    inner_lr: float,
    surrogate: str | Surrogate = "linear",
) -> list[Params]:
    r"""
    The inner steps with their graph.

    :param actor: policy as a function of stacked parameters
    :param supports: data of each step, K of them
    :param meta_params: θ_0 = φ, each of shape (n_tasks, \*shape), requiring a gradient
    :param inner_lr: α > 0
    :param surrogate: h, as in :func:`policy_gradient_step`
    :return: θ_0 … θ_K, differentiable in φ
    """
    path = [meta_params]
    for support in supports:
        path.append(policy_gradient_step(actor, support, path[-1], inner_lr, surrogate, differentiable=True).params)
    return path


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
