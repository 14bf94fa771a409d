"""TaskSamplerWrapper: three ways to make a task family, through SB3's VecEnvs and wrappers."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_bomrl.envs.navigation import Navigation2DEnv
from sb3_bomrl.envs.wrappers import TaskSamplerWrapper


def sample_length(rng):
    return float(rng.uniform(0.3, 1.0))


def set_length(env, length):
    env.unwrapped.length = length
    env.unwrapped.polemass_length = env.unwrapped.masspole * length


def build(length):
    env = gym.make("CartPole-v1")
    set_length(env, length)
    return env


def wrapped(**kwargs):
    return TaskSamplerWrapper(gym.make("CartPole-v1"), sample_length, set_length, **kwargs)


def monitored():
    return Monitor(TimeLimit(wrapped(test_tasks=[0.5, 0.9]), 20))


WAYS = {
    "apply": wrapped,
    "factory": lambda **kwargs: TaskSamplerWrapper(sampler=sample_length, make_env=build, **kwargs),
    "own": lambda **kwargs: TaskSamplerWrapper(Navigation2DEnv(), **kwargs),
}


def roll(env, seed, n_resets=4):
    """Tasks, first observations and rewards of some short episodes."""
    env.action_space.seed(0)
    trace = []
    for k in range(n_resets):
        obs, info = env.reset(seed=seed if k == 0 else None)
        _, reward, *_, step_info = env.step(env.action_space.sample())
        assert step_info["task"] == info["task"] == env.get_task()
        trace.append((info["task"], obs.tolist(), reward))
    return trace


@pytest.mark.parametrize("way", WAYS)
def test_each_reset_draws_a_task_and_a_seed_repeats_the_run(way):
    first, again, other = roll(WAYS[way](), 3), roll(WAYS[way](), 3), roll(WAYS[way](), 4)
    assert first == again
    assert [task for task, *_ in first] != [task for task, *_ in other]
    assert len({task for task, *_ in first}) == len(first)


@pytest.mark.parametrize("way", WAYS)
def test_a_used_wrapper_repeats_with_a_seed(way):
    env = WAYS[way]()
    roll(env, 9)
    assert roll(env, 3) == roll(WAYS[way](), 3)


@pytest.mark.parametrize("way", WAYS)
def test_seed_tasks_fixes_the_tasks_whatever_the_resets(way):
    one, two = WAYS[way](), WAYS[way]()
    one.seed_tasks(7), two.seed_tasks(7)
    one.reset(seed=0)
    two.reset()
    assert one.get_task() == two.get_task()
    assert one.sample_tasks(5) == two.sample_tasks(5)


@pytest.mark.parametrize("way", WAYS)
def test_set_task_pins_until_sampling_resumes(way):
    env = WAYS[way]()
    task = env.sample_tasks(1)[0]
    env.set_task(task)
    assert [env.reset()[1]["task"] for _ in range(3)] == [task] * 3
    env.resume_sampling()
    assert env.reset()[1]["task"] != task


def test_without_resampling_the_first_task_stays():
    env = wrapped(resample_on_reset=False)
    assert env.get_task() is None
    tasks = {env.reset(seed=seed)[1]["task"] for seed in (0, 1, None)}
    assert len(tasks) == 1


@pytest.mark.parametrize("way", ["apply", "factory"])
def test_the_task_reaches_the_environment(way):
    env = WAYS[way]()
    env.set_task(0.77)
    env.reset()
    assert env.unwrapped.length == 0.77


def test_a_replaced_environment_must_be_reset_first():
    env = WAYS["factory"]()
    env.reset(seed=0)
    env.set_task(0.4)
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.step(0)


@pytest.mark.parametrize("vec_env", [DummyVecEnv, SubprocVecEnv])
def test_vec_envs_reach_the_tasks_through_monitor_and_time_limit(vec_env):
    venv = vec_env([monitored, monitored], **({"start_method": "fork"} if vec_env is SubprocVecEnv else {}))
    try:
        venv.env_method("set_task", 0.4, indices=0)
        venv.env_method("set_task", 0.8, indices=1)
        venv.reset()
        _, _, _, infos = venv.step(np.zeros(2, dtype=int))
        assert [info["task"] for info in infos] == venv.env_method("get_task") == [0.4, 0.8]
        assert venv.get_attr("test_tasks", 0) == [[0.5, 0.9]]
        assert len(venv.env_method("sample_tasks", 3, indices=0)[0]) == 3
    finally:
        venv.close()


def test_ppo_trains_on_many_tasks():
    venv = DummyVecEnv([monitored])
    seen = set()

    def note(local, _):
        seen.update(info["task"] for info in local["infos"])
        return True

    PPO("MlpPolicy", venv, n_steps=64, batch_size=32, n_epochs=1, device="cpu", seed=0).learn(128, callback=note)
    assert len(seen) >= 6  # episodes last at most 20 steps


@pytest.mark.parametrize("way", WAYS)
def test_it_pickles_with_its_task(way):
    env = WAYS[way]()
    env.reset(seed=0)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.get_task() == env.get_task()
    assert copy.sample_tasks(3) == env.sample_tasks(3)


def test_check_env():
    check_env(wrapped())


def test_tasks_of_the_wrapped_environment_are_passed_on():
    env = TaskSamplerWrapper(Navigation2DEnv())
    assert env.test_tasks == Navigation2DEnv().test_tasks
    with pytest.raises(ValueError, match="task must be two finite numbers"):
        env.set_task("north")
    assert wrapped().test_tasks is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "env must be given unless make_env builds it, got None"),
        ({"env": "CartPole-v1"}, "has no sample_tasks, set_task, get_task: give a sampler"),
        ({"env": "CartPole-v1", "sampler": sample_length}, "sampler needs apply_task or make_env"),
        ({"env": "CartPole-v1", "apply_task": set_length}, "they need a sampler"),
        ({"sampler": sample_length, "apply_task": set_length, "make_env": build}, "not both"),
        ({"env": "CartPole-v1", "sampler": 3, "apply_task": set_length}, "sampler must be a function, got 3"),
    ],
)
def test_wrong_combinations_are_explained(kwargs, message):
    if "env" in kwargs:
        kwargs = {**kwargs, "env": gym.make(kwargs["env"])}
    with pytest.raises(ValueError, match=message):
        TaskSamplerWrapper(**kwargs)


def test_a_factory_with_other_spaces_is_refused():
    env = TaskSamplerWrapper(sampler=sample_length, make_env=lambda t: build(t) if t < 2 else gym.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="make_env must build environments with the same spaces"):
        env.set_task(3.0)


def test_number_of_tasks_is_checked():
    with pytest.raises(ValueError, match="n_tasks must be an integer of at least 1, got 0"):
        wrapped().sample_tasks(0)
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, or None, got -1"):
        wrapped().seed_tasks(-1)


def test_an_environment_that_make_env_lends_is_not_closed():
    closed = []

    class Closes(gym.Wrapper):
        def close(self):
            closed.append(self)

    pool = {0.4: Closes(build(0.4)), 0.8: Closes(build(0.8)), 3.0: Closes(gym.make("Pendulum-v1"))}
    env = TaskSamplerWrapper(sampler=lambda rng: float(rng.choice([0.4, 0.8])), make_env=pool.get)
    for task in (0.4, 0.8, 0.8, 0.4):
        env.set_task(task)
        env.reset()
        assert env.env is pool[task]
    with pytest.raises(ValueError, match="same spaces"):
        env.set_task(3.0)
    assert closed == []
    env.close()
    assert closed == [pool[0.4]]


def test_what_the_users_functions_return_is_checked():
    with pytest.raises(ValueError, match="sampler must return a task, got None"):
        TaskSamplerWrapper(gym.make("CartPole-v1"), lambda rng: None, set_length).sample_tasks(1)
    with pytest.raises(ValueError, match=r"make_env must return an environment, got None for task 0\.5"):
        TaskSamplerWrapper(sampler=lambda rng: 0.5, make_env=lambda task: None)
    with pytest.raises(ValueError, match=r"test_tasks must be a list of tasks, got 0\.5"):
        wrapped(test_tasks=0.5)
