"""Small environments and models."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_bomrl import BOMRL, EMAML, FOMAML, MAML, MetaAlgorithm, ProMP, Reptile

BOX = spaces.Box(-2.0, 2.0, (2,), np.float32)


class SpaceEnv(gym.Env):
    """Any spaces; observations are samples, the reward is a function of the action, episodes last ``horizon`` steps."""

    def __init__(self, observation_space=BOX, action_space=BOX, horizon=7):
        self.observation_space, self.action_space, self.horizon = observation_space, action_space, horizon

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), (self.action_space, action)
        self.t += 1
        return self.observation_space.sample(), float(np.sum(action)), False, self.t >= self.horizon, {}


class GoalEnv(gym.Env):
    """A walk in the plane towards the task, with task methods of its own that draw from ``np_random``."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, horizon=10, breaks_at=None, broken=None):
        self.horizon, self.breaks_at, self.broken = horizon, breaks_at, broken
        self.task, self.n_steps = np.zeros(2), 0

    def sample_tasks(self, n):
        return list(self.np_random.uniform(-1, 1, (n, 2)))

    def set_task(self, task):
        self.task = np.asarray(task)

    def get_task(self):
        return self.task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = 0.1 * self.np_random.normal(size=2), 0
        return self.x.astype(np.float32), {}

    def step(self, action):
        self.n_steps += 1
        self.t += 1
        self.x = self.x + 0.2 * np.asarray(action, dtype=float)
        obs, reward = self.x.astype(np.float32), -float(np.linalg.norm(self.x - self.task))
        if self.breaks_at is not None and self.n_steps >= self.breaks_at:
            obs, reward = (obs * np.nan, reward) if self.broken == "observation" else (obs, np.nan)
        return obs, reward, False, self.t >= self.horizon, {}


def goal_vec(n_envs: int = 4, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: Monitor(GoalEnv(**kwargs))] * n_envs)


ALGORITHMS = (BOMRL, MAML, FOMAML, EMAML, ProMP, Reptile)

OWN_SETTINGS = {
    BOMRL: {
        "cg_max_steps": 3,
        "n_inner_steps": 3,
        "hypergradient_cg_max_steps": 3,
        "inner_solver": "adam",
        "inner_gradient_tolerance": 0.0,
        "reg_coef": 5.0,  # so that the few samples leave the lower level convex
    },
    MAML: {"cg_max_steps": 3, "n_adaptation_steps": 2},
    FOMAML: {"cg_max_steps": 3, "n_adaptation_steps": 2},
    EMAML: {"cg_max_steps": 3, "n_adaptation_steps": 2},
    ProMP: {"n_adaptation_steps": 2, "n_epochs": 2},
    Reptile: {"n_adaptation_steps": 3},
}


def make_model(
    env: Any = None, policy: Any = "MlpPolicy", cls: type[MetaAlgorithm] = BOMRL, **kwargs: Any
) -> MetaAlgorithm:
    """A model that needs milliseconds for a meta-iteration: 2 tasks, 10 steps per phase."""
    settings = {"n_steps": 10, "meta_batch_size": 2, "seed": 0, "device": "cpu", "n_critic_updates": 2}
    settings.update(next(own for base, own in OWN_SETTINGS.items() if issubclass(cls, base)))
    if policy == "MlpPolicy":
        settings["policy_kwargs"] = {"net_arch": [8], "features_extractor_class": FlattenExtractor}
    with warnings.catch_warnings():  # some of the settings are for other outer steps or baselines
        warnings.filterwarnings("ignore", ".*has no effect", UserWarning)
        return cls(policy, goal_vec() if env is None else env, **{**settings, **kwargs})


def params_of(model: BOMRL) -> dict[str, th.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def iteration_of(model: MetaAlgorithm) -> int:
    """Env steps of one meta-iteration."""
    n_waves = max(1, model.meta_batch_size // model.n_envs)
    return (model.n_support_phases + 1) * model.n_steps * model.n_envs * n_waves


def assert_equal(a: dict[str, th.Tensor], b: dict[str, th.Tensor]) -> None:
    """The same bits."""
    assert a.keys() == b.keys()
    for name in a:
        assert th.equal(a[name], b[name]), name


def differ(a: dict[str, th.Tensor], b: dict[str, th.Tensor]) -> bool:
    return any(not th.equal(a[name], b[name]) for name in a)
