"""TrialWrapper and TaskObservationWrapper on a family whose every number is known."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor

from sb3_bomrl import TaskObservationWrapper, TaskSamplerWrapper, TrialWrapper
from sb3_bomrl.envs.frozen_lake import FrozenLakeHighVarianceEnv
from sb3_bomrl.envs.navigation import Navigation2DEnv


class Counter(gym.Env):
    """Observes the step; the reward is 10 · task + step; ends after ``2 + task`` steps, or is cut off after 3."""

    observation_space = spaces.Box(0.0, 9.0, (1,), np.float32)

    def __init__(self, action_space=None):
        self.action_space = spaces.Discrete(3) if action_space is None else action_space
        self.task = 0

    def sample_tasks(self, n):
        return [int(task) for task in self.np_random.integers(0, 2, n)]

    def set_task(self, task):
        self.task = task

    def get_task(self):
        return self.task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        terminated = self.task == 0 and self.t == 2
        return np.full(1, self.t, np.float32), 10.0 * self.task + self.t, terminated, self.t >= 3, {}


def play(env, actions):
    rows = []
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(action)
        rows.append((obs.tolist(), reward, terminated, truncated, info.get("trial_episode")))
    return rows


def test_a_trial_joins_episodes_of_one_task():
    env = TrialWrapper(Counter(), episodes_per_trial=2)
    env.set_task(0)
    obs, info = env.reset(seed=0)
    assert obs.tolist() == [0, 0, 0, 0, 0, 0]
    assert info["task"] == 0
    first = {"number": 0, "r": 3.0, "l": 2}
    assert play(env, [1, 2, 0, 0]) == [
        # own observation, action one-hot, reward, whether an episode ended
        ([1, 0, 1, 0, 1, 0], 1.0, False, False, None),
        ([0, 0, 0, 1, 2, 1], 2.0, False, False, first),  # the next episode's first observation
        ([1, 1, 0, 0, 1, 0], 1.0, False, False, None),
        ([2, 1, 0, 0, 2, 1], 2.0, True, False, {**first, "number": 1}),
    ]
    assert env.reset()[0].tolist() == [0, 0, 0, 0, 0, 0]


def test_a_trial_whose_last_episode_is_cut_off_is_over_all_the_same():
    env = TrialWrapper(Counter(spaces.Box(-1.0, 1.0, (2,), np.float32)), episodes_per_trial=2)
    env.set_task(1)
    env.reset(seed=0)
    rows = play(env, [np.array([0.5, -0.25], np.float32)] * 6)
    assert [(terminated, truncated) for _, _, terminated, truncated, _ in rows] == [(False, False)] * 5 + [
        (True, False)
    ]
    assert rows[2][0] == [0, 0.5, -0.25, 13, 1]
    assert rows[5][4] == {"number": 1, "r": 36.0, "l": 3}


def test_a_task_is_drawn_for_each_trial_and_kept_within_it():
    inner = Counter()
    env = TrialWrapper(TaskSamplerWrapper(inner), episodes_per_trial=3)
    seen = []
    for trial in range(12):
        _, info = env.reset(seed=0 if trial == 0 else None)
        tasks, over = [info["task"]], False
        while not over:
            _, _, over, _, info = env.step(0)
            tasks.append(inner.get_task())
        assert len(set(tasks)) == 1
        seen.append(tasks[0])
    assert set(seen) == {0, 1}
    env.set_task(1)
    assert [env.reset()[1]["task"] for _ in range(5)] == [1] * 5


def test_the_number_of_episodes_can_be_changed():
    env = TrialWrapper(Counter(), episodes_per_trial=1)
    env.set_task(0)
    for n in (1, 3):
        env.set_episodes_per_trial(n)
        env.reset()
        assert [row[2] for row in play(env, [0] * 2 * n)] == [False] * (2 * n - 1) + [True]
    with pytest.raises(ValueError, match="episodes_per_trial must be an integer of at least 1, got 0"):
        env.set_episodes_per_trial(0)


@pytest.mark.parametrize("wrapper", [TrialWrapper, TaskObservationWrapper])
@pytest.mark.parametrize("action_space", [spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,), np.float32)])
def test_check_env(wrapper, action_space):
    check_env(wrapper(Monitor(Counter(action_space))))


def test_the_oracle_sees_the_task():
    env = TaskObservationWrapper(TaskSamplerWrapper(Navigation2DEnv()))
    for seed in (0, 1):
        obs, info = env.reset(seed=seed)
        np.testing.assert_allclose(obs, [0.0, 0.0, *info["task"]], rtol=1e-6)
        obs, *_ = env.step(np.array([1.0, -1.0], np.float32))
        np.testing.assert_allclose(obs, [0.1, -0.1, *info["task"]], rtol=1e-6)


def test_tasks_that_are_no_numbers_need_an_encoding():
    with pytest.raises(ValueError, match="encode must make numbers of every task"):
        TaskObservationWrapper(FrozenLakeHighVarianceEnv())

    def holes(layout):
        return np.array([[cell == "H" for cell in row] for row in layout])

    env = TaskObservationWrapper(FrozenLakeHighVarianceEnv(), encode=holes)
    obs, info = env.reset(seed=0)
    assert obs[:16].tolist() == [1.0] + [0.0] * 15
    np.testing.assert_array_equal(obs[16:], holes(info["task"]).ravel())


@pytest.mark.parametrize("wrapper", [TrialWrapper, TaskObservationWrapper])
def test_what_is_needed_is_said(wrapper):
    with pytest.raises(ValueError, match=r"env .* has no .*sample_tasks"):
        wrapper(gym.make("CartPole-v1"))

    class Sequences(Counter):
        observation_space = spaces.Sequence(spaces.Discrete(2))

    with pytest.raises(ValueError, match="observation_space that can be flattened to a Box"):
        wrapper(Sequences())
