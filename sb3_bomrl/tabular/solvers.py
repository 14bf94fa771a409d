r"""
Exact solutions of finite MDPs by linear solves, batched over leading axes and differentiable.

Policies are tables of probabilities, shape (..., S, A). Their batch axes and those of the MDP are broadcast.
"""

import torch as th

from sb3_bomrl.tabular.mdp import FiniteMDP

_IMPROVEMENT_TOLERANCE = 1e-12
_SUM_TOLERANCE = 1e-5


def policy_value(mdp: FiniteMDP, policy: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    r"""
    Compute the values of a policy, :math:`V = (I - \gamma P^\pi)^{-1} r^\pi`.

    :param mdp: MDP or batch of MDPs
    :param policy: probabilities, shape (..., S, A)
    :return: V of shape (..., S) and Q of shape (..., S, A)
    :raises ValueError: if the policy's shape does not fit, or a row does not sum to 1
    """
    policy = _checked(mdp, policy)
    matrix = _bellman_matrix(mdp, policy)
    expected_reward = (policy * mdp.reward).sum(dim=-1)
    values = th.linalg.solve(matrix, expected_reward.unsqueeze(-1)).squeeze(-1)
    return values, action_values(mdp, values)


def action_values(mdp: FiniteMDP, values: th.Tensor) -> th.Tensor:
    r"""
    Compute a Bellman backup, :math:`Q(s, a) = r(s, a) + \gamma \sum_{s'} P(s' | s, a) V(s')`.

    :param mdp: MDP or batch of MDPs
    :param values: V, shape (..., S)
    :return: Q, shape (..., S, A)
    """
    return mdp.reward + mdp.gamma * (mdp.transition @ values[..., None, :, None]).squeeze(-1)


def state_visitation(mdp: FiniteMDP, policy: th.Tensor) -> th.Tensor:
    r"""
    Compute the discounted visitation, :math:`\nu(s) = (1 - \gamma) \sum_t \gamma^t \Pr(s_t = s)`.

    :param mdp: MDP or batch of MDPs
    :param policy: probabilities, shape (..., S, A)
    :return: nu, shape (..., S); sums to 1
    """
    policy = _checked(mdp, policy)
    matrix = _bellman_matrix(mdp, policy).transpose(-1, -2)
    return (1 - mdp.gamma) * th.linalg.solve(matrix, mdp.initial.expand(matrix.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def expected_return(mdp: FiniteMDP, policy: th.Tensor) -> th.Tensor:
    r"""
    Compute the discounted return :math:`J(\pi) = E_{s \sim \rho}[V^\pi(s)]`.

    :param mdp: MDP or batch of MDPs
    :param policy: probabilities, shape (..., S, A)
    :return: J, shape (...)
    """
    return (mdp.initial * policy_value(mdp, policy)[0]).sum(dim=-1)


def transition_under(mdp: FiniteMDP, policy: th.Tensor) -> th.Tensor:
    r"""
    Compute the transition matrix between states, :math:`P^\pi(s' | s)`.

    :param mdp: MDP or batch of MDPs
    :param policy: probabilities, shape (..., S, A)
    :return: shape (..., S, S)
    """
    return (policy.unsqueeze(-2) @ mdp.transition).squeeze(-2)


def optimal_policy(mdp: FiniteMDP) -> tuple[th.Tensor, th.Tensor]:
    """
    Compute a deterministic optimal policy and the optimal values, by policy iteration.

    If several actions of a state are optimal, the policy takes one of them.

    :param mdp: MDP or batch of MDPs
    :return: policy of shape (..., S, A), zeros and ones, and V of shape (..., S)
    """
    actions = mdp.reward.argmax(dim=-1)
    while True:
        policy = th.nn.functional.one_hot(actions, mdp.n_actions).to(th.float64)
        values, q_values = policy_value(mdp, policy)
        best, best_actions = q_values.max(dim=-1)
        # Without a tolerance, rounding could switch between equally good actions for ever.
        tolerance = _IMPROVEMENT_TOLERANCE * (1 + q_values.abs().amax(dim=(-1, -2))).unsqueeze(-1) / (1 - mdp.gamma)
        better = best > values + tolerance
        if not bool(better.any()):
            return policy, values
        actions = th.where(better, best_actions, actions)


def _bellman_matrix(mdp: FiniteMDP, policy: th.Tensor) -> th.Tensor:
    """I - gamma * P^pi, shape (..., S, S)."""
    identity = th.eye(mdp.n_states, dtype=th.float64)
    return identity - mdp.gamma * transition_under(mdp, policy)


def _checked(mdp: FiniteMDP, policy: th.Tensor) -> th.Tensor:
    """Require a policy, and return it in double precision."""
    if policy.shape[-2:] != mdp.reward.shape[-2:]:
        raise ValueError(
            f"policy must have shape (..., {mdp.n_states}, {mdp.n_actions}) (S, A), got {tuple(policy.shape)}"
        )
    sums = policy.detach().sum(dim=-1)
    if not bool(((sums - 1).abs() <= _SUM_TOLERANCE).all()):
        raise ValueError(
            f"policy must hold probabilities that sum to 1 over the actions, "
            f"got sums from {sums.min().item():g} to {sums.max().item():g}"
        )
    return policy.to(th.float64)
