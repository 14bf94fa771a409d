"""The fast VecEnvs compute, bit for bit, what SB3's DummyVecEnv of single environments computes."""

import dataclasses

import numpy as np
import pytest

from sb3_bomrl.vec_env import make_meta_vec_env

MUJOCO = ["bomrl/HalfCheetahVel-v0", "bomrl/HalfCheetahDir-v0", "bomrl/AntVel-v0", "bomrl/AntDir-v0"]
FAMILIES = [*MUJOCO, "bomrl/Navigation2D-v0"]
N_ENVS = 3
pytest.importorskip("mujoco")


def pair(env_id, seed, horizon=60, n_threads=2):
    """The fast VecEnv and the slow one, with the same seeds and different tasks in every environment."""
    fast_kwargs = {"n_threads": n_threads} if env_id in MUJOCO else {}
    fast = make_meta_vec_env(env_id, N_ENVS, seed=seed, env_kwargs={"horizon": horizon, **fast_kwargs})
    slow = make_meta_vec_env(env_id, N_ENVS, backend="dummy", seed=seed, env_kwargs={"horizon": horizon})
    tasks = fast.env_method("sample_tasks", 1)
    for i, (task,) in enumerate(tasks):
        fast.env_method("set_task", task, indices=i)
        slow.env_method("set_task", task, indices=i)
    return fast, slow


def assert_same_info(fast, slow):
    """Tiny infos agree where they have a key; infos of episodes that end are complete."""
    if "terminal_observation" in slow:
        np.testing.assert_array_equal(fast.pop("terminal_observation"), slow.pop("terminal_observation"))
        fast["episode"].pop("t"), slow["episode"].pop("t")
        assert fast.pop("episode") == pytest.approx(slow.pop("episode"), rel=1e-5, abs=1e-4)
        assert fast == slow
    else:
        assert fast == {key: slow[key] for key in ("task", "TimeLimit.truncated")}


def compare(fast, slow, seed, n_steps=150):
    """Step both with the same random actions; return how many episodes ended by time and otherwise."""
    rng, n_truncated, n_terminated = np.random.default_rng(seed), 0, 0
    low, high = fast.action_space.low, fast.action_space.high
    np.testing.assert_array_equal(fast.reset(), slow.reset())
    assert fast.unwrapped.reset_infos == slow.reset_infos
    for _ in range(n_steps):
        actions = rng.uniform(low, high, size=(N_ENVS, *low.shape)).astype(np.float32)
        (*ours, our_infos), (*theirs, their_infos) = fast.step(actions), slow.step(actions)
        for our, their in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(our, their)
            assert our.dtype == their.dtype
        for our, their in zip(our_infos, their_infos, strict=True):
            if "terminal_observation" in their:
                n_truncated += their["TimeLimit.truncated"]
                n_terminated += not their["TimeLimit.truncated"]
            assert_same_info(our, their)
        assert fast.unwrapped.reset_infos == slow.reset_infos
    fast.close(), slow.close()
    return n_truncated, n_terminated


@pytest.mark.parametrize("env_id", FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_step_is_the_same(env_id, seed):
    fast, slow = pair(env_id, seed)
    assert fast.env_method("sample_tasks", 3) != fast.env_method("sample_tasks", 3)
    n_truncated, _ = compare(fast, slow, seed)
    assert n_truncated >= 1


@pytest.mark.parametrize("env_id", ["bomrl/AntVel-v0", "bomrl/AntDir-v0"])
def test_terminations_are_the_same(env_id):
    fast, slow = pair(env_id, 3)
    narrow = dataclasses.replace(fast.unwrapped._family, healthy_z=(0.5, 0.8))
    fast.unwrapped._family = narrow
    for env in slow.envs:
        env.unwrapped.family = narrow
    _, n_terminated = compare(fast, slow, 3)
    assert n_terminated >= 5


def test_a_termination_at_the_time_limit_is_no_truncation():
    fast, slow = pair("bomrl/AntDir-v0", 0, horizon=1)
    never = dataclasses.replace(fast.unwrapped._family, healthy_z=(5.0, 6.0))
    fast.unwrapped._family = never
    for env in slow.envs:
        env.unwrapped.family = never
    n_truncated, n_terminated = compare(fast, slow, 0, n_steps=5)
    assert (n_truncated, n_terminated) == (0, 5 * N_ENVS)


@pytest.mark.parametrize("env_id", FAMILIES)
def test_tasks_are_sampled_as_in_single_environments(env_id):
    fast, slow = pair(env_id, 5)
    fast.reset(), slow.reset()
    assert fast.env_method("sample_tasks", 3) == slow.env_method("sample_tasks", 3)
    fast.env_method("seed_tasks", 8, indices=[1]), slow.env_method("seed_tasks", 8, indices=[1])
    assert fast.env_method("sample_tasks", 3) == slow.env_method("sample_tasks", 3)
    assert fast.get_attr("test_tasks") == slow.get_attr("test_tasks")


@pytest.mark.parametrize("env_id", MUJOCO)
def test_results_do_not_depend_on_threads_or_on_the_other_environments(env_id):
    def run(n_envs, n_threads):
        venv = make_meta_vec_env(env_id, n_envs, seed=2, env_kwargs={"horizon": 20, "n_threads": n_threads})
        tasks = venv.get_attr("test_tasks", 0)[0]
        venv.unwrapped.set_tasks([tasks[(i if n_envs == 5 else i + 1) % len(tasks)] for i in range(n_envs)])
        rng = np.random.default_rng(0)
        trace = [venv.reset()]
        for _ in range(30):
            actions = rng.uniform(-1, 1, size=(5, *venv.action_space.shape))[:n_envs]
            trace.extend(venv.step(actions)[:2])
        venv.close()
        return trace

    one, two, few = run(5, 1), run(5, 2), run(2, 2)
    for first, second, third in zip(one, two, few, strict=True):
        np.testing.assert_array_equal(first, second)
        if third.ndim == 2:  # observations of the first environments do not depend on tasks or company
            np.testing.assert_array_equal(first[:2], third)
