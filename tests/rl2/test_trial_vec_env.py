"""Trials of a batch against trials of single environments."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from sb3_bomrl import TrialWrapper, make_meta_vec_env, make_trial_vec_env
from sb3_bomrl.rl2.trial_vec_env import TrialVecEnv
from sb3_bomrl.vec_env import NavigationVecEnv

N_ENVS, N_EPISODES, HORIZON = 3, 2, 8
FAMILIES = [
    "Navigation2D",
    "HalfCheetahVel",
    "FrozenLakeHighVariance",
    "HopperRandParams",
    "CartPoleForce",
    "PointMassGoal",
]


def both(env_id):
    """The same environments one by one and as a batch."""
    kwargs = {"horizon": HORIZON}
    single = gym.spec(env_id).make
    dummy = DummyVecEnv(
        [lambda: TrialWrapper(Monitor(single(max_episode_steps=HORIZON, **kwargs)), N_EPISODES)] * N_ENVS
    )
    return dummy, make_trial_vec_env(env_id, N_ENVS, N_EPISODES, env_kwargs=kwargs)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_single_environments_bit_for_bit(family):
    dummy, batch = both(f"bomrl/{family}-v0")
    assert isinstance(batch, TrialVecEnv)
    assert batch.observation_space == dummy.observation_space
    tasks = dummy.env_method("sample_tasks", N_ENVS, indices=[0])[0]
    for env in (dummy, batch):
        for i, task in enumerate(tasks):
            env.env_method("set_task", task, indices=[i])
        env.seed(5)
    np.testing.assert_array_equal(batch.reset(), dummy.reset())
    dummy.action_space.seed(0)
    n_done = 0
    for _ in range(5 * HORIZON):
        actions = np.stack([dummy.action_space.sample() for _ in range(N_ENVS)])
        ours, theirs = (env.step(actions) for env in (batch, dummy))
        for mine, other in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(mine, other)
        for mine, other in zip(ours[3], theirs[3], strict=True):
            for name in ("TimeLimit.truncated", "terminal_observation", "trial_episode"):
                assert (name in mine) == (name in other)
            assert mine["TimeLimit.truncated"] is False
            np.testing.assert_array_equal(mine.get("terminal_observation", 0), other.get("terminal_observation", 0))
            if "trial_episode" in mine:
                expected = other["trial_episode"]
                assert mine["trial_episode"] == {**expected, "r": pytest.approx(expected["r"], rel=1e-5, abs=1e-5)}
                assert mine["episode"]["l"] == mine["trial_episode"]["l"]
        n_done += int(ours[2].sum())
    assert n_done >= 2 * N_ENVS
    batch.close()


def play(env, n_steps):
    """Tasks of every environment before each step, and which trials ended with it."""
    tasks, dones = [], []
    for _ in range(n_steps):
        tasks.append([info["task"] for info in env.unwrapped.reset_infos])
        dones.append(env.step(np.zeros((N_ENVS, 2), np.float32))[2])
    return tasks, np.array(dones)


def test_a_task_is_drawn_for_each_trial_and_kept_within_it():
    def start():
        env = make_trial_vec_env("bomrl/Navigation2D-v0", N_ENVS, 3, seed=1, env_kwargs={"horizon": 4})
        env.reset()
        return env

    env = start()
    tasks, dones = play(env, 36)
    assert (dones.sum(0) == 3).all()
    trials = [[tuple(map(tuple, tasks[t])) for t in range(12 * k, 12 * k + 12)] for k in range(3)]
    assert [len(set(trial)) for trial in trials] == [1, 1, 1]
    drawn = {task for trial in trials for task in trial[0]}
    assert len(drawn) == 3 * N_ENVS  # all different
    assert play(start(), 36)[0] == tasks  # and given by the seed


def test_a_pinned_task_stays_until_sampling_is_resumed():
    env = make_trial_vec_env("bomrl/Navigation2D-v0", N_ENVS, 1, seed=1, env_kwargs={"horizon": 4})
    env.env_method("set_task", [0.1, 0.2], indices=[1])
    env.reset()
    tasks, _ = play(env, 12)
    assert {tuple(row[1]) for row in tasks} == {(0.1, 0.2)}
    assert len({tuple(row[0]) for row in tasks}) == 3
    assert env.get_attr("resample_on_reset") == [True, False, True]
    env.env_method("resume_sampling", indices=[1])
    env.reset()
    assert (0.1, 0.2) not in {tuple(row[1]) for row in play(env, 12)[0]}


def test_the_number_of_episodes_can_be_changed():
    env = make_trial_vec_env("bomrl/Navigation2D-v0", N_ENVS, 1, env_kwargs={"horizon": 4})
    env.env_method("set_episodes_per_trial", 3, indices=[2])
    assert env.get_attr("episodes_per_trial") == [1, 1, 3]
    env.reset()
    assert play(env, 12)[1].sum(0).tolist() == [3, 3, 1]
    with pytest.raises(ValueError, match="episodes_per_trial must be an integer of at least 1, got 0"):
        env.env_method("set_episodes_per_trial", 0)


def test_what_cannot_be_wrapped_is_said():
    with pytest.raises(ValueError, match="venv must be a BatchTaskVecEnv"):
        TrialVecEnv(make_meta_vec_env("bomrl/Navigation2D-v0", 2, "dummy"))
    assert TrialVecEnv(VecMonitor(NavigationVecEnv(2))).num_envs == 2
