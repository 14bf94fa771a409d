"""Sampling tasks through a VecEnv, giving them out, and spreading them over environments."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from sb3_bomrl import TaskSamplerWrapper, make_meta_vec_env
from sb3_bomrl.rollout.tasks import TaskSampler, has_tasks, set_tasks, split_in_waves


def test_an_environment_without_tasks_is_one_task():
    env = DummyVecEnv([lambda: gym.make("CartPole-v1")])
    assert not has_tasks(env)
    sampler = TaskSampler(env)
    assert sampler.sample(3, np.random.default_rng(0)) == [None, None, None]
    assert sampler.test_tasks() == [None]
    set_tasks(env, [None])


def test_tasks_depend_on_the_generator_alone():
    env = make_meta_vec_env("bomrl/Navigation2D-v0", 3)
    sampler = TaskSampler(env)

    def sample(seed):
        return sampler.sample(4, np.random.default_rng(seed))

    first = sample(0)
    env.seed(5)
    env.reset()
    assert sample(0) == first
    assert sample(1) != first
    assert len({tuple(task) for task in first}) == 4
    assert len(sampler.test_tasks()) == 25


def test_an_environment_with_its_own_methods_needs_no_seed_tasks(line):
    env = line.vec(2)
    env.seed(1)
    env.reset()
    tasks = TaskSampler(env).sample(3, np.random.default_rng(0))
    assert len(set(tasks)) == 3
    assert TaskSampler(env).test_tasks() is None


def test_a_family_needs_both_methods(line):
    class NoSet(gym.Wrapper):
        def sample_tasks(self, n):
            return [0] * n

    with pytest.raises(ValueError, match=r"sample_tasks\(n\) but no set_task"):
        has_tasks(DummyVecEnv([lambda: NoSet(gym.make("CartPole-v1"))]))

    class NoSample(gym.Wrapper):
        def set_task(self, task):
            pass

    with pytest.raises(ValueError, match=r"no sample_tasks\(n\)"):
        TaskSampler(DummyVecEnv([lambda: NoSample(gym.make("CartPole-v1"))])).sample(1, np.random.default_rng(0))


@pytest.mark.parametrize("backend", ["numpy", "dummy"])
def test_every_environment_gets_its_own_task(backend):
    env = make_meta_vec_env("bomrl/Navigation2D-v0", 3, backend=backend)
    tasks = [(0.1, 0.2), (-0.3, 0.0), (0.5, -0.5)]
    set_tasks(env, tasks)
    assert [tuple(task) for task in env.env_method("get_task")] == tasks
    env = make_meta_vec_env("bomrl/Navigation2D-v0", 4, backend=backend)
    set_tasks(env, tasks[:2], n_repeats=2)
    assert [tuple(task) for task in env.env_method("get_task")] == [tasks[0], tasks[0], tasks[1], tasks[1]]


def test_the_wrapper_is_a_task_family(line):
    def make():
        return TaskSamplerWrapper(
            line.Env(), sampler=lambda rng: rng.uniform(), apply_task=lambda env, t: env.set_task(t)
        )

    env = VecMonitor(DummyVecEnv([make] * 2))
    sample = [TaskSampler(env).sample(2, np.random.default_rng(7)) for _ in range(2)]
    assert sample[0] == sample[1]
    set_tasks(env, sample[0])
    env.reset()
    assert env.env_method("get_task") == sample[0]
    assert env.get_attr("resample_on_reset") == [False, False]


@given(n_tasks=st.integers(1, 40), n_envs=st.integers(1, 40))
def test_tasks_are_spread_evenly_or_refused(n_tasks, n_envs):
    if n_tasks % n_envs and n_envs % n_tasks:
        with pytest.raises(ValueError, match=rf"meta_batch_size={n_tasks} and n_envs={n_envs} cannot work") as error:
            split_in_waves(n_tasks, n_envs)
        for number in str(error.value).split("n_envs=")[-1].split(", or change")[0].split(" or "):
            split_in_waves(n_tasks, int(number))  # what the error proposes works
    else:
        per_wave, per_task = split_in_waves(n_tasks, n_envs)
        assert per_wave * per_task == n_envs
        assert n_tasks % per_wave == 0


def test_no_tasks_are_refused():
    with pytest.raises(ValueError, match="number of tasks must be an integer of at least 1, got 0"):
        split_in_waves(0, 3, "number of tasks")


@pytest.mark.parametrize("returned", [[0.1], [0.1] * 5, [], None, 0.5, "abcd", {1, 2, 3, 4}, [0.1, None, 0.2, 0.3]])
def test_what_sample_tasks_returns_is_checked(line, returned):
    class Family(line.Env):
        def sample_tasks(self, n):
            return returned

    with pytest.raises(ValueError, match=r"what sample_tasks\(4\) returns must be a list of 4 tasks.*, got "):
        TaskSampler(DummyVecEnv([Family])).sample(4, np.random.default_rng(0))


@pytest.mark.parametrize("returned", [0.5, "abcd", [None]])
def test_what_test_tasks_returns_is_checked(line, returned):
    class Family(line.Env):
        test_tasks = returned

    with pytest.raises(ValueError, match=r"test_tasks must be a list of tasks.*, got "):
        TaskSampler(DummyVecEnv([Family])).test_tasks()


def test_a_generator_of_another_kind_is_respected(line):
    class Legacy(line.Env):
        def __init__(self, own):
            super().__init__()
            self.np_random = own

        def sample_tasks(self, n):
            return list(self.np_random.randint(100, size=n))

    class Own:
        def randint(self, high, size):
            return np.arange(size)

    env = DummyVecEnv([lambda: Legacy(np.random.RandomState(0))])
    samples = [TaskSampler(env).sample(4, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]
    own = Own()
    env = DummyVecEnv([lambda: Legacy(own)])
    assert TaskSampler(env).sample(3, np.random.default_rng(0)) == [0, 1, 2]
    assert env.envs[0].np_random is own
