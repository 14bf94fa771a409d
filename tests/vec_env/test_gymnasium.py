"""The batch against Gymnasium's own v5 environments, whose models are changed by hand where a task changes them."""

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from sb3_bomrl.envs.mujoco_log import mujoco_warnings_to_log
from sb3_bomrl.vec_env import make_meta_vec_env

N_ENVS, N_STEPS = 3, 200

NO_FORCES = {"include_cfrc_ext_in_observation": False}
CASES = {
    "HalfCheetahVel": ("HalfCheetah-v5", {}, {}),
    "HalfCheetahDir": ("HalfCheetah-v5", {}, {}),
    "AntVel": ("Ant-v5", {}, NO_FORCES),
    "AntDir, contact forces": ("Ant-v5", {"contact_forces": True}, {}),
    "HumanoidDir, contact forces": ("Humanoid-v5", {"contact_forces": True}, {}),
    "Walker2dRandParams": ("Walker2d-v5", {}, {}),
    "HopperRandParams": ("Hopper-v5", {}, {}),
}


def change(model, task):
    """What a user of Gymnasium would write to play a task."""
    model.body_mass[:] = model.body_mass * np.array(task["body_mass"])
    model.body_inertia[:] = model.body_inertia * np.array(task["body_inertia"])
    model.dof_damping[:] = model.dof_damping * np.array(task["dof_damping"])
    model.geom_friction[:] = model.geom_friction * np.array(task["geom_friction"])
    mujoco.mj_setConst(model, mujoco.MjData(model))


def expected_reward(name, task, action, info, terminated):
    """The benchmark's table, from what Gymnasium says."""
    squares, healthy = float(np.sum(np.square(action))), float(not terminated)
    contact = info["reward_contact"] if "contact" in name else 0.0
    if "Humanoid" in name:
        along = info["x_velocity"] * np.cos(task) + info["y_velocity"] * np.sin(task)
        return 1.25 * along + 5.0 * healthy - 0.1 * squares + contact
    if "RandParams" in name:
        return info["x_velocity"] + healthy - 1e-3 * squares
    forward = -abs(info["x_velocity"] - task) if "Vel" in name else task * info["x_velocity"]
    if "Half" in name:
        return forward - 0.05 * squares
    return forward + 0.05 + healthy - 0.005 * squares + contact


def make_pair(name, seed, horizon=60):
    """A batch in which every row has its own task, and one Gymnasium environment per row."""
    base, kwargs, their_kwargs = CASES[name]
    env_id = f"bomrl/{name.split(',')[0]}-v0"
    venv = make_meta_vec_env(env_id, N_ENVS, seed=seed, env_kwargs={"horizon": horizon, "n_threads": 2, **kwargs})
    venv.env_method("seed_tasks", seed, indices=0)
    tasks = venv.env_method("sample_tasks", N_ENVS, indices=0)[0]
    venv.unwrapped.set_tasks(tasks)
    with mujoco_warnings_to_log():
        envs = [gym.make(base, max_episode_steps=horizon, **their_kwargs) for _ in tasks]
    if "RandParams" in name:
        for env, task in zip(envs, tasks, strict=True):
            change(env.unwrapped.model, task)
    return venv, envs, tasks


def throw(venv, envs, row):
    """Lift one ant out of its range of heights, in both."""
    venv.unwrapped._qpos[row, 2] += 5.0
    envs[row].unwrapped.data.qpos[2] += 5.0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_batch_is_gymnasium_step_for_step(name, seed):
    venv, envs, tasks = make_pair(name, seed, horizon=20 if "RandParams" in name or "Humanoid" in name else 60)
    rng, low, high = np.random.default_rng(seed), venv.action_space.low, venv.action_space.high
    np.testing.assert_array_equal(venv.reset(), [env.reset(seed=seed + i)[0] for i, env in enumerate(envs)])
    n_truncated, n_terminated = 0, 0
    for step in range(N_STEPS):
        if step % 50 == 17 and "Ant" in name:
            throw(venv, envs, step % N_ENVS)
        actions = rng.uniform(low, high, size=(N_ENVS, *low.shape))
        obs, rewards, dones, infos = venv.step(actions)
        for i, env in enumerate(envs):
            their_obs, their_reward, terminated, truncated, their_info = env.step(actions[i])
            reward = expected_reward(name, tasks[i], actions[i], their_info, terminated)
            assert rewards[i] == pytest.approx(reward, rel=1e-7, abs=1e-6)  # the VecEnv's rewards are float32
            if "RandParams" in name:
                assert rewards[i] == np.float32(their_reward)
            assert dones[i] == (terminated or truncated)
            assert infos[i]["TimeLimit.truncated"] == (truncated and not terminated)
            if dones[i]:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], their_obs)
                assert infos[i]["x_velocity"] == their_info["x_velocity"]
                n_truncated, n_terminated = n_truncated + (not terminated), n_terminated + terminated
                their_obs, _ = env.reset()
            np.testing.assert_array_equal(obs[i], their_obs)
    venv.close()
    assert n_terminated >= 4 or "Half" in name
    assert n_truncated >= 3


def test_contact_forces_are_not_always_zero():
    venv, envs, _ = make_pair("AntDir, contact forces", 0)
    assert venv.observation_space.shape == envs[0].observation_space.shape == (105,)
    obs = venv.reset()
    assert not obs[:, 27:].any()
    rng = np.random.default_rng(0)
    forces = np.array([venv.step(rng.uniform(-1, 1, size=(N_ENVS, 8)))[0][:, 27:] for _ in range(60)])
    assert np.abs(forces).max() == 1.0  # clipped
    assert (np.abs(forces).max(axis=2) > 0).mean() > 0.2


def test_a_new_model_takes_effect_within_the_episode():
    venv, envs, _ = make_pair("Walker2dRandParams", 0)
    venv.reset()
    for i, env in enumerate(envs):
        env.reset(seed=i)
    rng = np.random.default_rng(0)
    new = venv.get_attr("test_tasks", 0)[0][:2]
    for step in range(12):
        if step == 5:
            venv.env_method("set_task", new[0], indices=2)
            venv.unwrapped.set_tasks([new[1], new[0]], indices=[1, 0])
            with_new = [gym.make("Walker2d-v5") for _ in envs]
            for env, fresh, task in zip(envs, with_new, [new[0], new[1], new[0]], strict=True):
                change(fresh.unwrapped.model, task)
                env.unwrapped.model.body_mass[:] = fresh.unwrapped.model.body_mass
                env.unwrapped.model.body_inertia[:] = fresh.unwrapped.model.body_inertia
                env.unwrapped.model.dof_damping[:] = fresh.unwrapped.model.dof_damping
                env.unwrapped.model.geom_friction[:] = fresh.unwrapped.model.geom_friction
                mujoco.mj_setConst(env.unwrapped.model, mujoco.MjData(env.unwrapped.model))
        actions = rng.uniform(-1, 1, size=(N_ENVS, 6))
        obs = venv.step(actions)[0]
        np.testing.assert_array_equal(obs, [env.step(a)[0] for env, a in zip(envs, actions, strict=True)])
    assert venv.env_method("get_task") == [new[0], new[1], new[0]]
