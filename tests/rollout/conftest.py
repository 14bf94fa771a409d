"""A small deterministic environment with tasks, and a policy for it."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_bomrl.core.params import stack
from sb3_bomrl.policies.actor import Actor


class LineEnv(gym.Env):
    """A walk on a line towards the task; it terminates beyond ``wall`` and is truncated after ``horizon`` steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-0.5, 0.5, (1,), np.float32)

    def __init__(self, horizon=5, wall=1.0):
        self.horizon, self.wall, self.task = horizon, wall, 0.0
        self.actions = []

    def sample_tasks(self, n):
        return list(self.np_random.uniform(-1, 1, n))

    def set_task(self, task):
        self.task = task

    def get_task(self):
        return self.task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 1), 0
        return self._obs(), {}

    def _obs(self):
        return np.array([self.x, self.t], dtype=np.float32)

    def step(self, action):
        self.actions.append(np.array(action))
        self.x, self.t = self.x + float(action[0]), self.t + 1
        return self._obs(), -abs(self.x - self.task), self.x > self.wall, self.t >= self.horizon, {}


def make_actor(env, seed=0, **kwargs):
    th.manual_seed(seed)
    kwargs.setdefault("net_arch", [8])
    return Actor(ActorCriticPolicy(env.observation_space, env.action_space, lambda _: 1e-3, **kwargs))


def different_params(actor, n_tasks):
    """Stacked parameters, another set for every task."""
    generator = th.Generator().manual_seed(0)
    params = stack(actor.params(), n_tasks)
    return {name: v + 0.3 * th.randn(v.shape, generator=generator) for name, v in params.items()}


@pytest.fixture
def line():
    """Everything the tests of this folder build their examples from."""

    def vec(n_envs, **kwargs):
        return DummyVecEnv([lambda: LineEnv(**kwargs)] * n_envs)

    return SimpleNamespace(Env=LineEnv, vec=vec, actor=make_actor, params=different_params)
