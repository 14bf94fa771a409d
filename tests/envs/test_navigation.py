"""Navigation2D against closed forms."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from sb3_bomrl.envs import register_envs
from sb3_bomrl.envs.navigation import Navigation2DEnv

register_envs()


def test_check_env_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make("bomrl/Navigation2D-v0").unwrapped)
        check_env_sb3(gym.make("bomrl/Navigation2D-v0"))


def test_best_return():
    """Full speed along both axes: after k moves the offset is max(|g| - 0.1 k, 0) per axis."""
    goal = np.array([0.47, -0.26])
    env = Navigation2DEnv(task=goal)
    obs, _ = env.reset()
    total, truncated = 0.0, False
    while not truncated:
        obs, reward, terminated, truncated, _ = env.step((goal - obs) / 0.1)
        total += reward
        assert not terminated
    moves = np.arange(1, 101)[:, None]
    best = -np.linalg.norm(np.maximum(np.abs(goal) - 0.1 * moves, 0), axis=1).sum()
    assert total == pytest.approx(best, abs=1e-5)


def test_actions_are_clipped_and_the_space_holds_every_position():
    env = gym.make("bomrl/Navigation2D-v0").unwrapped
    env.reset()
    for _ in range(env.horizon):
        obs, *_ = env.step(np.array([9.0, -9.0], dtype=np.float32))
    np.testing.assert_allclose(obs, [10.0, -10.0], rtol=1e-6)
    assert env.observation_space.contains(obs)


def test_a_new_task_takes_effect_at_once():
    env = Navigation2DEnv(task=(0.5, 0.0))
    env.reset()
    _, before, *_ = env.step(np.zeros(2))
    env.set_task((0.0, 0.3))
    _, after, *_, info = env.step(np.zeros(2))
    assert (before, after) == (-0.5, -0.3)
    assert info["task"] == (0.0, 0.3)


def test_horizon_and_registration():
    assert gym.spec("bomrl/Navigation2D-v0").max_episode_steps == 100
    env = gym.make("bomrl/Navigation2D-v0", horizon=3)
    env.reset()
    assert [env.step(np.zeros(2, dtype=np.float32))[3] for _ in range(3)] == [False, False, True]
