r"""
Meta-gradients of all methods, side by side, one function each.

BO-MRL pulls the policy gradient at θ' back through the solution of its lower level. The others adapt by K
policy-gradient steps θ_{k+1} = θ_k + α ∇_θ Σ_t w_t h(r_t) A_t, θ_0 = φ, each on fresh data of π_θk:

- MAML: [dθ_K/dφ]ᵀ ∇J(θ_K), the data held where they are;
- FOMAML: ∇J(θ_K) alone, the Hessians in dθ_K/dφ left out;
- E-MAML: MAML's, and the score-function term for the data having been sampled with φ;
- ProMP: MAML's, of a clipped outer objective that holds for several outer steps, with a KL penalty on the inner steps;
- Reptile: θ_K − φ.

Every function returns the gradient of each task; no task depends on another.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch as th

from sb3_bomrl.checks import check_choice
from sb3_bomrl.core.advantages import advantage_scale
from sb3_bomrl.core.distances import policy_kl
from sb3_bomrl.core.hypergradient import unrolled_hypergradient
from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.linear_solve import SolveInfo, damped_solve
from sb3_bomrl.core.params import flatten, grad, mean_over_tasks, require_grad
from sb3_bomrl.core.surrogates import between_linear_and_log, get_surrogate
from sb3_bomrl.meta.hypergradients import HYPERGRADIENTS, SamplingTerm, SolvedLowerLevel
from sb3_bomrl.meta.lower_level import LowerLevel
from sb3_bomrl.meta.policy_gradient import StepSize, gradient_path, policy_gradient, query_surrogate
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Batch, Params, Rollout


class MetaGradient(NamedTuple):
    """
    Gradients of J_τ(π_θ'(φ)) with respect to φ.

    :param per_task: each of shape (n_tasks, \\*shape)
    :param solve: report of the linear solver, ``None`` where none was used
    """

    per_task: Params
    solve: SolveInfo | None = None

    @property
    def gradient(self) -> Params:
        """Mean over tasks, each of shape \\*shape."""
        return mean_over_tasks(self.per_task)

    @property
    def task_norms(self) -> th.Tensor:
        """Norm of each task's gradient, (n_tasks,)."""
        return flatten(self.per_task).norm(dim=1)


def bomrl_meta_gradient(
    lower: LowerLevel,
    meta_params: Params,
    adapted_params: Params,
    query: Batch,
    hypergradient: str = "implicit",
    solver: InnerSolver = InnerSolver(),  # noqa: B008 — immutable
    cg_max_steps: int = 10,
    cg_damping: float = 0.0,
    sampling_term: SamplingTerm | None = None,
) -> MetaGradient:
    r"""
    Pull the policy gradient at θ' back to φ, Eq. (A3): BO-MRL's meta-gradient.

    :param lower: the lower level on the support data
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param adapted_params: θ', same shapes
    :param query: post-adaptation data
    :param hypergradient: a key of :data:`~sb3_bomrl.meta.hypergradients.HYPERGRADIENTS`
    :param solver: inner solver, for ``"unrolled"``
    :param cg_max_steps: largest number of conjugate-gradient iterations, for the implicit forms
    :param cg_damping: δ of each task relative to the curvature along its right-hand side, see
        :func:`~sb3_bomrl.core.linear_solve.damped_solve`
    :param sampling_term: x -> [part (b)]ᵀ x, for ``"implicit_sampling"``
    :return: hypergradient per task, and the linear solver's report
    :raises ValueError: for an unknown ``hypergradient``
    """
    check_choice("hypergradient", hypergradient, tuple(HYPERGRADIENTS))
    cotangent = policy_gradient(lower.actor, query, adapted_params)
    solve = partial(damped_solve, max_iterations=cg_max_steps, relative_damping=cg_damping)
    solved = SolvedLowerLevel(lower, meta_params, adapted_params, cotangent, solver, solve, sampling_term)
    return MetaGradient(*HYPERGRADIENTS[hypergradient](solved))


def maml_meta_gradient(
    actor: Actor,
    supports: Sequence[Batch],
    meta_params: Params,
    adapted_params: Params,
    query: Batch,
    step_size: StepSize,
    surrogate: str = "linear",
) -> MetaGradient:
    r"""
    Compute MAML's Π_k (I + α H_k) ∇J(θ_K), H_k the Hessian of step k (Finn et al., 2017, Algorithm 3).

    With the linear h that Hessian is the low-variance-curvature estimate of ∇²J (Rothfuss et al., 2019, Section 5);
    with the log it has the terms ∇² log π A alone.

    :param actor: policy as a function of stacked parameters
    :param supports: data of each inner step
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param adapted_params: θ_K, same shapes
    :param query: data of π_θK
    :param step_size: α of the inner steps
    :param surrogate: h of the inner steps, ``"linear"`` or ``"log"``
    :return: gradient per task
    """
    cotangent, phi = policy_gradient(actor, query, adapted_params), require_grad(meta_params)
    path = gradient_path(actor, supports, phi, step_size, surrogate)
    return MetaGradient(unrolled_hypergradient(path[-1], phi, cotangent))


def fomaml_meta_gradient(actor: Actor, adapted_params: Params, query: Batch) -> MetaGradient:
    r"""
    Compute first-order MAML's ∇J(θ_K) (Finn et al., 2017, Section 5.2).

    :param actor: policy as a function of stacked parameters
    :param adapted_params: θ_K, each of shape (n_tasks, \*shape)
    :param query: data of π_θK
    :return: gradient per task
    """
    return MetaGradient(policy_gradient(actor, query, adapted_params))


def emaml_meta_gradient(
    actor: Actor,
    supports: Sequence[Batch],
    steps: Sequence[Batch],
    meta_params: Params,
    adapted_params: Params,
    query: Batch,
    credit: th.Tensor,
    credit_weight: float,
    step_size: StepSize,
) -> MetaGradient:
    r"""
    Compute E-MAML's meta-gradient: MAML's, plus the credit to what was sampled before adapting,

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
    :param credit_weight: c ≥ 0; 1 is unbiased, 0 leaves MAML
    :param step_size: α of the inner steps
    :return: gradient per task
    """
    cotangent, phi = policy_gradient(actor, query, adapted_params), require_grad(meta_params)
    path = gradient_path(actor, supports, phi, step_size, between_linear_and_log(credit_weight))
    scores = [
        (step.weights * actor(theta, step.observations).log_prob(step.actions)).sum(-1)
        for theta, step in zip(path[:-1], steps, strict=True)
    ]
    score = credit_weight * (credit * th.stack(scores).sum(0)).sum()
    inner = th.stack([(path[-1][name] * value.detach()).sum() for name, value in cotangent.items()]).sum()
    return MetaGradient(grad(inner + score, phi))


def leave_one_out_credit(query: Rollout, visitation: th.Tensor, normalize_advantage: bool) -> th.Tensor:
    r"""
    Compute J_τ(θ_K) less the mean of the other tasks', in the units of the query surrogate's gradient.

    J_τ is the return of the episodes, discounted only where the visitation is: elsewhere the γ in the advantages of
    the policy gradient is a means against variance (Schulman et al., 2016, Section 3).

    The baseline is that of the other tasks because the task's own returns before adaptation depend on the very data
    that are to be credited. With one task there is none.

    :param query: post-adaptation rollout, with advantages
    :param visitation: weight of every step, from :func:`~sb3_bomrl.meta.batches.state_visitation`
    :param normalize_advantage: whether the query advantages are divided by the standard deviation that all tasks share
    :return: (n_tasks,)
    """
    n_episodes = (query.episode_starts & query.mask).sum((1, 2))
    returns = (visitation * query.rewards).sum((1, 2)) / n_episodes
    n_tasks = len(returns)
    if n_tasks > 1:
        returns = returns - (returns.sum() - returns) / (n_tasks - 1)
    credit = returns * n_episodes / visitation.sum((1, 2))
    if not normalize_advantage:
        return credit
    return credit / advantage_scale(query.advantages, query.mask, query.rewards, shared_scale=True)


def promp_meta_gradient(
    actor: Actor,
    supports: Sequence[Batch],
    sampling_params: Sequence[Params],
    meta_params: Params,
    query: Batch,
    step_size: StepSize,
    clip_range: float,
    kl_coefs: th.Tensor,
) -> tuple[MetaGradient, th.Tensor]:
    r"""
    Compute ProMP's meta-gradient (Rothfuss et al., 2019, Section 6 and Algorithm 1), that of

        Σ_t w_t min(r_t A_t, clip(r_t, 1 − ε, 1 + ε) A_t) − (1/K) Σ_k η_k KL(π_θk,old ‖ π_θk),  r_t = π_θK / π_θK,old,

    through the inner steps, whose likelihood ratio is that of the low-variance-curvature estimator. All data may come
    from an older φ; at the φ that sampled them the KL's own gradient is zero.

    :param actor: policy as a function of stacked parameters
    :param supports: data of each inner step
    :param sampling_params: θ_k,old that sampled them, each of shape (n_tasks, \*shape); the first is the older φ
    :param meta_params: φ, same shapes
    :param query: data of π_θK,old
    :param step_size: α of the inner steps
    :param clip_range: ε > 0
    :param kl_coefs: η, (K,)
    :return: gradient per task, and the KL of every inner step, (n_tasks, K), in nats
    """
    phi = require_grad(meta_params)
    path = gradient_path(actor, supports, phi, step_size)
    divergences = []
    for old, new, support in zip(sampling_params, path[:-1], supports, strict=True):
        with th.no_grad():
            sampled = actor(old, support.observations)
        divergences.append(policy_kl(sampled, actor(new, support.observations), support.weights))
    kl = th.stack(divergences, dim=1)
    gain = query_surrogate(actor, query, path[-1], get_surrogate("clip", clip_range))
    return MetaGradient(grad((gain - (kl_coefs.to(kl) * kl).mean(1)).sum(), phi)), kl.detach()


def reptile_meta_gradient(
    actor: Actor, supports: Sequence[Batch], meta_params: Params, adapted_params: Params, step_size: StepSize
) -> MetaGradient:
    r"""
    Make the last inner steps, then return Reptile's direction θ_K − φ (Nichol et al., 2018, Algorithm 1).

    :param actor: policy as a function of stacked parameters
    :param supports: data of the inner steps that remain
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param adapted_params: where the inner steps have got to, same shapes
    :param step_size: α of the inner steps
    :return: direction per task
    """
    last = gradient_path(actor, supports, require_grad(adapted_params), step_size)[-1]
    return MetaGradient({name: value.detach() - meta_params[name] for name, value in last.items()})
