"""Families whose task is the model, against Gymnasium's environments, XML files edited by hand, their definition."""

import json
import pickle
from xml.etree import ElementTree

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from sb3_bomrl.envs import register_envs

pytest.importorskip("mujoco")

from sb3_bomrl.envs.rand_params import HopperRandParamsEnv, Walker2dRandParamsEnv

register_envs()

ENVS = {"Walker2d": Walker2dRandParamsEnv, "Hopper": HopperRandParamsEnv}
SIZES = {"Walker2d": (8, 9, 8), "Hopper": (5, 6, 5)}  # bodies, degrees of freedom, geoms
LENGTH = ("segment_length",)
ALL = ("body_mass", "body_inertia", "dof_damping", "geom_friction", "segment_length")
both = pytest.mark.parametrize("name", ENVS)


def model_arrays(model):
    """All arrays of a model."""
    names = [name for name in dir(model) if isinstance(getattr(model, name), np.ndarray)]
    return {name: getattr(model, name).copy() for name in names}


@both
@pytest.mark.parametrize("seed", [0, 1])
def test_the_default_task_is_gymnasiums_environment(name, seed):
    ours, theirs = gym.make(f"bomrl/{name}RandParams-v0"), gym.make(f"{name}-v5", max_episode_steps=200)
    ours.action_space.seed(seed)
    for k in range(4):
        obs, _ = ours.reset(seed=seed if k == 0 else None)
        np.testing.assert_array_equal(obs, theirs.reset(seed=seed if k == 0 else None)[0])
        done = False
        while not done:
            action = ours.action_space.sample().astype(np.float64)
            obs, reward, terminated, truncated, info = ours.step(action)
            their_obs, their_reward, their_terminated, their_truncated, their_info = theirs.step(action)
            np.testing.assert_array_equal(obs, their_obs)
            assert (reward, terminated, truncated) == (their_reward, their_terminated, their_truncated)
            for key in set(info) - {"task", "TimeLimit.truncated"}:
                assert info[key] == their_info[key]
            done = terminated or truncated


@both
def test_health_is_gymnasiums(name):
    """Heights, angles and, for Hopper, other coordinates on both sides of every limit."""
    ours, theirs = ENVS[name](), gym.make(f"{name}-v5").unwrapped
    ours.reset(seed=0), theirs.reset(seed=0)
    rng, found = np.random.default_rng(0), set()
    for _ in range(400):
        qpos = theirs.init_qpos + rng.normal(scale=[1, 0.6, 0.3] + [0.3] * (len(theirs.init_qpos) - 3))
        qvel = rng.normal(scale=30, size=len(theirs.init_qvel))
        ours.data.qpos[:], ours.data.qvel[:] = qpos, qvel
        theirs.data.qpos[:], theirs.data.qvel[:] = qpos, qvel
        healthy = bool(ours.family.healthy(ours._state(), np.zeros(1))[0])
        assert healthy == bool(theirs.is_healthy)
        found.add(healthy)
    for z, angle in [(0.8, 0), (2.0, 0), (0.7, 0), (1.0, 1.0), (1.0, -1.0), (1.0, 0.2), (1.0, -0.2)]:
        for env in (ours, theirs):
            env.data.qpos[1], env.data.qpos[2], env.data.qvel[:] = z, angle, 0
        assert bool(ours.family.healthy(ours._state(), np.zeros(1))[0]) == bool(theirs.is_healthy)
    assert found == {True, False}


@both
def test_shapes_and_ranges_of_tasks(name):
    env = ENVS[name](rand_params=ALL)
    n_bodies, n_dofs, n_geoms = SIZES[name]
    tasks = env.sample_tasks(300)
    shapes = {
        "body_mass": (n_bodies,),
        "body_inertia": (n_bodies, 3),
        "dof_damping": (n_dofs,),
        "geom_friction": (n_geoms, 3),
        "segment_length": (n_bodies,),
    }
    assert {key: np.shape(value) for key, value in tasks[0].items()} == shapes
    for key, base in [("body_mass", 1.5), ("body_inertia", 1.5), ("dof_damping", 1.3), ("segment_length", 1.1)]:
        exponents = np.log([task[key] for task in tasks]) / np.log(base)
        assert -3 <= exponents.min() < -2.9
        assert 2.9 < exponents.max() <= 3
        assert np.abs(np.corrcoef(exponents.reshape(300, -1).T) - np.eye(exponents[0].size)).max() < 0.3
        assert abs(exponents.std() - 3 / np.sqrt(3)) < 0.1  # uniform
    narrow = ENVS[name](log_scale_limit=1.0).sample_tasks(50)
    assert np.max([task["geom_friction"] for task in narrow]) <= 1.5


@both
def test_test_tasks_are_fixed_and_differ_from_training_tasks(name):
    first, second = ENVS[name](), ENVS[name]()
    first.reset(seed=3)
    assert first.test_tasks == second.test_tasks
    assert len(first.test_tasks) == 20
    assert first.test_tasks[0] not in first.sample_tasks(20)
    second.reset(seed=3)
    first.seed_tasks(5), second.seed_tasks(5)
    assert first.sample_tasks(2) == second.sample_tasks(2)
    assert first.sample_tasks(1) != second.sample_tasks(2)


@both
def test_a_task_survives_json_and_pickle(name):
    env = ENVS[name](log_scale_limit=2.0, rand_params=ALL, horizon=50)
    env.reset(seed=1)
    task = env.sample_tasks(1)[0]
    env.set_task(json.loads(json.dumps(task)))
    assert env.get_task() == task
    copy = pickle.loads(pickle.dumps(env))
    assert copy.get_task() == task
    assert copy.test_tasks == env.test_tasks
    np.testing.assert_equal(model_arrays(copy.model), model_arrays(env.model))
    np.testing.assert_array_equal(copy.reset()[0], env.reset()[0])
    obs, *_, info = copy.step(copy.action_space.low)
    np.testing.assert_array_equal(obs, env.step(env.action_space.low)[0])
    assert info["task"] == task


@both
def test_what_a_task_leaves_out_is_one_and_a_number_counts_for_all(name):
    env, base = ENVS[name](task={"body_mass": 2.0}), gym.make(f"{name}-v5").unwrapped.model
    np.testing.assert_array_equal(env.model.body_mass, 2.0 * base.body_mass)
    np.testing.assert_array_equal(env.model.geom_friction, base.geom_friction)
    assert env.get_task()["body_mass"] == (2.0,) * SIZES[name][0]
    assert (env.model.body_invweight0[1:] != base.body_invweight0[1:]).all()  # derived constants follow
    env.set_task({})
    np.testing.assert_equal(model_arrays(env.model), model_arrays(base))


def hand_edited_xml(name, path, lengths):
    """The model's XML with every number that a limb's length decides written anew."""
    tree = ElementTree.parse(gym.make(f"{name}-v5").unwrapped.fullpath)
    thigh, leg, foot = lengths
    toe, half, centre = (0.2, 0.1, -0.1) if name == "Walker2d" else (0.13, 0.195, -0.065)
    new = {
        ("geom", "thigh_geom"): {"pos": (0, 0, -0.225 * thigh), "size": (0.05, 0.225 * thigh)},
        ("body", "leg"): {"pos": (0, 0, -0.45 * thigh - 0.25 * leg)},
        ("joint", "leg_joint"): {"pos": (0, 0, 0.25 * leg)},
        ("geom", "leg_geom"): {"size": (0.04, 0.25 * leg)},
        ("body", "foot"): {"pos": (toe * foot, 0, -0.25 * leg - 0.1 * foot)},
        ("joint", "foot_joint"): {"pos": (-toe * foot, 0, 0.1 * foot)},
        ("geom", "foot_geom"): {"pos": (centre * foot, 0, 0.1 * foot), "size": (0.06, half * foot)},
    }
    n_edited = 0
    for element in tree.iter():
        key = (element.tag, element.get("name", "").replace("_left", ""))
        for attribute, values in new.get(key, {}).items():
            assert attribute in element.attrib
            element.set(attribute, " ".join(repr(value) for value in values))
            n_edited += 1
    assert n_edited == (18 if name == "Walker2d" else 9)
    tree.write(path)
    return path


@both
def test_other_lengths_are_those_of_an_edited_xml(name, tmp_path):
    lengths = (1.2, 0.85, 1.1)
    theirs = gym.make(f"{name}-v5", xml_file=str(hand_edited_xml(name, tmp_path / "model.xml", lengths))).unwrapped
    ours = ENVS[name](rand_params=LENGTH)
    ours.set_task({"segment_length": [1.0, 1.0, *lengths, *lengths][: SIZES[name][0]]})
    ours_arrays, their_arrays = model_arrays(ours.model), model_arrays(theirs.model)
    for key, values in their_arrays.items():
        if values.dtype == np.float64:
            np.testing.assert_allclose(ours_arrays[key], values, rtol=1e-12, atol=1e-14, err_msg=key)
    assert (ours_arrays["body_mass"][2:] != model_arrays(gym.make(f"{name}-v5").unwrapped.model)["body_mass"][2:]).all()
    lift = 0.45 * (lengths[0] - 1) + 0.5 * (lengths[1] - 1)  # from hip to ankle
    assert ours._lift[0] == pytest.approx(lift, abs=1e-12)
    theirs.init_qpos[1] += lift
    theirs._healthy_z_range = tuple(z + lift for z in theirs._healthy_z_range)
    theirs.model.stat.meaninertia = ours.model.stat.meaninertia
    rng = np.random.default_rng(0)
    for _ in range(3):
        obs, _ = ours.reset(seed=0)
        np.testing.assert_allclose(obs, theirs.reset(seed=0)[0], atol=1e-14)
        for _ in range(12):
            action = rng.uniform(-1, 1, size=ours.model.nu)
            obs, reward, terminated, *_ = ours.step(action)
            their_obs, their_reward, their_terminated, *_ = theirs.step(action)
            np.testing.assert_allclose(obs, their_obs, rtol=1e-7, atol=1e-7)  # rounding grows in contact
            assert reward == pytest.approx(their_reward, abs=1e-7)
            assert terminated == their_terminated


@both
def test_all_lengths_keep_limbs_joined_and_feet_above_the_ground(name):
    env, base = ENVS[name](rand_params=ALL), ENVS[name]()
    base.set_state(base.init_qpos, base.init_qvel)
    env.reset(seed=0)
    for task in env.sample_tasks(10):
        env.set_task(task)
        start = env.init_qpos.copy()
        start[1] += env._lift[0]
        env.set_state(start, env.init_qvel)
        ends = env.data.geom_xpos[1:, 2] - env.model.geom_size[1:, 0]
        ends -= np.abs(env.data.geom_xmat[1:, 8]) * env.model.geom_size[1:, 1]
        base_ends = base.data.geom_xpos[1:, 2] - base.model.geom_size[1:, 0]
        base_ends -= np.abs(base.data.geom_xmat[1:, 8]) * base.model.geom_size[1:, 1]
        assert ends.min() == pytest.approx(base_ends.min(), abs=1e-12)
        for limb in range(3, env.model.nbody):  # knees and ankles stay at the ends of the limbs above
            if env.model.body_parentid[limb] == 1:
                continue
            anchor = env.data.xanchor[env.model.body_jntadr[limb]]
            above = env.model.body_geomadr[env.model.body_parentid[limb]]
            bottom = env.data.geom_xpos[above] - env.model.geom_size[above, 1] * np.array([0, 0, 1])
            np.testing.assert_allclose(anchor, bottom, atol=1e-12)
        assert env.step(np.zeros(env.model.nu))[2] is False


@both
def test_checkers_accept_the_environments(name):
    with pytest.warns(UserWarning, match="probably too (low|high)"):
        check_env(ENVS[name](), skip_render_check=True)
    check_env_sb3(gym.make(f"bomrl/{name}RandParams-v0", rand_params=ALL))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (1.5, "task must be a dictionary of multipliers for .*body_mass.* got 1.5"),
        ({"mass": 1.0}, "task may hold multipliers for .*body_mass.* got 'mass'"),
        ({"segment_length": 1.0}, "task may hold multipliers for .* got 'segment_length'"),
        (
            {"body_mass": [1.0, 2.0]},
            r"task\['body_mass'\] must be .* of shape \(5,\).* got \[1.0, 2.0\]",
        ),
        ({"body_mass": 0.0}, r"task\['body_mass'\] must be .* above 0, got 0.0"),
        ({"dof_damping": [1, 1, 1, 1, 1, float("nan")]}, r"task\['dof_damping'\] must be .* finite"),
        ({"geom_friction": "high"}, r"task\['geom_friction'\] must be .* got 'high'"),
    ],
)
def test_bad_tasks_are_explained(task, message):
    with pytest.raises(ValueError, match=message):
        HopperRandParamsEnv().set_task(task)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"log_scale_limit": -1.0}, "log_scale_limit must be a finite number of at least 0, got -1.0"),
        ({"log_scale_limit": float("inf")}, "log_scale_limit must be .* got inf"),
        ({"rand_params": ("gravity",)}, "rand_params must be .*body_mass.* got"),
        ({"rand_params": ()}, "rand_params must be one or more different names"),
        ({"rand_params": ("body_mass", "body_mass")}, "rand_params must be one or more different names"),
        ({"horizon": 0}, "horizon must be an integer of at least 1"),
    ],
)
def test_bad_arguments_are_explained(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Walker2dRandParamsEnv(**kwargs)
    with pytest.raises(TypeError, match="unexpected keyword argument 'xml_file'"):
        HopperRandParamsEnv(xml_file="other.xml")
