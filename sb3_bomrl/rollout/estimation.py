"""Advantages of a rollout, by a linear baseline fitted to each task or by SB3's value network."""

import math

import torch as th
from gymnasium import spaces

from sb3_bomrl.core.advantages import (
    baseline_features,
    fit_linear_baseline,
    fit_value_table,
    generalized_advantages,
)
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Observations, Rollout, map_observations, observation_parts

BASELINES: tuple[str, ...] = ("linear", "value_net")

MAX_LINEAR_FEATURES = 512


def default_baseline(observation_space: spaces.Space) -> str:
    """
    Choose ``"linear"`` where one least-squares problem per task is small, else ``"value_net"``.

    :param observation_space: space of the observations
    :return: name of the baseline
    """
    return "linear" if 0 < spaces.flatdim(observation_space) * 2 + 1 <= MAX_LINEAR_FEATURES else "value_net"


def linear_features(space: spaces.Space, observations: Observations) -> th.Tensor:
    """
    Return the features of the linear baseline: an indicator of the state, or functions of a vector.

    :param space: space of the observations
    :param observations: preprocessed, (n_tasks, n_samples, \\*obs_shape), or a dictionary of such
    :return: (n_tasks, n_samples, n_features), double precision
    """
    joined = th.cat([part.flatten(2) for part in observation_parts(observations)], dim=-1)
    # the square and the constant of an indicator would only repeat it
    return joined.double() if isinstance(space, spaces.Discrete) else baseline_features(joined)


class AdvantageEstimator:
    """
    Generalised advantages with bootstrapping wherever an episode was cut off.

    :param actor: brings the policy with its value network and the preprocessing
    :param gamma: discount factor in [0, 1]
    :param gae_lambda: λ of GAE in [0, 1]
    :param baseline: ``"linear"`` (fitted per task, in closed form, to the rollout's own returns) or ``"value_net"``
        (the policy's critic, shared by all tasks)
    """

    def __init__(self, actor: Actor, gamma: float, gae_lambda: float, baseline: str) -> None:
        self.actor = actor
        self.gamma = gamma
        self.gae_lambda = gae_lambda
        self.baseline = baseline

    @th.no_grad()
    def __call__(self, rollout: Rollout) -> Rollout:
        """
        Fill in the advantages.

        :param rollout: rollout of any number of tasks
        :return: the same with ``advantages``
        """
        if self.baseline == "linear":
            values, final_values = self._fitted(rollout)
        else:
            values, final_values = self._network(rollout)
        bootstrap_values = th.zeros_like(values)
        bootstrap_values[rollout.truncated] = final_values
        advantages = generalized_advantages(
            rollout.rewards.to(values.dtype),
            values,
            bootstrap_values,
            rollout.episode_ends,
            self.gamma,
            self.gae_lambda,
        )
        return rollout._replace(advantages=advantages * rollout.mask)

    def _fitted(self, rollout: Rollout) -> tuple[th.Tensor, th.Tensor]:
        """Values of a baseline fitted to the rollout, kept within the range that its rewards allow."""
        # where every episode was cut off, a fit to few data may extrapolate far beyond that range
        is_table = isinstance(self.actor.policy.observation_space, spaces.Discrete)
        values, final_values = self._table(rollout) if is_table else self._linear(rollout)
        owner = rollout.truncated.nonzero()[:, 0]
        low, high = _value_range(rollout, self.gamma)
        return (
            values.clamp(low[:, None, None], high[:, None, None]),
            final_values.clamp(low[owner], high[owner]),
        )

    def _table(self, rollout: Rollout) -> tuple[th.Tensor, th.Tensor]:
        """Values of the states of a ``Discrete`` space, from a table."""
        space = self.actor.policy.observation_space
        assert isinstance(space, spaces.Discrete)
        assert isinstance(rollout.observations, th.Tensor)
        assert isinstance(rollout.final_observations, th.Tensor)
        states = rollout.observations.long().reshape(rollout.rewards.shape)
        final_states = rollout.final_observations.long().flatten()
        table = fit_value_table(
            states,
            final_states,
            rollout.rewards,
            rollout.episode_ends,
            rollout.truncated,
            rollout.mask,
            self.gamma,
            int(space.n),
        )
        owner = rollout.truncated.nonzero()[:, 0]
        return table.gather(1, states.flatten(1)).reshape(states.shape), table[owner, final_states]

    def _linear(self, rollout: Rollout) -> tuple[th.Tensor, th.Tensor]:
        lead = rollout.rewards.shape
        features = self._features(rollout.observations, 3).reshape(*lead, -1)
        final = self._features(rollout.final_observations, 1)
        weights = fit_linear_baseline(
            features,
            final.reshape(-1, features.shape[-1]),
            rollout.rewards,
            rollout.episode_ends,
            rollout.truncated,
            rollout.mask,
            self.gamma,
        )
        owner = rollout.truncated.nonzero()[:, 0]
        return th.einsum("nted,nd->nte", features, weights), (final * weights[owner]).sum(-1)

    def _features(self, observations: Observations, n_lead: int) -> th.Tensor:
        """Features of preprocessed observations, (prod(lead), n_features)."""
        preprocessed = self.actor.preprocess(_flatten_lead(observations, n_lead))
        return linear_features(self.actor.policy.observation_space, preprocessed)[0].cpu()

    def _network(self, rollout: Rollout) -> tuple[th.Tensor, th.Tensor]:
        return (
            self._predict(rollout.observations, 3).reshape(rollout.rewards.shape),
            self._predict(rollout.final_observations, 1),
        )

    def _predict(self, observations: Observations, n_lead: int) -> th.Tensor:
        policy = self.actor.policy
        flat = map_observations(lambda x: x[0].to(policy.device), _flatten_lead(observations, n_lead))
        if len(observation_parts(flat)[0]) == 0:
            return th.zeros(0)
        return policy.predict_values(flat).flatten().cpu()


def _value_range(rollout: Rollout, gamma: float) -> tuple[th.Tensor, th.Tensor]:
    """Smallest and largest value that the rewards of each task allow, (n_tasks,) each."""
    rewards = rollout.rewards.double() * rollout.mask
    horizon = 1.0 / max(1.0 - gamma, 1e-6)
    return rewards.amin((1, 2)).clamp(max=0.0) * horizon, rewards.amax((1, 2)).clamp(min=0.0) * horizon


def _flatten_lead(observations: Observations, n_lead: int) -> Observations:
    """(\\*lead, \\*shape) -> (1, prod(lead), \\*shape)."""
    return map_observations(lambda x: x.reshape(1, math.prod(x.shape[:n_lead]), *x.shape[n_lead:]), observations)
