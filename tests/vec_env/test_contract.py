"""The VecEnv contract of the fast VecEnvs, under SB3's wrappers and algorithms."""

import gc
import os
import pickle
import time

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_bomrl.vec_env import make_meta_vec_env

pytest.importorskip("mujoco")
IDS = ["bomrl/AntVel-v0", "bomrl/Walker2dRandParams-v0", "bomrl/Navigation2D-v0"]


def make(env_id, n_envs=3, **kwargs):
    return make_meta_vec_env(env_id, n_envs, seed=0, env_kwargs=kwargs)


def zeros(venv):
    return np.zeros((venv.num_envs, *venv.action_space.shape), dtype=np.float32)


@pytest.mark.parametrize("env_id", IDS)
def test_infos_are_cheap_until_an_episode_ends(env_id):
    venv = make(env_id, horizon=2)
    venv.reset()
    _, _, _, infos = venv.step(zeros(venv))
    task = venv.get_attr("test_tasks", 0)[0][0]
    venv.env_method("set_task", task, indices=1)
    assert [set(info) for info in infos] == [{"task", "TimeLimit.truncated"}] * 3
    _, _, dones, infos = venv.step(zeros(venv))
    assert dones.all()
    assert infos[1]["task"] == task != infos[0]["task"]
    for info in infos:
        assert info["TimeLimit.truncated"]
        assert info["episode"]["l"] == 2
        assert info["terminal_observation"].shape == venv.observation_space.shape
    assert venv.unwrapped.reset_infos[1]["task"] == task


@pytest.mark.parametrize("env_id", IDS)
def test_attributes_and_methods(env_id):
    venv = make(env_id)
    assert venv.get_attr("render_mode") == [None] * 3
    assert venv.get_attr("observation_space", [0]) == [venv.observation_space]
    assert venv.get_attr("action_space", 1) == [venv.action_space]
    assert not venv.has_attr("note")
    venv.set_attr("note", 7, indices=[0, 2])
    assert venv.get_attr("note", [0, 2]) == [7, 7]
    assert not venv.has_attr("note")  # the second one has none
    assert venv.env_is_wrapped(gym.Wrapper) == [False] * 3
    assert venv.env_method("get_task", indices=[2]) == venv.env_method("get_task", indices=2)
    with pytest.raises(AttributeError, match="reset"):
        venv.env_method("reset")
    with pytest.raises(AttributeError):
        venv.set_attr("horizon", 3)


@pytest.mark.parametrize("env_id", IDS)
def test_set_tasks_for_all_or_some(env_id):
    venv = make(env_id)
    tasks = venv.get_attr("test_tasks", 0)[0]
    venv.unwrapped.set_tasks(tasks[:3])
    assert venv.env_method("get_task") == tasks[:3]
    venv.unwrapped.set_tasks([tasks[5], tasks[4]], indices=[2, 0])
    assert venv.unwrapped.get_tasks() == [tasks[4], tasks[1], tasks[5]]
    with pytest.raises(ValueError, match=r"n_repeats must be the number of environments, 3, got 2 \* 1"):
        venv.unwrapped.set_tasks(tasks[:2])
    with pytest.raises(ValueError, match="task must be"):
        venv.unwrapped.set_tasks([tasks[0], "x", tasks[0]])
    assert venv.unwrapped.get_tasks() == [tasks[4], tasks[1], tasks[5]]


@pytest.mark.parametrize("env_id", IDS)
def test_returned_arrays_are_the_callers(env_id):
    venv = make(env_id)
    first = venv.reset()
    obs, rewards, *_ = venv.step(zeros(venv))
    kept = obs.copy(), rewards.copy(), first.copy()
    obs[:] = 1e6  # must not reach the simulation
    obs2, rewards2, *_ = venv.step(zeros(venv))
    again = make(env_id)
    np.testing.assert_array_equal(again.reset(), kept[2])
    np.testing.assert_array_equal(again.step(zeros(venv))[0], kept[0])
    second = again.step(zeros(venv))
    np.testing.assert_array_equal(second[0], obs2)
    np.testing.assert_array_equal(second[1], rewards2)
    np.testing.assert_array_equal(rewards, kept[1])


@pytest.mark.parametrize("env_id", IDS)
def test_seeds_last_for_one_reset(env_id):
    venv = make(env_id, n_envs=2)
    first, second = venv.reset(), venv.reset()
    venv.seed(0)
    np.testing.assert_array_equal(venv.reset(), first)
    np.testing.assert_array_equal(venv.reset(), second)
    if "Ant" in env_id:
        assert not np.array_equal(first, second)
        venv.seed(1)
        np.testing.assert_array_equal(venv.reset()[0], first[1])


@pytest.mark.parametrize("env_id", IDS)
def test_steps_before_a_reset_and_actions_of_another_shape_are_refused(env_id):
    venv = make(env_id)
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step\(\)"):
        venv.step(zeros(venv))
    venv.reset()
    with pytest.raises(ValueError, match=r"actions must have shape \(3, \d\), got \(\d,\)"):
        venv.step(zeros(venv)[0])


def test_actions_that_are_not_finite_show_in_the_reward():
    venv = make("bomrl/HalfCheetahDir-v0")
    venv.reset()
    actions = zeros(venv)
    actions[1] = np.nan
    obs, rewards, *_ = venv.step(actions)
    assert np.isnan(rewards).tolist() == [False, True, False]
    assert np.isfinite(obs).all()


@pytest.mark.parametrize("env_id", IDS)
def test_sb3_trains_and_evaluates_on_it(env_id):
    venv = VecNormalize(make(env_id, n_envs=2, horizon=8))
    model = PPO("MlpPolicy", venv, n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0).learn(64)
    assert len(model.ep_info_buffer) >= 8
    returns, lengths = evaluate_policy(model, venv, n_eval_episodes=4, return_episode_rewards=True)
    assert lengths == [8] * 4
    assert np.isfinite(returns).all()


def test_rendering(monkeypatch):
    venv = make("bomrl/AntDir-v0", render_mode="rgb_array", width=8, height=8)
    assert venv.render_mode == "rgb_array"
    venv.reset()
    venv.step(zeros(venv))
    drawn = []

    def draw(env):
        drawn.append(env.data.qpos.copy())
        return np.full((8, 8, 3), len(drawn), dtype=np.uint8)

    monkeypatch.setattr("gymnasium.envs.mujoco.mujoco_env.MujocoEnv.render", draw)
    qpos = venv.unwrapped._qpos.copy()
    assert venv.env_method("render", indices=1)[0].shape == (8, 8, 3)
    np.testing.assert_array_equal(drawn[0], qpos[1])
    assert venv.render().shape == (16, 16, 3)  # three tiles and a blank one
    np.testing.assert_array_equal(drawn[1:], qpos)
    np.testing.assert_array_equal(venv.unwrapped._qpos, qpos)


def test_a_batch_says_that_it_cannot_be_pickled():
    with pytest.raises(TypeError, match="MujocoTaskVecEnv holds threads and cannot be pickled"):
        pickle.dumps(make("bomrl/AntDir-v0"))
    pickle.dumps(make("bomrl/AntDir-v0").unwrapped._env)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted through /proc")
def test_close_ends_the_threads():
    def n_threads():
        return len(os.listdir("/proc/self/task"))

    gc.collect()  # an earlier test's environment must not end its threads while this one counts
    before = n_threads()
    venv = make("bomrl/HalfCheetahVel-v0", n_envs=8, n_threads=4)
    venv.reset()
    venv.step(zeros(venv))
    assert n_threads() > before
    venv.close()
    venv.close()  # closing twice is harmless
    deadline = time.monotonic() + 10.0
    while n_threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the kernel lists a thread for a moment after it was joined
    assert n_threads() <= before


@pytest.mark.parametrize("env_id", [*IDS, "bomrl/FrozenLakeLowVariance-v0"])
def test_repeated_tasks_are_as_many_single_ones(env_id, monkeypatch):
    """Each task is checked once, and neighbouring environments play it, among all environments or some."""
    once, each = make(env_id, n_envs=5), make(env_id, n_envs=5)
    chosen = once.get_attr("test_tasks", 0)[0][:2]
    kind, checked = type(once.unwrapped.task_distribution), []
    check = kind.check
    monkeypatch.setattr(kind, "check", lambda self, task: checked.append(task) or check(self, task))
    once.unwrapped.set_tasks(chosen, n_repeats=2, indices=[4, 0, 1, 3])
    assert checked == chosen
    each.unwrapped.set_tasks([chosen[i] for i in (0, 0, 1, 1)], indices=[4, 0, 1, 3])
    assert once.unwrapped.get_tasks() == each.unwrapped.get_tasks()
    assert [once.unwrapped.get_task(i) for i in (4, 0, 1, 3)] == [chosen[i] for i in (0, 0, 1, 1)]
    once.reset(), each.reset()
    actions = np.array([once.action_space.sample() for _ in range(5)])
    for one, other in zip(once.step(actions)[:3], each.step(actions)[:3], strict=True):
        np.testing.assert_array_equal(one, other)
