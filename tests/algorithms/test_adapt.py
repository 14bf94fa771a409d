"""``model.adapt`` gives a model of the same kind and leaves the original alone."""

from copy import deepcopy

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_bomrl import BOMRL, EMAML, FOMAML, MAML, ProMP, TaskSamplerWrapper, evaluate_adaptation, make_meta_vec_env
from sb3_bomrl.core.params import flatten, stack
from sb3_bomrl.rollout.collector import RolloutCollector

GOAL = np.array([0.8, -0.3])


def task_env(tiny, task=GOAL):
    env = tiny.GoalEnv()
    env.set_task(task)
    return env


def trained(tiny, env=None, **kwargs):
    return tiny.model(env, **kwargs).learn(1)


def snapshot(tiny, model):
    return (
        tiny.params(model),
        deepcopy(model.policy.optimizer.state_dict()),
        model.num_timesteps,
        deepcopy(model.task_generator.bit_generator.state),
        model.n_envs,
        list(model.ep_info_buffer),
    )


def assert_untouched(tiny, model, before):
    tiny.assert_equal(tiny.params(model), before[0])
    after = snapshot(tiny, model)
    assert str(after[1]) == str(before[1])
    assert after[2:] == before[2:]


@pytest.mark.parametrize("n_envs", [None, 1, 3, 4])
def test_adapt_to_environments(tiny, n_envs, algorithm):
    model = trained(tiny, cls=algorithm)
    env, before = model.env, snapshot(tiny, model)
    single = task_env(tiny)
    vec = single if n_envs is None else DummyVecEnv([lambda: Monitor(task_env(tiny))] * n_envs)
    adapted = model.adapt(vec, n_episodes=4)
    assert type(adapted) is algorithm
    assert adapted is not model
    assert tiny.differ(tiny.params(adapted), before[0])
    assert_untouched(tiny, model, before)
    assert model.env is env
    assert adapted.env is not env
    np.testing.assert_array_equal(adapted.env.env_method("get_task")[0], GOAL)


def test_adapt_is_collecting_and_solving_the_lower_level(tiny, algorithm):
    model = trained(tiny, cls=algorithm)
    env = DummyVecEnv([lambda: task_env(tiny)])
    adapted = model.adapt(env, n_episodes=3, seed=11, n_adaptation_steps=2)
    params = stack(model.actor.params(), 1)
    collector = model.make_collector(env, np.random.default_rng(11))
    assert isinstance(collector, RolloutCollector)
    for n_adapted in range(2):
        support = collector.collect_episodes([GOAL], params, 3)
        params = model.adapt_params(params, model.experience(support, n_adapted)).params
    for name, value in adapted.actor.params().items():
        assert th.equal(value, params[name][0])


@pytest.mark.parametrize("cls", [MAML, FOMAML, EMAML, ProMP])
def test_steps_after_the_first_are_shorter_by_the_decay(tiny, cls):
    """While training, when adapting and when evaluating."""
    lengths = {}
    for decay in (1.0, 0.25):
        model = tiny.model(cls=cls, inner_lr_decay=decay, inner_max_kl=float("inf"))
        collector, params = model.make_collector(model.env, np.random.default_rng(0)), stack(model.actor.params(), 2)
        support = collector.collect_episodes([GOAL, GOAL], params, 3)
        for n_adapted in (0, 1, 2):
            new = model.adapt_to(params, support, n_adapted)
            lengths[decay, n_adapted] = (flatten(new) - flatten(params)).norm(dim=1)
    for n_adapted in (0, 1, 2):
        factor = 0.25 if n_adapted else 1.0
        th.testing.assert_close(lengths[0.25, n_adapted], factor * lengths[1.0, n_adapted], rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("cls", [MAML, ProMP])
def test_training_and_evaluating_count_the_adaptations_before(tiny, cls):
    model = tiny.model(cls=cls, n_adaptation_steps=2)
    seen, original = [], model.adapt_params
    model.adapt_params = lambda params, support: seen.append(support.n_adapted) or original(params, support)
    gradient = model.meta_gradient
    model.meta_gradient = lambda data: seen.append("trained") or gradient(data)
    model.learn(1)
    trained = seen[: seen.index("trained")]
    seen.clear()
    evaluate_adaptation(model, tiny.goal_vec(), [GOAL], n_adaptation_steps=3, n_episodes=2, n_eval_episodes=2)
    assert (trained, seen) == ([0, 1], [0, 1, 2])


def test_the_critic_and_what_is_not_adapted_stay(tiny):
    model = trained(tiny, baseline="value_net")
    adapted = model.adapt(task_env(tiny), n_episodes=2)
    for name, value in tiny.params(model).items():
        assert th.equal(value, tiny.params(adapted)[name]) == (name not in model.actor.names), name


def test_adapt_to_a_task_of_the_models_own_environment(tiny):
    env = make_meta_vec_env("bomrl/Navigation2D-v0", 4, seed=0)
    model = tiny.model(env, n_steps=5)
    adapted = model.adapt((0.3, 0.4), n_episodes=4)
    assert tiny.differ(tiny.params(adapted), tiny.params(model))
    assert [tuple(task) for task in env.env_method("get_task")] == [(0.3, 0.4)] * 4
    assert tiny.differ(tiny.params(model.adapt((-0.3, 0.4), n_episodes=4)), tiny.params(adapted))


def test_the_seed_decides(tiny):
    model = trained(tiny)
    runs = [tiny.params(model.adapt(task_env(tiny), n_episodes=2, seed=seed)) for seed in (1, 1, 2, None, None)]
    tiny.assert_equal(runs[0], runs[1])
    tiny.assert_equal(runs[3], runs[4])
    assert tiny.differ(runs[0], runs[2])


def test_the_adapted_model_predicts_evaluates_saves_and_adapts_again(tiny, tmp_path, algorithm):
    model = trained(tiny, cls=algorithm)
    adapted = model.adapt(task_env(tiny), n_episodes=2)
    mean, std = evaluate_policy(adapted, Monitor(task_env(tiny)), n_eval_episodes=3)
    assert np.isfinite([mean, std]).all()
    adapted.save(tmp_path / "adapted")
    loaded = algorithm.load(tmp_path / "adapted")
    tiny.assert_equal(tiny.params(loaded), tiny.params(adapted))
    obs = np.zeros((2, 2), dtype=np.float32)
    np.testing.assert_array_equal(
        loaded.predict(obs, deterministic=True)[0], adapted.predict(obs, deterministic=True)[0]
    )
    assert tiny.differ(tiny.params(loaded.adapt(task_env(tiny), n_episodes=2)), tiny.params(loaded))


def test_the_adapted_model_can_learn_on_without_touching_the_original(tiny, algorithm):
    model = trained(tiny, cls=algorithm, baseline="value_net")
    before = snapshot(tiny, model)
    adapted = model.adapt(DummyVecEnv([lambda: Monitor(task_env(tiny))] * 2), n_episodes=2)
    start = tiny.params(adapted)
    adapted.learn(1, reset_num_timesteps=False)
    assert tiny.differ(tiny.params(adapted), start)
    assert_untouched(tiny, model, before)
    assert model.rollout_buffer.n_envs == 4
    model.learn(tiny.iteration)


def test_the_original_learns_on_as_if_nothing_had_been_adapted(tiny):
    runs = []
    for adapts in (False, True):
        model = trained(tiny, make_meta_vec_env("bomrl/Navigation2D-v0", 4))
        if adapts:
            model.adapt((0.1, 0.1), n_episodes=4)
        runs.append(tiny.params(model.learn(tiny.iteration, reset_num_timesteps=False)))
    tiny.assert_equal(*runs)


def test_an_environment_is_seen_through_the_models_vec_normalize(tiny):
    env = VecNormalize(tiny.goal_vec(4), clip_obs=0.7, epsilon=0.1)
    model = trained(tiny, env)
    statistics = deepcopy((env.obs_rms.mean, env.obs_rms.var, env.obs_rms.count, env.ret_rms.var))
    raw = task_env(tiny)
    adapted = model.adapt(raw, n_episodes=2)
    wrapper = adapted.get_vec_normalize_env()
    obs = np.array([[0.3, -0.2]])
    np.testing.assert_array_equal(wrapper.normalize_obs(obs), env.normalize_obs(obs))
    np.testing.assert_array_equal(wrapper.normalize_reward(np.ones(1)), np.ones(1))
    # adapting in an environment that was normalised by hand is the same
    by_hand = VecNormalize(DummyVecEnv([lambda: task_env(tiny)]), norm_reward=False, clip_obs=0.7, epsilon=0.1)
    by_hand.obs_rms = deepcopy(env.obs_rms)
    tiny.assert_equal(tiny.params(adapted), tiny.params(model.adapt(by_hand, n_episodes=2)))
    np.testing.assert_array_equal(by_hand.obs_rms.mean, env.obs_rms.mean)
    # and a task for the training environment leaves its statistics alone
    model.adapt(GOAL, n_episodes=4)
    after = (env.obs_rms.mean, env.obs_rms.var, env.obs_rms.count, env.ret_rms.var)
    for old, new in zip(statistics, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert env.training


def test_statistics_that_were_lost_are_missed(tiny, tmp_path):
    trained(tiny, VecNormalize(tiny.goal_vec(4))).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"load it with env=VecNormalize"):
        BOMRL.load(tmp_path / "model").adapt(task_env(tiny))
    loaded = BOMRL.load(tmp_path / "model", env=VecNormalize(tiny.goal_vec(4)))
    assert loaded.adapt(task_env(tiny), n_episodes=1).get_vec_normalize_env() is not None


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"n_episodes": 0}, "n_episodes must be an integer of at least 1, got 0"),
        ({"n_adaptation_steps": 0}, "n_adaptation_steps must be an integer of at least 1, got 0"),
        ({"max_episode_steps": 0}, "max_episode_steps must be an integer of at least 1, or None, got 0"),
        ({"max_episode_steps": 9}, "did not end within max_episode_steps=9 steps"),
    ],
)
def test_bad_arguments(tiny, kwargs, words):
    with pytest.raises(ValueError, match=words):
        tiny.model().adapt(task_env(tiny), **kwargs)


def test_tasks_that_cannot_be_set(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"env_or_task must be an environment, got 0\.5"):
        tiny.model(DummyVecEnv([tiny.SpaceEnv] * 2)).adapt(0.5)
    tiny.model().save(tmp_path / "model")
    with pytest.raises(ValueError, match="env_or_task must be an environment"):
        BOMRL.load(tmp_path / "model").adapt(0.5)
    with pytest.raises(ValueError, match="spaces do not match"):
        tiny.model().adapt(tiny.SpaceEnv())


def test_an_environment_that_plays_no_task_yet_is_refused(tiny):
    env = TaskSamplerWrapper(
        tiny.GoalEnv(), sampler=lambda rng: rng.uniform(size=2), apply_task=lambda e, task: e.set_task(task)
    )
    with pytest.raises(ValueError, match=r"get_task\(\) is None"):
        tiny.model().adapt(env)
    env.set_task(GOAL)
    tiny.model().adapt(env, n_episodes=1)
    np.testing.assert_array_equal(env.get_task(), GOAL)


def test_a_broken_lower_level_is_an_error(tiny, monkeypatch):
    model = tiny.model()
    original = model.adapt_params

    def adapt_params(*args):
        adapted = original(*args)
        return adapted._replace(objective=adapted.objective * np.nan)

    monkeypatch.setattr(model, "adapt_params", adapt_params)
    with pytest.raises(FloatingPointError, match="inner objective of task 0"):
        model.adapt(task_env(tiny), n_episodes=2)
