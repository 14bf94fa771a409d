r"""
Comparators: near-optimal policies that have a finite distance from the meta-policy.

The bounds hold for every comparator, and the smallest one is kept. Several are tried, because
:math:`KL(\pi_\varphi \Vert \pi^*)` is infinite for a deterministic optimum, and most of a task's optima may be far from
the meta-policy.
"""

import torch as th

from sb3_bomrl.tabular.mdp import FiniteMDP
from sb3_bomrl.tabular.solvers import action_values, optimal_policy

TEMPERATURES = tuple(float(t) for t in th.logspace(-3, 1, 13, dtype=th.float64))
"""Temperatures T of softmax(Q* / T), relative to the range of Q* in the task."""

MIXTURES = tuple(float(e) for e in th.logspace(-6, -0.3, 8, dtype=th.float64))
"""Weights of the uniform policy in mixtures with the optimum."""

N_OPTIMAL_FAMILY = 2 + len(MIXTURES) + len(TEMPERATURES)
"""Number of comparators that are made from optimal policies and Q*, the first ones."""

_TIE_TOLERANCE = 1e-9


def comparators(mdp: FiniteMDP, base_logits: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    r"""
    Return a task's comparators, in this order:

    - the optimum;
    - the meta-policy restricted to the optimal actions: the optimal policy of smallest
      :math:`KL(\pi \Vert \pi_\varphi)`;
    - :math:`(1 - \epsilon) \pi^* + \epsilon / A`, mixtures with the uniform policy;
    - :math:`\mathrm{softmax}(Q^* / T)`;
    - :math:`\pi_\varphi \exp(Q^* / T)`, normalised;
    - :math:`\pi_\varphi`.

    :param mdp: task or batch of tasks
    :param base_logits: logits of the meta-policy, shape (S, A) or (..., S, A)
    :return: log-probabilities, shape (n_comparators, ..., S, A), -inf for a probability of 0; and the optimal values,
        shape (..., S)
    """
    optimum, values = optimal_policy(mdp)
    q_values = action_values(mdp, values)
    spread = (q_values.amax(dim=(-1, -2)) - q_values.amin(dim=(-1, -2)))[..., None, None]
    gaps = q_values - q_values.amax(dim=-1, keepdim=True)
    tied = th.where(gaps >= -_TIE_TOLERANCE * (1 + spread), base_logits, -th.inf)
    temperatures = [temperature * th.where(spread > 0, spread, 1.0) for temperature in TEMPERATURES]
    family = [optimum.log(), th.log_softmax(tied, dim=-1)]
    family += [((1 - weight) * optimum + weight / mdp.n_actions).log() for weight in MIXTURES]
    family += [th.log_softmax(gaps / temperature, dim=-1) for temperature in temperatures]
    family += [th.log_softmax(base_logits + gaps / temperature, dim=-1) for temperature in temperatures]
    family.append(th.log_softmax(base_logits.expand_as(q_values), dim=-1))
    return th.stack(family), values
