"""Which VecEnv an id gets, and what users are told."""

import logging

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor

from sb3_bomrl.vec_env import FrozenLakeVecEnv, MujocoTaskVecEnv, NavigationVecEnv, make_meta_vec_env

FAST = {
    "bomrl/AntVel-v0": (MujocoTaskVecEnv, "mujoco", 200),
    "bomrl/Walker2dRandParams-v0": (MujocoTaskVecEnv, "mujoco", 200),
    "bomrl/HopperRandParams-v0": (MujocoTaskVecEnv, "mujoco", 200),
    "bomrl/HumanoidDir-v0": (MujocoTaskVecEnv, "mujoco", 200),
    "bomrl/Navigation2D-v0": (NavigationVecEnv, "numpy", 100),
    "bomrl/FrozenLakeHighVariance-v0": (FrozenLakeVecEnv, "numpy", 49),
    "bomrl/FrozenLakeLowVariance-v0": (FrozenLakeVecEnv, "numpy", 49),
}


@pytest.mark.parametrize("env_id", FAST)
def test_families_get_their_fast_vec_env(env_id, caplog):
    kind, backend, horizon = FAST[env_id]
    venvs = [make_meta_vec_env(env_id, 2), make_meta_vec_env(f"sb3_bomrl:{env_id}", 2, backend=backend)]
    for venv in venvs:
        assert type(venv) is VecMonitor
        assert type(venv.unwrapped) is kind
        assert venv.get_attr("horizon") == [horizon] * 2
        assert venv.get_attr("spec", 0)[0].id == env_id
        assert venv.env_method("sample_tasks", 2, indices=0)[0] != []
        venv.close()
    assert caplog.records == []


def test_the_two_lakes_differ():
    layouts = [
        "".join(
            "".join(task)
            for task in make_meta_vec_env(f"bomrl/FrozenLake{kind}Variance-v0", 1).get_attr("test_tasks")[0]
        )
        for kind in ("High", "Low")
    ]
    assert ["H" in cells for cells in layouts] == [True, False]


def test_other_environments_fall_back_with_one_line(caplog):
    with caplog.at_level(logging.WARNING, logger="sb3_bomrl"):
        venv = make_meta_vec_env("CartPole-v1", 2)
    assert type(venv) is DummyVecEnv
    assert venv.env_is_wrapped(Monitor) == [True, True]
    assert [record.getMessage() for record in caplog.records] == [
        "CartPole-v1 cannot be stepped as a batch: using DummyVecEnv, which is slower"
    ]


def test_seed_reaches_the_first_reset():
    fast, slow = (make_meta_vec_env("CartPole-v1", 2, backend="dummy", seed=seed) for seed in (3, 3))
    np.testing.assert_array_equal(fast.reset(), slow.reset())
    np.testing.assert_array_equal(fast.reset()[0], _reset_twice("CartPole-v1", 3))


def _reset_twice(env_id, seed):
    env = gym.make(env_id)
    env.reset(seed=seed)
    return env.reset()[0]


def test_subproc_gives_tasks_to_workers():
    venv = make_meta_vec_env("bomrl/Navigation2D-v0", 1, backend="subproc", env_kwargs={"horizon": 120})
    try:
        assert type(venv) is SubprocVecEnv
        venv.env_method("set_task", (0.1, 0.2), indices=0)
        venv.reset()
        infos = venv.step(np.zeros((1, 2), dtype=np.float32))[3]
        assert infos[0]["task"] == (0.1, 0.2)
    finally:
        venv.close()


@pytest.mark.parametrize("backend", ["auto", "dummy"])
@pytest.mark.parametrize(
    ("kwargs", "length"), [({"horizon": 3}, 3), ({"max_episode_steps": 2}, 2), ({"horizon": 120}, 120)]
)
def test_episode_length(backend, kwargs, length):
    venv = make_meta_vec_env("bomrl/Navigation2D-v0", 1, backend=backend, env_kwargs=kwargs)
    venv.reset()
    dones = [bool(venv.step(np.zeros((1, 2), dtype=np.float32))[2][0]) for _ in range(length)]
    assert dones == [False] * (length - 1) + [True]


def test_first_task_of_all_environments():
    for backend in ("auto", "dummy"):
        venv = make_meta_vec_env("bomrl/Navigation2D-v0", 2, backend=backend, env_kwargs={"task": (0.0, 0.3)})
        assert venv.env_method("get_task") == [(0.0, 0.3)] * 2
        venv = make_meta_vec_env("bomrl/HalfCheetahDir-v0", 2, backend=backend, env_kwargs={"task": -1})
        assert venv.env_method("get_task") == [-1, -1]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("bomrl/AntVel-v0", 2), {"backend": "gpu"}, "backend must be one of \\('auto', .* got 'gpu'"),
        (("bomrl/AntVel-v0", 0), {}, "n_envs must be an integer of at least 1, got 0"),
        (("bomrl/AntVel-v0", 2), {"backend": "numpy"}, "env_id must be one of .*Navigation2D.* got 'bomrl/AntVel-v0'"),
        (("CartPole-v1", 2), {"backend": "mujoco"}, "env_id must be one of .*AntVel.* got 'CartPole-v1'"),
        (("bomrl/AntVel-v0", 2), {"env_kwargs": {"n_threads": 0}}, "n_threads must be .* got 0"),
        (
            ("bomrl/AntVel-v0", 2),
            {"env_kwargs": {"render_mode": "human"}},
            r"render_mode must be one of \(None, 'rgb_array'\)",
        ),
        (("bomrl/Navigation2D-v0", 2), {"env_kwargs": {"render_mode": "human"}}, "render_mode must be None .* 'human'"),
    ],
)
def test_bad_arguments_are_explained(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_meta_vec_env(*args, **kwargs)


def test_unknown_ids_are_gymnasiums_business():
    with pytest.raises(gym.error.Error):
        make_meta_vec_env("bomrl/NoSuchEnv-v0", 2)
