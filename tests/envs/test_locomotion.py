"""The locomotion families against Gymnasium's own environments and the formulas of the benchmark."""

import os
import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from sb3_bomrl.envs import register_envs

pytest.importorskip("mujoco")

from sb3_bomrl.envs.humanoid import HumanoidDirEnv
from sb3_bomrl.envs.locomotion import AntDirEnv, AntVelEnv, HalfCheetahDirEnv, HalfCheetahVelEnv

register_envs()

FAMILIES = {
    "HalfCheetahVel": HalfCheetahVelEnv,
    "HalfCheetahDir": HalfCheetahDirEnv,
    "AntVel": AntVelEnv,
    "AntDir": AntDirEnv,
}
unbounded = pytest.mark.filterwarnings("ignore:.*is probably too (low|high)")


def gymnasium_env(name, mujoco_log):
    """Gymnasium's environment that a family stands on."""
    if name.startswith("Half"):
        with mujoco_log():
            return gym.make("HalfCheetah-v5", max_episode_steps=200)
    return gym.make("Ant-v5", max_episode_steps=200, include_cfrc_ext_in_observation=False)


def expected_reward(name, task, info, action, healthy):
    """The table of the benchmark, from Gymnasium's x_velocity."""
    forward = -abs(info["x_velocity"] - task) if name.endswith("Vel") else task * info["x_velocity"]
    squares = float(np.sum(np.square(action.astype(np.float64))))
    if name.startswith("Half"):
        return forward - 0.05 * squares
    return forward + 0.05 + float(healthy) - 0.005 * squares


@unbounded
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_physics_and_rewards_are_those_of_gymnasium(name, seed):
    from sb3_bomrl.envs.mujoco_log import mujoco_warnings_to_log

    ours, theirs = gym.make(f"bomrl/{name}-v0"), gymnasium_env(name, mujoco_warnings_to_log)
    task = ours.unwrapped.test_tasks[seed]
    ours.unwrapped.set_task(task)
    ours.action_space.seed(seed)
    obs, info = ours.reset(seed=seed)
    np.testing.assert_array_equal(obs, theirs.reset(seed=seed)[0])
    n_steps, done = 0, False
    while not done:
        assert info["task"] == task
        action = ours.action_space.sample()
        obs, reward, terminated, truncated, info = ours.step(action)
        their_obs, _, their_terminated, their_truncated, their_info = theirs.step(action)
        np.testing.assert_array_equal(obs, their_obs)
        assert (terminated, truncated) == (their_terminated, their_truncated)
        assert info["x_velocity"] == their_info["x_velocity"]
        assert reward == pytest.approx(expected_reward(name, task, their_info, action, not terminated), rel=1e-12)
        n_steps, done = n_steps + 1, terminated or truncated
    assert n_steps == 200 or terminated


@unbounded
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric")  # Humanoid's are in [-0.4, 0.4]
@pytest.mark.parametrize("name", [*FAMILIES, "HumanoidDir"])
@pytest.mark.parametrize("forces", [False, True])
def test_check_env(name, forces):
    kwargs = {"contact_forces": True} if forces and "Half" not in name else {}
    check_env({**FAMILIES, "HumanoidDir": HumanoidDirEnv}[name](**kwargs), skip_render_check=True)
    check_env_sb3(gym.make(f"bomrl/{name}-v0", **kwargs))


def test_contact_forces_are_pickled_and_off_by_default():
    assert AntVelEnv().observation_space.shape == AntDirEnv().observation_space.shape == (27,)
    assert HumanoidDirEnv().observation_space.shape == (270,)
    for env in (AntVelEnv(contact_forces=True), AntDirEnv(contact_forces=True), HumanoidDirEnv(contact_forces=True)):
        copy = pickle.loads(pickle.dumps(env))
        assert copy.observation_space.shape == env.observation_space.shape == env.reset()[0].shape
        assert copy.family == env.family


def test_only_the_direction_decides_what_a_humanoid_earns():
    rewards = []
    for task in (0.0, np.pi / 2, np.pi):
        env = HumanoidDirEnv(task=task)
        env.reset(seed=0)
        _, reward, *_, info = env.step(np.full(17, 0.1))
        rewards.append(reward)
        assert info["reward_survive"] == 5.0
        assert info["reward_ctrl"] == pytest.approx(-0.1 * 17 * 0.01)
    assert rewards[0] - 5.0 + 0.017 == pytest.approx(1.25 * info["x_velocity"])
    assert rewards[2] - 5.0 + 0.017 == pytest.approx(-1.25 * info["x_velocity"])
    assert rewards[1] != pytest.approx(rewards[0])


def test_an_ant_out_of_its_range_of_heights_ends_its_episode():
    env = AntDirEnv()
    env.reset(seed=0)
    qpos = env.data.qpos.copy()
    qpos[2] = 2.0
    env.set_state(qpos, env.data.qvel * 0)
    _, reward, terminated, truncated, info = env.step(np.zeros(8))
    assert (terminated, truncated) == (True, False)
    assert info["reward_survive"] == 0.05
    assert reward == pytest.approx(info["x_velocity"] + 0.05)


@pytest.mark.parametrize("name", ["HalfCheetahVel", "AntDir"])
def test_a_diverged_simulation_ends_its_episode(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = FAMILIES[name]()
    obs, _ = env.reset(seed=0)
    env.data.qvel[0] = 1e12
    last = env._get_obs()
    obs, reward, terminated, truncated, info = env.step(np.zeros(env.model.nu))
    assert (reward, terminated, truncated, info["diverged"]) == (0.0, False, True, True)
    np.testing.assert_array_equal(obs, last)
    obs, _ = env.reset(seed=0)
    assert "diverged" not in env.step(np.zeros(env.model.nu))[4]
    assert os.listdir(tmp_path) == []


def test_a_new_task_takes_effect_at_once():
    env = HalfCheetahDirEnv(task=-1)
    env.reset(seed=0)
    assert env.get_task() == -1
    _, reward, *_, info = env.step(np.zeros(6))
    assert reward == -info["x_velocity"]
    env.set_task(1)
    _, reward, *_, info = env.step(np.zeros(6))
    assert (reward, info["task"]) == (info["x_velocity"], 1)


def test_presets():
    env = HalfCheetahVelEnv(goal_range=(0.0, 3.0), horizon=2)
    assert env.test_tasks[-1] == 2.9
    assert env.get_task() == 1.5
    assert max(env.sample_tasks(200)) > 2.5
    env.reset()
    assert [env.step(np.zeros(6))[3] for _ in range(2)] == [False, True]
    longer = gym.make("bomrl/HalfCheetahVel-v0", horizon=300, max_episode_steps=300)
    assert longer.unwrapped.horizon == 300


def test_pickle_keeps_task_and_generators():
    env = AntVelEnv(goal_range=(1.0, 2.0), task=1.2)
    env.reset(seed=3)
    env.set_task(1.7)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.get_task() == 1.7
    assert copy.sample_tasks(3) == env.sample_tasks(3)
    np.testing.assert_array_equal(copy.reset()[0], env.reset()[0])


def test_unknown_arguments_are_named():
    with pytest.raises(TypeError, match="unexpected keyword argument 'xml_file'"):
        HalfCheetahDirEnv(xml_file="other.xml")


def test_importing_needs_no_mujoco_and_loading_leaves_no_log(tmp_path):
    code = (
        "import sys, sb3_bomrl.envs as e; e.register_envs(); assert 'mujoco' not in sys.modules\n"
        "import gymnasium as gym; gym.make('bomrl/HalfCheetahVel-v0').reset()"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout == run.stderr == ""
    assert os.listdir(tmp_path) == []
