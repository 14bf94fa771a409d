"""The batch of Frozen Lakes against single environments."""

import time

import numpy as np
import pytest

from sb3_bomrl.envs.frozen_lake import FrozenLakeHighVarianceEnv, FrozenLakeLowVarianceEnv
from sb3_bomrl.vec_env.frozen_lake import FrozenLakeVecEnv

FAMILIES = {"high_variance": FrozenLakeHighVarianceEnv, "low_variance": FrozenLakeLowVarianceEnv}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("is_slippery", [False, True])
def test_bit_equal_to_single_environments(family, is_slippery):
    n_envs, horizon = 7, 12
    venv = FrozenLakeVecEnv(n_envs, family, is_slippery=is_slippery, horizon=horizon)
    envs = [FAMILIES[family](is_slippery=is_slippery, horizon=horizon) for _ in range(n_envs)]
    tasks = [*envs[0].test_tasks[: n_envs - 1], envs[0].get_task()]
    venv.set_tasks(tasks)
    for env, task in zip(envs, tasks, strict=True):
        env.set_task(task)
    venv.seed(11)
    singles = [env.reset(seed=11 + index)[0] for index, env in enumerate(envs)]
    assert np.array_equal(venv.reset(), singles)
    rng = np.random.default_rng(0)
    n_finished = 0
    for _ in range(3 * horizon):
        actions = rng.integers(4, size=n_envs)
        obs, rewards, dones, infos = venv.step(actions)
        for index, env in enumerate(envs):
            single, reward, terminated, truncated, info = env.step(actions[index])
            assert rewards[index] == np.float32(reward)
            assert bool(dones[index]) == truncated
            assert not terminated
            assert infos[index]["task"] == info["task"] == tasks[index]
            if truncated:
                n_finished += 1
                assert infos[index]["terminal_observation"] == single
                assert infos[index]["TimeLimit.truncated"]
                single, _ = env.reset()
            assert obs[index] == single
    assert n_finished == 3 * n_envs
    assert obs.dtype == venv.observation_space.dtype
    venv.close()


def test_set_tasks_of_some_rows():
    venv = FrozenLakeVecEnv(3)
    default, other = venv.get_tasks()[0], venv.task_distribution.test_tasks[0]
    venv.set_tasks([other], indices=[1])
    assert venv.get_tasks() == [default, other, default]
    venv.env_method("set_task", other, indices=[2])
    assert venv.env_method("get_task") == [default, other, other]
    with pytest.raises(ValueError, match="must be the number of environments, 3, got 1"):
        venv.set_tasks([other])
    with pytest.raises(ValueError, match="row strings"):
        venv.set_tasks([other, other, 5])


def test_thousands_of_environments_step_fast():
    """2,500 environments x 49 steps, half a sampled meta-iteration; the limit is generous for shared machines."""
    venv = FrozenLakeVecEnv(2500)
    venv.reset()
    actions = np.random.default_rng(0).integers(4, size=(49, 2500))
    start = time.perf_counter()
    for row in actions:
        venv.step(row)
    assert time.perf_counter() - start < 2.0
