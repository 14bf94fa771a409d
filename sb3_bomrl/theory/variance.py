r"""
Task variance: how far the tasks' optimal policies are from one policy.

.. math:: E_\tau E_{s \sim \nu^*_\tau}[KL(\pi^*_\tau \Vert \pi_\varphi)]

If a task has several optimal policies, it is the one that :func:`~sb3_bomrl.tabular.optimal_policy` returns.
"""

import torch as th

from sb3_bomrl.tabular.distances import kl_divergence
from sb3_bomrl.tabular.mdp import FiniteMDP
from sb3_bomrl.tabular.solvers import optimal_policy, state_visitation


def task_variance(mdps: FiniteMDP, meta_policy: th.Tensor) -> th.Tensor:
    """
    Compute the task variance around a meta-policy, the mean over tasks.

    :param mdps: batch of tasks
    :param meta_policy: probabilities, shape (S, A) or (n_tasks, S, A)
    :return: nats, scalar; infinite if the meta-policy excludes an action of some optimum
    """
    optimum, _ = optimal_policy(mdps)
    visitation = state_visitation(mdps, optimum)
    divergence = kl_divergence(optimum.log(), meta_policy.log())
    return th.where(visitation > 0, visitation * divergence, 0.0).sum(dim=-1).mean()


def variance_minimizing_policy(mdps: FiniteMDP) -> th.Tensor:
    r"""
    Compute the policy around which the task variance is smallest.

    In each state it is the mean of the optima, weighted by their visitation,
    :math:`\pi(a | s) \propto \sum_\tau \nu^*_\tau(s) \pi^*_\tau(a | s)`, since a cross-entropy is smallest at the
    distribution itself.

    :param mdps: batch of tasks, shape (n_tasks,)
    :return: probabilities, shape (S, A); uniform in states that no optimum visits
    """
    optimum, _ = optimal_policy(mdps)
    visits = state_visitation(mdps, optimum).clamp_min(0.0).unsqueeze(-1) * optimum
    total = visits.sum(dim=0)
    weight = total.sum(dim=-1, keepdim=True)
    return th.where(weight > 0, total / weight.clamp_min(th.finfo(total.dtype).tiny), 1 / mdps.n_actions)
