r"""
The exact lower level, Eq. (A2), for softmax tables: from a table of logits to each task's adapted policy.

With exact expectations and the linear surrogate the importance ratio cancels, and the lower level is

.. math:: \min_\theta -\tfrac{1}{\lambda} \sum_s \nu^\varphi(s) \langle Q^\varphi(s, \cdot),
    \pi_\theta(\cdot | s) \rangle + D(\varphi, \theta).

Gradients with respect to the meta-logits come from implicit differentiation of each state's optimality conditions.
"""

import torch as th

from sb3_bomrl.checks import check_choice, check_positive
from sb3_bomrl.core.distances import DISTANCES
from sb3_bomrl.core.minimizers import kl_meta_task_minimizer, kl_task_meta_minimizer
from sb3_bomrl.tabular.distances import expected_distance
from sb3_bomrl.tabular.mdp import FiniteMDP
from sb3_bomrl.tabular.proximal import parameter_minimizer
from sb3_bomrl.tabular.solvers import policy_value, state_visitation


def adapt(
    mdp: FiniteMDP,
    meta_logits: th.Tensor,
    distance: str,
    reg_coef: float,
    n_adaptation_steps: int = 1,
    sampling_term: bool = True,
) -> th.Tensor:
    r"""
    Adapt a meta-policy to each task of a batch: solve Eq. (A2) exactly, ``n_adaptation_steps`` times in a row.

    :param mdp: task or batch of tasks
    :param meta_logits: phi, shape (S, A), shared by the tasks, or (..., S, A)
    :param distance: ``"kl_meta_task"`` Alg(1), ``"kl_task_meta"`` Alg(2) or ``"parameter"`` Alg(3)
    :param reg_coef: lambda, weight of the distance, > 0
    :param n_adaptation_steps: K; each step starts from the policy before it, with the exact values of that policy
    :param sampling_term: differentiate the values and the visitation of that policy too, Eq. (A5); False for the
        distance term, Eq. (A4), alone
    :return: adapted policy, probabilities, shape (..., S, A); differentiable in ``meta_logits``
    :raises ValueError: if an argument is out of range
    """
    path = adaptation_path(mdp, meta_logits, distance, reg_coef, n_adaptation_steps, sampling_term)
    return th.softmax(path[-1], dim=-1)


def adaptation_path(
    mdp: FiniteMDP,
    meta_logits: th.Tensor,
    distance: str,
    reg_coef: float,
    n_adaptation_steps: int = 1,
    sampling_term: bool = True,
) -> list[th.Tensor]:
    """
    Return the logits before the first and after each adaptation of :func:`adapt`.

    :param mdp: task or batch of tasks
    :param meta_logits: phi, shape (S, A) or (..., S, A)
    :param distance: name of the distance
    :param reg_coef: lambda, > 0
    :param n_adaptation_steps: K, at least 0
    :param sampling_term: differentiate the values and the visitation too
    :return: K + 1 tables of shape (..., S, A); log-probabilities for the KL distances
    :raises ValueError: if an argument is out of range
    """
    check_choice("distance", distance, DISTANCES)
    check_positive("reg_coef", reg_coef)
    if n_adaptation_steps < 0:
        raise ValueError(f"n_adaptation_steps must be at least 0, got {n_adaptation_steps}")
    meta_logits = meta_logits.to(th.float64)
    logits = meta_logits.expand(*mdp.batch_shape, *meta_logits.shape[-2:]) if meta_logits.dim() == 2 else meta_logits
    path = [logits if distance == "parameter" else th.log_softmax(logits, dim=-1)]
    for _ in range(n_adaptation_steps):
        path.append(_adapt_once(mdp, path[-1], distance, reg_coef, sampling_term))
    return path


def _adapt_once(mdp: FiniteMDP, logits: th.Tensor, distance: str, reg_coef: float, sampling_term: bool) -> th.Tensor:
    policy = th.softmax(logits, dim=-1)
    data_policy = policy if sampling_term else policy.detach()
    _, q_values = policy_value(mdp, data_policy)
    if distance == "kl_meta_task":
        return kl_meta_task_minimizer(policy, q_values, reg_coef).log()
    if distance == "kl_task_meta":
        return kl_task_meta_minimizer(logits, q_values, reg_coef)
    visitation = state_visitation(mdp, data_policy)
    return parameter_minimizer(logits, q_values, visitation / reg_coef)


def lower_level_objective(
    mdp: FiniteMDP, meta_logits: th.Tensor, logits: th.Tensor, distance: str, reg_coef: float
) -> th.Tensor:
    r"""
    Compute :math:`F_\tau(\theta, \varphi)` of Eq. (A2) with exact expectations and the linear surrogate.

    :param mdp: task or batch of tasks
    :param meta_logits: phi, shape (..., S, A)
    :param logits: theta, shape (..., S, A)
    :param distance: name of the distance
    :param reg_coef: lambda
    :return: shape (...)
    """
    meta_policy = th.softmax(meta_logits, dim=-1)
    values, q_values = policy_value(mdp, meta_policy)
    visitation = state_visitation(mdp, meta_policy)
    advantages = q_values - values.unsqueeze(-1)
    gain = (visitation * (th.softmax(logits, dim=-1) * advantages).sum(dim=-1)).sum(dim=-1)
    return expected_distance(distance, visitation, meta_logits, logits) - gain / reg_coef
