"""Batches of array families: equal to single environments, and a user's own family."""

import pickle
import time
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_bomrl import BOMRL, evaluate_adaptation, make_meta_vec_env
from sb3_bomrl.envs import ENV_IDS, ArrayTaskEnv, DrawnTasks
from sb3_bomrl.envs.registry import ARRAY_VEC_ENV, ENVS
from sb3_bomrl.types import observation_parts
from sb3_bomrl.vec_env import ArrayTaskVecEnv

IDS = [env_id for env_id in ENV_IDS if ENVS[env_id].vec_env == ARRAY_VEC_ENV]
DICT_ID = "bomrl/PointMassGoal-v0"
N_ENVS = 3


def policy_for(env_id):
    return "MultiInputPolicy" if env_id == DICT_ID else "MlpPolicy"


def assert_same(ours, theirs):
    for our, their in zip(observation_parts(ours), observation_parts(theirs), strict=True):
        np.testing.assert_array_equal(our, their)
        assert np.asarray(our).dtype == np.asarray(their).dtype


def sample_actions(venv, n_envs=N_ENVS):
    return np.array([venv.action_space.sample() for _ in range(n_envs)])


@pytest.mark.parametrize("env_id", IDS)
def test_every_step_is_that_of_single_environments(env_id):
    kwargs = {"horizon": 30}
    fast, slow = (make_meta_vec_env(env_id, N_ENVS, b, seed=4, env_kwargs=kwargs) for b in ("numpy", "dummy"))
    assert type(fast.unwrapped) is ArrayTaskVecEnv
    tasks = fast.get_attr("test_tasks", 0)[0][:N_ENVS]
    fast.unwrapped.set_tasks(tasks)
    for i, task in enumerate(tasks):
        slow.env_method("set_task", task, indices=i)
    assert_same(fast.reset(), slow.reset())
    assert fast.env_method("sample_tasks", 3) == slow.env_method("sample_tasks", 3)
    n_ended = 0
    for _ in range(100):
        actions = sample_actions(fast)
        (obs, rewards, dones, infos), (their_obs, *theirs, their_infos) = fast.step(actions), slow.step(actions)
        for our, their in ((obs, their_obs), (rewards, theirs[0]), (dones, theirs[1])):
            assert_same(our, their)
        for i in np.flatnonzero(dones):
            assert_same(infos[i].pop("terminal_observation"), their_infos[i].pop("terminal_observation"))
            assert infos[i]["TimeLimit.truncated"] == their_infos[i]["TimeLimit.truncated"]
            assert infos[i]["episode"]["l"] == their_infos[i]["episode"]["l"]
            n_ended += 1
        assert [info["task"] for info in infos] == tasks
    assert n_ended >= 3 * N_ENVS


@pytest.mark.parametrize("env_id", IDS)
def test_a_row_does_not_depend_on_the_others(env_id):
    many, few = make_meta_vec_env(env_id, 65, seed=0), make_meta_vec_env(env_id, 2, seed=0)
    tasks = many.env_method("sample_tasks", 65, indices=0)[0]
    many.unwrapped.set_tasks(tasks), few.unwrapped.set_tasks(tasks[:2])
    many.reset(), few.reset()
    for _ in range(40):
        actions = sample_actions(many, 65)
        ours, theirs = many.step(actions), few.step(actions[:2])
        for our, their in zip(observation_parts(ours[0]), observation_parts(theirs[0]), strict=True):
            np.testing.assert_array_equal(our[:2], their)
        np.testing.assert_array_equal(ours[1][:2], theirs[1])


@pytest.mark.parametrize("env_id", IDS)
def test_returned_arrays_are_the_callers(env_id):
    def run(spoils):
        venv, trace = make_meta_vec_env(env_id, N_ENVS, seed=0), []
        venv.action_space.seed(0)
        obs = venv.reset()
        for _ in range(60):
            if spoils:
                for part in observation_parts(obs):
                    part[:] = 1
            obs, rewards, *_ = venv.step(sample_actions(venv))
            trace += [np.copy(part) for part in observation_parts(obs)] + [rewards]
        return trace

    for kept, spoilt in zip(run(False), run(True), strict=True):
        np.testing.assert_array_equal(kept, spoilt)


def test_observations_of_a_terminated_episode_are_those_before_the_reset():
    venv = make_meta_vec_env("bomrl/GridGoal-v0", 2, env_kwargs={"task": 11})
    venv.reset()
    obs, rewards, dones, infos = venv.step(np.array([2, 3]))
    np.testing.assert_array_equal(obs, [12, 13])
    np.testing.assert_allclose(rewards, [0.95, -0.05])
    assert dones.tolist() == [True, False]
    assert (infos[0]["terminal_observation"], infos[0]["TimeLimit.truncated"]) == (11, False)


@pytest.mark.parametrize("env_id", IDS)
def test_batches_and_single_environments_can_be_pickled(env_id):
    batch = pickle.loads(pickle.dumps(make_meta_vec_env(env_id, 2, seed=0).unwrapped))
    assert batch.num_envs == 2
    single = pickle.loads(pickle.dumps(gym.make(env_id).unwrapped))
    assert single.get_task() == batch.env_method("get_task")[0]


@pytest.mark.parametrize("env_id", IDS)
def test_an_algorithm_trains_adapts_and_is_evaluated(env_id):
    model = BOMRL(
        policy_for(env_id),
        env_id,
        n_steps=10,
        meta_batch_size=2,
        n_envs_per_task=2,
        n_inner_steps=2,
        reg_coef=5.0,
        seed=0,
        device="cpu",
    )
    assert type(model.env.unwrapped) is ArrayTaskVecEnv
    model.learn(1)
    assert model.num_timesteps == 2 * 10 * 4
    curve = evaluate_adaptation(model, make_meta_vec_env(env_id, 6, env_kwargs={"horizon": 10}), n_episodes=1)
    assert np.isfinite(curve.returns).all()


def test_every_algorithm_takes_dictionaries_from_a_batch(algorithm, tiny):
    model = tiny.model(make_meta_vec_env(DICT_ID, 4), "MultiInputPolicy", algorithm)
    model.learn(1)
    assert model.num_timesteps == tiny.iteration_of(model)


def test_sb3_normalizes_and_trains_on_dictionaries():
    venv = VecNormalize(make_meta_vec_env(DICT_ID, 2, env_kwargs={"horizon": 8}))
    model = PPO("MultiInputPolicy", venv, n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0).learn(64)
    assert len(model.ep_info_buffer) == 8


# ---------------------------------------------------------------------- a user's own family
class DriftEnv(ArrayTaskEnv):
    """A point on a line that drifts by the task."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    horizon = 5
    task_distribution = DrawnTasks(lambda rng: rng.uniform(0.1, 0.5), 0.2, [0.3, 0.4], "the drift")

    def start(self, rng):
        return [0.0]

    def advance(self, states, actions, tasks):
        new = states + 0.5 * actions + tasks
        return new, -np.abs(new[:, 0]), None


class LongTable(DriftEnv):
    def advance(self, states, actions, tasks):
        return states, np.zeros((len(states), 1)), None


@pytest.fixture
def drift_id():
    gym.register("own/Drift-v0", entry_point=DriftEnv, max_episode_steps=4)
    yield "own/Drift-v0"
    del gym.registry["own/Drift-v0"]


def test_an_own_family_is_stepped_as_a_batch(drift_id, caplog):
    venv = make_meta_vec_env(drift_id, 2, seed=0)
    assert type(venv.unwrapped) is ArrayTaskVecEnv
    assert caplog.messages == []
    venv.unwrapped.set_tasks([0.1, 0.4])
    venv.reset()
    for k in range(1, 5):
        obs, rewards, dones, infos = venv.step(np.zeros((2, 1)))
        np.testing.assert_allclose(rewards, [-0.1 * k, -0.4 * k], rtol=1e-6)
    assert dones.all()  # the registered limit of 4, below the family's
    np.testing.assert_allclose(infos[1]["terminal_observation"], [1.6], rtol=1e-6)
    np.testing.assert_array_equal(obs, 0.0)
    longer = make_meta_vec_env(drift_id, 1, env_kwargs={"horizon": 7, "task": 0.5})
    assert longer.get_attr("horizon") == [7]
    assert longer.env_method("get_task") == [0.5]
    assert ArrayTaskVecEnv(DriftEnv(task=0.3), 3).get_tasks() == [0.3] * 3


def test_wrappers_of_a_registered_family_are_kept():
    spec = gym.envs.registration.WrapperSpec("Clip", "gymnasium.wrappers:ClipAction", {})
    gym.register("own/Clipped-v0", entry_point=DriftEnv, additional_wrappers=(spec,))
    try:
        venv = make_meta_vec_env("own/Clipped-v0", 2)
        assert type(venv) is DummyVecEnv
        assert venv.env_is_wrapped(gym.wrappers.ClipAction) == [True, True]
    finally:
        del gym.registry["own/Clipped-v0"]


@pytest.mark.parametrize("make", [lambda env: env, lambda env: ArrayTaskVecEnv(env, 3)])
def test_arrays_of_another_shape_are_refused(make):
    env = make(LongTable())
    env.reset()
    n = getattr(env, "num_envs", None)
    with pytest.raises(ValueError, match=r"advance of LongTable must return rewards of shape \(\d,\), got \(\d, 1\)"):
        env.step(np.zeros((n, 1) if n else 1))


def test_spaces_are_not_shared():
    one, other = DriftEnv(), DriftEnv()
    assert one.action_space is not other.action_space
    one.action_space.seed(0), other.action_space.seed(0)
    np.testing.assert_array_equal(one.action_space.sample(), other.action_space.sample())


@pytest.mark.slow
def test_a_batch_is_faster_than_single_environments():
    """Processor time, at least five times; quiet machines measure above ten."""

    def steps_per_second(venv):
        actions, best = sample_actions(venv, 100), 0.0
        venv.reset()
        for _ in range(5):
            start = time.process_time()
            for _ in range(30):
                venv.step(actions)
            best = max(best, 3000.0 / (time.process_time() - start))
        return best

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slow = steps_per_second(make_meta_vec_env("Pendulum-v1", 100, "dummy"))
    assert steps_per_second(make_meta_vec_env("bomrl/PendulumParams-v0", 100)) > 5.0 * slow
