r"""
Exact optimality gaps of adapted policies in finite MDPs, and the bounds B1 to B4 on them.

The proofs are in ``docs/theory.md``, in the notation of this file. The optimum is each task's own.
"""

from typing import TypedDict

import torch as th

from sb3_bomrl.checks import check_choice, check_positive
from sb3_bomrl.core.distances import DISTANCES
from sb3_bomrl.tabular.adaptation import adaptation_path, lower_level_objective
from sb3_bomrl.tabular.distances import expected_distance, state_distances
from sb3_bomrl.tabular.mdp import FiniteMDP
from sb3_bomrl.tabular.solvers import expected_return, optimal_policy, policy_value, state_visitation, transition_under
from sb3_bomrl.theory.comparators import N_OPTIMAL_FAMILY, comparators

_CONDITION_TOLERANCE = 1e-10


class Bounds(TypedDict):
    """
    Upper bounds on :math:`J^* - J(\\pi_K)`, each of shape (...); infinite where a bound says nothing.

    ``paper`` is the value of B4, and a flag: it is a bound if the flag is set.
    """

    B1: th.Tensor
    B2: th.Tensor
    B3: th.Tensor
    paper: tuple[th.Tensor, th.Tensor]


class _Step:
    """Logits before and after adaptation, the comparators (first axis), and their gaps J* - J(comparator)."""

    def __init__(self, mdp: FiniteMDP, base: th.Tensor, adapted: th.Tensor) -> None:
        self.base, self.adapted = base, adapted
        self.log_comparators, optimal_values = comparators(mdp, base)
        self.comparators = self.log_comparators.exp()
        best = (mdp.initial * optimal_values).sum(dim=-1)
        self.shortfall = best - expected_return(mdp, self.comparators)


def optimality_gap(mdp: FiniteMDP, policy: th.Tensor) -> th.Tensor:
    r"""
    Compute :math:`J^* - J(\pi)`, at least 0.

    :param mdp: task or batch of tasks
    :param policy: probabilities, shape (..., S, A)
    :return: shape (...)
    """
    _, values = optimal_policy(mdp)
    return (mdp.initial * values).sum(dim=-1) - expected_return(mdp, policy)


def bounds(
    mdp: FiniteMDP, meta_policy: th.Tensor, distance: str, reg_coef: float, n_adaptation_steps: int = 1
) -> Bounds:
    r"""
    Compute bounds on :math:`J^* - J(\pi_K)` after K exact adaptations of a meta-policy.

    Each bound is the smallest over the comparators :math:`\bar\pi`. :math:`\pi_0` is the meta-policy, :math:`\pi_k` the
    policy after k adaptations. For Alg(3) the logits of :math:`\pi_0` are its log-probabilities.

    - ``"B1"``, Alg(1) and Alg(2):

      .. math:: J^* - J(\bar\pi) + \gamma E_{\rho P^{\bar\pi}}[V^{\bar\pi} - V^{\pi_{K-1}}]
          + \lambda E_\rho[d^2(\pi_{K-1}, \bar\pi) - d^2(\pi_{K-1}, \pi_K)]

    - ``"B2"``, Alg(2):

      .. math:: J^* - J(\bar\pi) + \frac{\lambda E_{\bar\nu}[KL(\bar\pi \Vert \pi_0)]
          + E_{\bar\nu}[V^{\pi_K} - V^{\pi_0}]}{K (1 - \gamma)}

    - ``"B3"``, every distance:

      .. math:: J^* - J(\bar\pi) + \frac{\lambda [D(\pi_{K-1}, \bar\pi) - D(\pi_{K-1}, \pi_K)] + \epsilon}{1 - \gamma}
          + e(\bar\pi) - e(\pi_K), \quad \epsilon = \max(0, \lambda [F(\pi_K) - F(\bar\pi)])

      with the error e of :func:`surrogate_error`.
    - ``"paper"``, every distance: B4, over the comparators that are made from optimal policies,

      .. math:: J^* - J(\bar\pi) + \lambda \frac{1 + \gamma}{1 - \gamma} D(\pi_{K-1}, \bar\pi)

      and its flag. It is a bound if :math:`\epsilon = 0` and, for :math:`\pi = \pi_K` and :math:`\pi = \bar\pi`,

      .. math:: |e(\pi)| \le \frac{\gamma \lambda}{1 - \gamma} D(\pi_{K-1}, \pi).

    :param mdp: task or batch of tasks
    :param meta_policy: probabilities, shape (S, A) or (..., S, A), all positive
    :param distance: ``"kl_meta_task"``, ``"kl_task_meta"`` or ``"parameter"``
    :param reg_coef: lambda, > 0
    :param n_adaptation_steps: K, at least 1
    :return: bounds of shape (...)
    :raises ValueError: if an argument is out of range
    """
    check_positive("n_adaptation_steps", n_adaptation_steps, integer=True)
    if not bool((meta_policy > 0).all()):
        raise ValueError(f"meta_policy must be positive everywhere, got minimum {meta_policy.min().item():g}")
    with th.no_grad():
        path = adaptation_path(mdp, meta_policy.to(th.float64).log(), distance, reg_coef, n_adaptation_steps)
        last = _Step(mdp, path[-2], path[-1])
        infinite = th.full_like(mdp.initial[..., 0], th.inf)
        mirror_descent = infinite
        if distance == "kl_task_meta":
            mirror_descent = _mirror_descent_bound(mdp, _Step(mdp, path[0], path[-1]), reg_coef, n_adaptation_steps)
        certificate, paper = _surrogate_bounds(mdp, last, distance, reg_coef)
        return {
            "B1": infinite if distance == "parameter" else _one_step_bound(mdp, last, distance, reg_coef),
            "B2": mirror_descent,
            "B3": certificate,
            "paper": paper,
        }


def expected_bounds(
    mdps: FiniteMDP, meta_policy: th.Tensor, distance: str, reg_coef: float, n_adaptation_steps: int = 1
) -> Bounds:
    r"""
    Compute bounds on the expected optimality gap :math:`E_\tau[J^*_\tau - J_\tau(\pi_K)]`, the means of :func:`bounds`.

    :param mdps: batch of tasks
    :param meta_policy: probabilities, shape (S, A) or (n_tasks, S, A), all positive
    :param distance: ``"kl_meta_task"``, ``"kl_task_meta"`` or ``"parameter"``
    :param reg_coef: lambda, > 0
    :param n_adaptation_steps: K, at least 1
    :return: scalars; B4 is a bound on the mean if its condition holds for each task
    :raises ValueError: if an argument is out of range
    """
    per_task = bounds(mdps, meta_policy, distance, reg_coef, n_adaptation_steps)
    value, holds = per_task["paper"]
    return {
        "B1": per_task["B1"].mean(),
        "B2": per_task["B2"].mean(),
        "B3": per_task["B3"].mean(),
        "paper": (value.mean(), holds.all()),
    }


def adaptation_certificate(
    mdp: FiniteMDP, meta_logits: th.Tensor, adapted_logits: th.Tensor, distance: str, reg_coef: float
) -> tuple[th.Tensor, tuple[th.Tensor, th.Tensor]]:
    r"""
    Compute B3 and B4 on :math:`J^* - J(\pi')` for a policy that was adapted in any way, e.g. to samples.

    B3 and the condition of B4 contain the distance of the adapted policy's lower level from the exact minimum.

    :param mdp: task or batch of tasks
    :param meta_logits: phi, shape (S, A) or (..., S, A)
    :param adapted_logits: theta', shape (..., S, A)
    :param distance: ``"kl_meta_task"``, ``"kl_task_meta"`` or ``"parameter"``
    :param reg_coef: lambda, > 0
    :return: B3, shape (...); the value of B4, shape (...), and the flag: it is a bound if the flag is set
    :raises ValueError: if an argument is out of range
    """
    check_choice("distance", distance, DISTANCES)
    check_positive("reg_coef", reg_coef)
    with th.no_grad():
        last = _Step(mdp, meta_logits.to(th.float64), adapted_logits.to(th.float64))
        return _surrogate_bounds(mdp, last, distance, reg_coef)


def _one_step_bound(mdp: FiniteMDP, last: _Step, distance: str, reg_coef: float) -> th.Tensor:
    """B1 for the best comparator."""
    base_values, _ = policy_value(mdp, th.softmax(last.base, dim=-1))
    family = last.comparators
    values, _ = policy_value(mdp, family)
    next_advantage = (transition_under(mdp, family) @ (values - base_values).unsqueeze(-1)).squeeze(-1)
    spent = (mdp.initial * state_distances(distance, last.base, last.adapted)).sum(dim=-1)
    needed = expected_distance(distance, mdp.initial, last.base, last.log_comparators)
    per_comparator = mdp.gamma * (mdp.initial * next_advantage).sum(dim=-1) + reg_coef * (needed - spent)
    return (last.shortfall + per_comparator).amin(dim=0)


def _mirror_descent_bound(mdp: FiniteMDP, all_steps: _Step, reg_coef: float, n_steps: int) -> th.Tensor:
    """B2 for the best comparator."""
    visitation = state_visitation(mdp, all_steps.comparators)
    divergence = expected_distance("kl_task_meta", visitation, all_steps.base, all_steps.log_comparators)
    first, _ = policy_value(mdp, th.softmax(all_steps.base, dim=-1))
    final, _ = policy_value(mdp, th.softmax(all_steps.adapted, dim=-1))
    gain = (visitation * (final - first)).sum(dim=-1)
    return (all_steps.shortfall + (reg_coef * divergence + gain) / (n_steps * (1 - mdp.gamma))).amin(dim=0)


def _surrogate_bounds(
    mdp: FiniteMDP, last: _Step, distance: str, reg_coef: float
) -> tuple[th.Tensor, tuple[th.Tensor, th.Tensor]]:
    """B3 for the best comparator; B4 for the best one that is made from optimal policies, and its flag."""
    visitation = state_visitation(mdp, th.softmax(last.base, dim=-1))
    family = _comparator_logits(last, distance)
    needed = expected_distance(distance, visitation, last.base, family)
    spent = expected_distance(distance, visitation, last.base, last.adapted)
    reached = lower_level_objective(mdp, last.base, last.adapted, distance, reg_coef)
    excess = reg_coef * (reached - lower_level_objective(mdp, last.base, family, distance, reg_coef)).clamp_min(0.0)
    error = surrogate_error(mdp, last.base, th.softmax(last.adapted, dim=-1))
    errors = surrogate_error(mdp, last.base, last.comparators)

    horizon = 1 / (1 - mdp.gamma)
    certificate = horizon * (reg_coef * (needed - spent) + excess) + errors - error
    value = reg_coef * (1 + mdp.gamma) * horizon * needed
    allowed = mdp.gamma * reg_coef * horizon
    holds = _at_most(error.abs(), allowed * spent) & _at_most(errors.abs(), allowed * needed) & _at_most(excess, 0.0)
    paper = _smallest_that_holds((last.shortfall + value)[:N_OPTIMAL_FAMILY], holds[:N_OPTIMAL_FAMILY])
    return (last.shortfall + certificate).amin(dim=0), paper


def surrogate_error(mdp: FiniteMDP, base_logits: th.Tensor, policy: th.Tensor) -> th.Tensor:
    r"""
    Compute the error of the linear surrogate,
    :math:`e(\pi) = J(\pi) - J(\varphi) - E_{\nu^\varphi}\langle A^\varphi, \pi \rangle / (1 - \gamma)`.

    :param mdp: task or batch of tasks
    :param base_logits: phi, shape (..., S, A)
    :param policy: probabilities, shape (..., S, A)
    :return: shape (...)
    """
    base_policy = th.softmax(base_logits, dim=-1)
    values, q_values = policy_value(mdp, base_policy)
    gains = (policy * (q_values - values.unsqueeze(-1))).sum(dim=-1)
    surrogate = (state_visitation(mdp, base_policy) * gains).sum(dim=-1) / (1 - mdp.gamma)
    return expected_return(mdp, policy) - (mdp.initial * values).sum(dim=-1) - surrogate


def _comparator_logits(last: _Step, distance: str) -> th.Tensor:
    """Logits of the comparators; for Alg(3), those closest to the meta-logits among all of the same policy."""
    if distance != "parameter":
        return last.log_comparators
    level = (last.base - last.log_comparators).mean(dim=-1, keepdim=True)
    return th.where(level.isfinite(), last.log_comparators + level, last.log_comparators)


def _at_most(left: th.Tensor, right: th.Tensor | float) -> th.Tensor:
    """``left <= right`` up to rounding."""
    return left <= right + _CONDITION_TOLERANCE


def _smallest_that_holds(values: th.Tensor, holds: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Find the smallest value (first axis) whose condition holds, or the smallest of all if none does."""
    any_holds = holds.any(dim=0)
    valid = th.where(holds, values, th.inf).amin(dim=0)
    return th.where(any_holds, valid, values.amin(dim=0)), any_holds
