"""Simulations that break down for real: by velocities, by models, by MuJoCo giving up, by actions."""

import os

import mujoco
import numpy as np
import pytest
from stable_baselines3.common.logger import Logger

from sb3_bomrl import BOMRL, evaluate_adaptation
from sb3_bomrl.envs.rand_params import HopperRandParamsEnv
from sb3_bomrl.vec_env import make_meta_vec_env

FAMILIES = {
    "HalfCheetahVel": {},
    "AntDir": {},
    "AntVel": {"contact_forces": True},
    "HumanoidDir": {},
    "Walker2dRandParams": {},
    "HopperRandParams": {},
}
STIFF = {"dof_damping": 1e12}


def make(name, seed=0, **kwargs):
    return make_meta_vec_env(f"bomrl/{name}-v0", 3, seed=seed, env_kwargs={**FAMILIES[name], "n_threads": 2, **kwargs})


def huge_velocity(venv, index):
    venv._qvel[index] = 1e14


def infinite_position(venv, index):
    end_at_infinity(venv, venv._qpos, index)


def infinite_velocity(venv, index):
    end_at_infinity(venv, venv._qvel, index)


def end_at_infinity(venv, field, index):
    """As if the last substep had ended there: MuJoCo would only notice in the next one."""
    batch, step = venv._batch, venv._batch.step

    def step_and_overflow(**kwargs):
        step(**kwargs)
        field[index] = np.inf
        del batch.__dict__["step"]

    batch.__dict__["step"] = step_and_overflow


def mujoco_error(venv, index):
    """MuJoCo raises on an integrator that it does not know."""
    integrator, step = venv._batch.expand("opt.integrator"), venv._batch.step
    usual = integrator[index].copy()
    integrator[index] = 99

    def fail_once(**kwargs):
        del venv._batch.__dict__["step"]
        try:
            step(**kwargs)
        finally:
            integrator[index] = usual

    venv._batch.__dict__["step"] = fail_once


CASES = [(name, huge_velocity, index) for name in FAMILIES for index in (0, 2)]
CASES += [(name, infinity, 1) for name in FAMILIES for infinity in (infinite_position, infinite_velocity)]
CASES += [(name, mujoco_error, 1) for name in FAMILIES]


@pytest.mark.parametrize(("name", "blow_up", "index"), CASES)
def test_a_diverged_simulation_is_reset_alone(name, blow_up, index, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    venv, twin = make(name), make(name)
    tasks = venv.get_attr("test_tasks", 0)[0][:3] if name != "AntDir" else [1, -1, 1]
    venv.unwrapped.set_tasks(tasks), twin.unwrapped.set_tasks(tasks)
    rng, others = np.random.default_rng(0), [i for i in range(3) if i != index]
    last = venv.reset()[index]
    twin.reset()
    for k in range(8):
        actions = rng.uniform(-1, 1, size=(3, *venv.action_space.shape)).astype(np.float32)
        if k == 2:
            blow_up(venv.unwrapped, index)
        obs, rewards, dones, infos = venv.step(actions)
        their_obs, their_rewards, *_ = twin.step(actions)
        np.testing.assert_array_equal(obs[others], their_obs[others])
        np.testing.assert_array_equal(rewards[others], their_rewards[others])
        assert np.isfinite(obs).all()
        assert np.isfinite(rewards).all()
        assert dones[index] == (k == 2)
        if k == 2:
            assert rewards[index] == 0.0
            assert infos[index]["diverged"]
            assert infos[index]["TimeLimit.truncated"]
            np.testing.assert_array_equal(infos[index]["terminal_observation"], last)
            assert infos[index]["episode"]["l"] == 3
        last = obs[index].copy()
    assert (venv.unwrapped.n_diverged, twin.unwrapped.n_diverged) == (1, 0)
    assert caplog.messages == []
    for _ in range(2):
        venv.unwrapped.report_diverged(), twin.unwrapped.report_diverged()
    assert caplog.messages == ["1 simulations diverged and were reset, 1 in all"]
    assert os.listdir(tmp_path) == []


def test_an_impossible_model_diverges_without_touching_the_others():
    venv, twin = make("HopperRandParams"), make("HopperRandParams")
    venv.env_method("set_task", STIFF, indices=1)
    rng = np.random.default_rng(0)
    venv.reset(), twin.reset()
    for _ in range(40):
        actions = rng.uniform(-1, 1, size=(3, 3))
        obs, rewards, *_ = venv.step(actions)
        their_obs, their_rewards, *_ = twin.step(actions)
        np.testing.assert_array_equal(obs[[0, 2]], their_obs[[0, 2]])
        np.testing.assert_array_equal(rewards[[0, 2]], their_rewards[[0, 2]])
        assert np.isfinite(obs).all()
    assert venv.unwrapped.n_diverged == 40  # every single step
    assert twin.unwrapped.n_diverged == 0


def test_actions_out_of_range_break_nothing():
    venv, twin = make("HalfCheetahVel"), make("HalfCheetahVel")
    venv.reset(), twin.reset()
    actions = np.zeros((3, 6), dtype=np.float32)
    huge = actions.copy()
    huge[1] = 1e15
    obs, rewards, *_ = venv.step(huge)  # controls are clipped by the model, the control cost is not
    np.testing.assert_array_equal(obs[[0, 2]], twin.step(actions)[0][[0, 2]])
    assert np.isfinite(obs).all()
    assert rewards[1] < -1e28
    assert venv.unwrapped.n_diverged == 0


def test_single_environments_survive_mujocos_errors():
    env = HopperRandParamsEnv()
    first, _ = env.reset(seed=0)
    env.model.opt.integrator = 99
    obs, reward, terminated, truncated, info = env.step(np.zeros(3))
    assert (reward, terminated, truncated, info["diverged"]) == (0.0, False, True, True)
    np.testing.assert_array_equal(obs, first)
    env.model.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
    env.reset(seed=0)
    assert "diverged" not in env.step(np.zeros(3))[4]


def test_training_logs_how_many_simulations_diverged(monkeypatch, caplog):
    logged, record = [], Logger.record

    def record_too(self, key, value, *args, **kwargs):
        logged.append((key, value))
        record(self, key, value, *args, **kwargs)

    monkeypatch.setattr(Logger, "record", record_too)
    kwargs = {"rand_params": ("dof_damping",), "horizon": 10}
    venv = make_meta_vec_env("bomrl/HopperRandParams-v0", 2, seed=0, env_kwargs=kwargs)
    monkeypatch.setattr(
        venv.unwrapped.task_distribution, "sample", lambda rng, n: [{"dof_damping": 1.0}, STIFF] * (n // 2)
    )
    model = BOMRL("MlpPolicy", venv, n_steps=10, meta_batch_size=2, seed=0).learn(80)
    counts = [value for key, value in logged if key == "rollout/n_diverged"]
    assert counts == sorted(counts)
    assert counts[-1] == venv.unwrapped.n_diverged == 40  # all steps of the second task, support and query
    lines = [f"20 simulations diverged and were reset, {n} in all" for n in (20, 40)]
    assert caplog.messages == lines  # once per meta-iteration
    evaluate_adaptation(model, venv, [STIFF], 0, 1, 4)
    assert caplog.messages == [*lines, "4 simulations diverged and were reset, 44 in all"]
