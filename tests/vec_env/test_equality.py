"""The fast VecEnvs compute, bit for bit, what SB3's DummyVecEnv of single environments computes."""

import dataclasses

import numpy as np
import pytest

from sb3_bomrl.vec_env import make_meta_vec_env

ALL = ("body_mass", "body_inertia", "dof_damping", "geom_friction", "segment_length")
KWARGS = {
    "HalfCheetahVel": {},
    "HalfCheetahDir": {},
    "AntVel": {},
    "AntDir": {},
    "AntVel, contact forces": {"contact_forces": True},
    "Walker2dRandParams": {},
    "HopperRandParams": {},
    "Walker2dRandParams, lengths": {"rand_params": ALL},
    "HopperRandParams, lengths": {"rand_params": ALL, "log_scale_limit": 2.0},
    "HumanoidDir": {},
    "HumanoidDir, contact forces": {"contact_forces": True},
}
MUJOCO = list(KWARGS)
FAMILIES = [*MUJOCO, "Navigation2D"]
N_ENVS = 3
pytest.importorskip("mujoco")


def make(name, n_envs, seed, n_threads=2, **kwargs):
    """The fast VecEnv of a family."""
    threads = {"n_threads": n_threads} if name in MUJOCO else {}
    env_kwargs = {**KWARGS.get(name, {}), **kwargs, **threads}
    return make_meta_vec_env(f"bomrl/{name.split(',')[0]}-v0", n_envs, seed=seed, env_kwargs=env_kwargs)


def pair(name, seed, horizon=60):
    """The fast VecEnv and the slow one, with the same seeds and different tasks in every environment."""
    fast, kwargs = make(name, N_ENVS, seed, horizon=horizon), {**KWARGS.get(name, {}), "horizon": horizon}
    slow = make_meta_vec_env(f"bomrl/{name.split(',')[0]}-v0", N_ENVS, "dummy", seed=seed, env_kwargs=kwargs)
    fast.env_method("seed_tasks", seed, indices=0)
    tasks = fast.env_method("sample_tasks", N_ENVS, indices=0)[0]
    fast.env_method("seed_tasks", None, indices=0)
    for i, task in enumerate(tasks):
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


@pytest.mark.parametrize(
    ("name", "seed"), [(name, 0) for name in FAMILIES] + [(name, 1) for name in FAMILIES if "," not in name]
)
def test_every_step_is_the_same(name, seed):
    fast, slow = pair(name, seed, horizon=25 if name.startswith(("Walker", "Hopper", "Humanoid")) else 60)
    assert fast.env_method("sample_tasks", 3) != fast.env_method("sample_tasks", 3)
    n_truncated, n_terminated = compare(fast, slow, seed)
    assert n_truncated >= 1
    assert n_terminated >= 5 or not name.startswith(("Walker", "Hopper", "Humanoid"))


@pytest.mark.parametrize("name", ["AntVel", "AntDir"])
def test_terminations_are_the_same(name):
    fast, slow = pair(name, 3)
    narrow = dataclasses.replace(fast.unwrapped._family, healthy_z=(0.5, 0.8))
    fast.unwrapped._family = narrow
    for env in slow.envs:
        env.unwrapped.family = narrow
    _, n_terminated = compare(fast, slow, 3)
    assert n_terminated >= 5


def test_a_termination_at_the_time_limit_is_no_truncation():
    fast, slow = pair("AntDir", 0, horizon=1)
    never = dataclasses.replace(fast.unwrapped._family, healthy_z=(5.0, 6.0))
    fast.unwrapped._family = never
    for env in slow.envs:
        env.unwrapped.family = never
    n_truncated, n_terminated = compare(fast, slow, 0, n_steps=5)
    assert (n_truncated, n_terminated) == (0, 5 * N_ENVS)


@pytest.mark.parametrize("name", FAMILIES)
def test_tasks_are_sampled_as_in_single_environments(name):
    fast, slow = pair(name, 5)
    fast.reset(), slow.reset()
    assert fast.env_method("sample_tasks", 3) == slow.env_method("sample_tasks", 3)
    fast.env_method("seed_tasks", 8, indices=[1]), slow.env_method("seed_tasks", 8, indices=[1])
    assert fast.env_method("sample_tasks", 3) == slow.env_method("sample_tasks", 3)
    assert fast.get_attr("test_tasks") == slow.get_attr("test_tasks")


@pytest.mark.parametrize("name", MUJOCO)
def test_results_do_not_depend_on_threads_or_on_the_other_environments(name):
    def run(n_envs, n_threads, others):
        venv = make(name, n_envs, seed=2, n_threads=n_threads, horizon=20)
        tasks = venv.get_attr("test_tasks", 0)[0]
        chosen = [tasks[(i if i < 2 else i + others) % len(tasks)] for i in range(n_envs)]
        venv.unwrapped.set_tasks(chosen)
        rng, trace = np.random.default_rng(0), [venv.reset()]
        for _ in range(30):
            actions = rng.uniform(-1, 1, size=(5, *venv.action_space.shape))[:n_envs]
            trace.extend(venv.step(actions)[:3])
        venv.close()
        return trace

    first = run(5, 1, others=0)
    for again in (run(5, 1, others=0), run(5, 2, others=0), run(5, 2, others=0)):
        for ours, theirs in zip(first, again, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for ours, company, few in zip(first, run(5, 2, others=1), run(2, 2, others=0), strict=True):
        np.testing.assert_array_equal(ours[:2], company[:2])
        np.testing.assert_array_equal(ours[:2], few)
    assert any((ours[2:] != theirs[2:]).any() for ours, theirs in zip(first, run(5, 2, others=1), strict=True))
