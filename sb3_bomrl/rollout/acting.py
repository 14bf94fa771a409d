"""Actions of a policy with the parameters of every task."""

from collections.abc import Callable

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.policies.distributions import mode, sample
from sb3_bomrl.types import Observations, Params

ActFunction = Callable[[Observations, th.Generator | None], tuple[th.Tensor, th.Tensor]]
"""(observations by task, source of randomness or ``None`` for the mode) -> actions and their log-probabilities."""


def acting(actor: Actor, params: Params, n_envs_per_task: int) -> ActFunction:
    r"""
    Make the function that acts.

    Where a task has at least as many environments as there are states, the policy is evaluated once, as a table;
    elsewhere it is evaluated at every step.

    :param actor: policy as a function of stacked parameters
    :param params: stacked parameters, each of shape (n_tasks, \*shape)
    :param n_envs_per_task: environments of each task
    :return: observations (n_tasks, n_envs_per_task, ...) -> actions and their log-probabilities
    """
    observed, acted = actor.policy.observation_space, actor.policy.action_space
    if isinstance(observed, spaces.Discrete) and isinstance(acted, spaces.Discrete) and observed.n <= n_envs_per_task:
        return _tabulated(actor, params, int(observed.n), int(acted.n))
    return _evaluated(actor, params)


def _evaluated(actor: Actor, params: Params) -> ActFunction:
    def act(observations: Observations, noise: th.Generator | None) -> tuple[th.Tensor, th.Tensor]:
        distribution = actor(params, actor.preprocess(observations))
        chosen = mode(distribution) if noise is None else sample(distribution, noise)
        return chosen, distribution.log_prob(chosen)

    return act


@th.no_grad()
def _tabulated(actor: Actor, params: Params, n_states: int, n_actions: int) -> ActFunction:
    n_tasks, device = len(next(iter(params.values()))), actor.policy.device
    states = th.arange(n_states, device=device).expand(n_tasks, -1)
    distribution = actor(params, actor.preprocess(states))
    actions = th.arange(n_actions, device=device)[:, None, None]
    log_probs = distribution.log_prob(actions).permute(1, 2, 0)
    # [0, 1) cut into one interval per action: upper ends of all but the last
    below = log_probs.double().softmax(-1).cumsum(-1)[..., :-1]
    best, tasks = mode(distribution), th.arange(n_tasks, device=log_probs.device)[:, None]

    def act(observations: Observations, noise: th.Generator | None) -> tuple[th.Tensor, th.Tensor]:
        assert isinstance(observations, th.Tensor)
        visited = observations.long()
        if noise is None:
            chosen = best[tasks, visited]
        else:
            u = th.rand(visited.shape, dtype=th.double, device=noise.device, generator=noise)
            chosen = (u[..., None] >= below[tasks, visited]).sum(-1)
        return chosen, log_probs[tasks, visited, chosen]

    return act


def clip_actions(actions: np.ndarray, space: spaces.Space) -> np.ndarray:
    r"""
    Bring actions into an action space.

    :param actions: (n_envs, \*action_shape), as sampled
    :param space: the action space
    :return: clipped to a ``Box``, in the type of any other space
    """
    if isinstance(space, spaces.Box):
        return np.clip(actions.reshape(-1, *space.shape), space.low, space.high)
    return actions.astype(space.dtype)
