"""Any number of environments that fits the number of tasks, and changing it."""

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv


@pytest.mark.parametrize(("meta_batch_size", "n_envs"), [(4, 1), (4, 2), (4, 4), (4, 8), (1, 3)])
def test_tasks_are_spread_over_environments(tiny, meta_batch_size, n_envs):
    model = tiny.model(tiny.goal_vec(n_envs), meta_batch_size=meta_batch_size)
    rollouts = []

    def keep(local, _):
        rollouts.append(local["tasks"])
        return True

    before = tiny.params(model)
    model.learn(1, callback=keep)
    n_waves = max(1, meta_batch_size // n_envs)
    assert model.num_timesteps == 2 * n_waves * 10 * n_envs
    assert all(len(tasks) == meta_batch_size for tasks in rollouts)
    assert model.n_meta_iterations == 1
    assert tiny.differ(before, tiny.params(model))


@pytest.mark.parametrize(("meta_batch_size", "n_envs", "advice"), [(5, 3, "n_envs=5"), (2, 5, "n_envs=4 or 6")])
def test_numbers_that_do_not_fit_say_what_to_change(tiny, meta_batch_size, n_envs, advice):
    with pytest.raises(ValueError, match=f"meta_batch_size={meta_batch_size} and n_envs={n_envs} .*{advice}"):
        tiny.model(tiny.goal_vec(n_envs), meta_batch_size=meta_batch_size)


def test_set_env_with_another_number_of_environments(tiny, algorithm):
    model = tiny.model(tiny.goal_vec(4), cls=algorithm)
    model.learn(1)
    first, steps = model.num_timesteps, model.n_steps * (model.n_support_phases + 1)
    assert first == 4 * steps
    model.set_env(tiny.goal_vec(2))
    assert model.n_envs == 2
    model.learn(1, reset_num_timesteps=False)
    assert model.num_timesteps == first + 2 * steps
    assert model.rollout_buffer.n_envs == 2
    with pytest.raises(ValueError, match="n_envs=3"):
        model.set_env(tiny.goal_vec(3))
    assert model.n_envs == 2
    assert model.env.num_envs == 2
    model.learn(1)


def test_set_env_with_other_spaces_is_refused_and_changes_nothing(tiny, algorithm):
    model = tiny.model(tiny.goal_vec(4), cls=algorithm)
    for spaces_of, kind in (({}, "Observation"), ({"observation_space": tiny.GoalEnv.observation_space}, "Action")):
        with pytest.raises(ValueError, match=f"{kind} spaces do not match"):
            model.set_env(DummyVecEnv([lambda kwargs=spaces_of: tiny.SpaceEnv(**kwargs)] * 2))
    assert model.n_envs == 4
    model.learn(1)


def test_load_with_another_number_of_environments(tiny, algorithm, tmp_path):
    model = tiny.model(tiny.goal_vec(4), cls=algorithm)
    model.learn(1).save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=tiny.goal_vec(2))
    assert loaded.n_envs == loaded.rollout_buffer.n_envs == 2
    loaded.learn(1)
    assert loaded.num_timesteps == 2 * model.n_steps * (model.n_support_phases + 1)
    with pytest.raises(ValueError, match="meta_batch_size=2 and n_envs=3"):
        algorithm.load(tmp_path / "model", env=tiny.goal_vec(3))


def test_a_single_environment_that_is_not_vectorised(tiny):
    model = tiny.model(tiny.GoalEnv())
    model.learn(1)
    assert model.num_timesteps == 2 * 2 * 10


def test_the_result_does_not_depend_on_how_tasks_are_spread_in_the_mean(tiny):
    """Waves and side by side see the same number of samples per task."""
    shapes = []
    for n_envs in (1, 2):
        model = tiny.model(tiny.goal_vec(n_envs))
        original = model.adapt_params
        model.adapt_params = lambda params, support, f=original: (
            shapes.append(support.batch.weights.shape) or f(params, support)
        )
        model.learn(1)
    assert len(set(shapes)) == 1
    assert np.prod(shapes[0]) == 20
