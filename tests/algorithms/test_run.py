"""Every combination of spaces, policies and settings trains."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_bomrl import BOMRL, EMAML, MAML, MetaAlgorithm, Reptile, TaskSamplerWrapper, make_meta_vec_env
from sb3_bomrl.core.distances import DISTANCES
from sb3_bomrl.core.inner_solvers import INNER_METHODS, NOT_DIFFERENTIABLE
from sb3_bomrl.core.surrogates import SURROGATES
from sb3_bomrl.meta.hypergradients import HYPERGRADIENTS
from sb3_bomrl.rollout.estimation import BASELINES

BOX = spaces.Box(-2.0, 2.0, (2,), np.float32)
OBSERVATIONS = {
    "box": BOX,
    "matrix": spaces.Box(-1.0, 1.0, (2, 3), np.float64),
    "discrete": spaces.Discrete(5),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(4),
}
ACTIONS = {
    "box": BOX,
    "matrix": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(3),
}
DICT = spaces.Dict({"a": BOX, "b": spaces.Discrete(3), "c": spaces.MultiBinary(2)})


def train_once(tiny, model, n_iterations=2):
    """Some meta-iterations; the policy moves and stays finite. Returns the log."""
    rows = tiny.log_rows(model)
    before = tiny.params(model)
    model.learn(n_iterations * tiny.iteration_of(model))
    after = tiny.params(model)
    assert model.n_meta_iterations == n_iterations
    assert all(value.isfinite().all() for value in after.values())
    assert tiny.differ(before, after)
    return rows


@pytest.mark.parametrize(
    ("obs", "action"),
    [*((obs, "box") for obs in OBSERVATIONS), *(("box", action) for action in ACTIONS if action != "box")],
)
@pytest.mark.parametrize("baseline", BASELINES)
def test_mlp_policy_runs_on_all_spaces(tiny, algorithm, obs, action, baseline):
    env = DummyVecEnv([lambda: tiny.SpaceEnv(OBSERVATIONS[obs], ACTIONS[action])] * 2)
    model = tiny.model(env, cls=algorithm, baseline=baseline)
    train_once(tiny, model, 1)
    chosen, _ = model.predict(env.reset())
    assert all(ACTIONS[action].contains(a) for a in chosen)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("hypergradient", ["implicit_sampling", "unrolled"])
def test_multi_input_policy_runs_on_dictionaries(tiny, baseline, hypergradient):
    env = DummyVecEnv([lambda: tiny.SpaceEnv(DICT, ACTIONS["discrete"])] * 2)
    model = tiny.model(env, "MultiInputPolicy", baseline=baseline, hypergradient=hypergradient)
    assert isinstance(model.rollout_buffer, DictRolloutBuffer)
    train_once(tiny, model)
    model.predict(env.reset())


@pytest.mark.parametrize("shape", [(36, 36, 1), (1, 36, 36)])
def test_cnn_policy_runs_on_images(tiny, shape, algorithm):
    env = DummyVecEnv([lambda: tiny.SpaceEnv(spaces.Box(0, 255, shape, np.uint8), ACTIONS["discrete"])] * 2)
    features = {"features_extractor_kwargs": {"features_dim": 16}}
    model = tiny.model(env, "CnnPolicy", algorithm, n_steps=4, policy_kwargs=features)
    assert model.resolved_baseline() == "value_net"
    log = train_once(tiny, model, 1)
    assert "train/value_loss" in log[-1]
    model.predict(env.reset())


@pytest.mark.parametrize("baseline", BASELINES)
def test_tabular_policy_runs_on_frozen_lake(tiny, baseline, algorithm):
    env = make_meta_vec_env("bomrl/FrozenLakeHighVariance-v0", 4, seed=0)
    model = tiny.model(env, "TabularPolicy", algorithm, n_steps=49, baseline=baseline, gamma=0.8)
    with th.no_grad():
        obs = th.arange(model.observation_space.n)
        np.testing.assert_allclose(model.policy.get_distribution(obs).distribution.probs, 0.25, rtol=1e-6)
    train_once(tiny, model)
    assert model.actor.names == ("action_net.weight",)


@pytest.mark.parametrize("action", ["box", "multi_discrete"])
@pytest.mark.parametrize("baseline", BASELINES)
def test_all_algorithms(tiny, algorithm, action, baseline):
    env = DummyVecEnv([lambda: tiny.SpaceEnv(DICT, ACTIONS[action])] * 2)
    train_once(tiny, tiny.model(env, "MultiInputPolicy", algorithm, baseline=baseline, discount_states=True))


@pytest.mark.parametrize(("cls", "outer_step"), [(MAML, "adam"), (EMAML, "adam"), (Reptile, "adam"), (Reptile, "trpo")])
def test_other_outer_steps(tiny, cls, outer_step):
    log = train_once(tiny, tiny.model(cls=cls, outer_step=outer_step, normalize_advantage=False))
    assert log[-1]["outer/kl"] > 0


@pytest.mark.parametrize("n_adaptation_steps", [1, 3])
def test_every_inner_step_has_data_of_its_own(tiny, n_adaptation_steps):
    model = tiny.model(cls=MAML, n_adaptation_steps=n_adaptation_steps, trust_region="meta")  # adapts to data once
    seen, original = [], model.adapt_params

    def adapt_params(params, support):
        seen.append((params, support.rollout))
        return original(params, support)

    model.adapt_params = adapt_params
    train_once(tiny, model, 1)
    assert model.num_timesteps == (n_adaptation_steps + 1) * model.n_steps * model.n_envs
    assert len(seen) == n_adaptation_steps
    for params, rollout in seen:  # each was collected by the policy that is adapted
        with th.no_grad():
            policy = model.actor(params, rollout.observations.flatten(1, 2))
            log_probs = policy.log_prob(rollout.actions.flatten(1, 2))
        th.testing.assert_close(log_probs, rollout.log_probs.flatten(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hypergradient", HYPERGRADIENTS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("inner_solver", INNER_METHODS)
def test_all_inner_solvers_distances_and_hypergradients(tiny, hypergradient, distance, inner_solver):
    if inner_solver in NOT_DIFFERENTIABLE and hypergradient == "unrolled":
        pytest.skip("refused, see test_bad_input")
    kwargs = {"hypergradient": hypergradient, "distance": distance, "inner_solver": inner_solver}
    log = train_once(tiny, tiny.model(outer_step="adam", **kwargs), 1)
    assert log[-1]["meta_gradient/norm"] > 0
    assert ("hypergradient/cg_residual" in log[-1]) == hypergradient.startswith("implicit")


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("outer_step", ["trpo", "adam"])
@pytest.mark.parametrize("baseline", BASELINES)
def test_all_surrogates_outer_steps_and_baselines(tiny, surrogate, outer_step, baseline):
    model = tiny.model(surrogate=surrogate, outer_step=outer_step, baseline=baseline, line_search=False)
    log = train_once(tiny, model, 1)
    assert log[-1]["outer/kl"] > 0
    if outer_step == "trpo":
        assert log[-1]["outer/kl"] <= model.max_kl


@pytest.mark.parametrize(
    "kwargs", [{"normalize_advantage": False, "reg_coef": 100.0}, {"discount_states": True}, {"gae_lambda": 1.0}]
)
def test_other_settings(tiny, kwargs):
    train_once(tiny, tiny.model(line_search=False, **kwargs), 1)


def test_line_search_may_refuse_a_step_but_never_worsens(tiny):
    model = tiny.model(line_search=True)
    rows = tiny.log_rows(model)
    model.learn(5 * tiny.iteration)
    assert len(rows) == 5
    for row in rows:
        assert row["outer/accepted"] == (row["outer/improvement"] > 0)


def test_an_environment_without_tasks_is_one_task(tiny):
    model = tiny.model(DummyVecEnv([lambda: gym.make("CartPole-v1")] * 4), n_steps=50, line_search=False)
    train_once(tiny, model)
    tiny.model(gym.make("CartPole-v1"), meta_batch_size=1).learn(10)


def test_an_environment_with_its_own_task_methods(tiny):
    env = tiny.goal_vec(4)
    seen = []
    model = tiny.model(env)
    model.learn(tiny.iteration, callback=lambda local, _: seen.append(env.get_attr("task")) or True)
    for tasks in seen:
        np.testing.assert_array_equal(tasks[0], tasks[1])
        np.testing.assert_array_equal(tasks[2], tasks[3])
        assert not np.array_equal(tasks[0], tasks[2])
        np.testing.assert_array_equal(tasks[0], seen[0][0])  # support and query play the same tasks


@pytest.mark.parametrize("factory", [True, False])
def test_task_sampler_wrapper(tiny, factory):
    def build(task):
        env = tiny.GoalEnv()
        env.set_task(task)
        return env

    def sample(rng):
        return rng.uniform(-1, 1, 2)

    def make():
        if factory:
            return TaskSamplerWrapper(sampler=sample, make_env=build)
        return TaskSamplerWrapper(tiny.GoalEnv(), sampler=sample, apply_task=lambda env, task: env.set_task(task))

    train_once(tiny, tiny.model(DummyVecEnv([make] * 4)))


def test_an_id_makes_its_own_environments(tiny):
    model = BOMRL(
        "MlpPolicy", "bomrl/Navigation2D-v0", n_steps=5, meta_batch_size=3, n_envs_per_task=2, seed=0, reg_coef=5.0
    )
    assert isinstance(model, MetaAlgorithm)
    assert model.n_envs == 6
    train_once(tiny, model, 1)


def test_subprocess_environments(tiny):
    env = make_meta_vec_env("bomrl/Navigation2D-v0", 2, backend="subproc", seed=0)
    try:
        assert isinstance(env, SubprocVecEnv)
        train_once(tiny, tiny.model(env), 1)
    finally:
        env.close()


def test_log(tiny):
    log = train_once(tiny, tiny.model())
    expected = {
        "rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "time/total_timesteps", "time/rollout", "time/adapt",
        "time/hypergradient", "time/outer", "meta/pre_adapt_return", "meta/post_adapt_return", "meta/adaptation_gain",
        "inner/kl", "inner/n_steps", "inner/gradient_norm", "meta_gradient/norm", "outer/kl",
    }  # fmt: skip
    assert expected <= log[-1].keys()
    assert log[-1]["meta/adaptation_gain"] == pytest.approx(
        log[-1]["meta/post_adapt_return"] - log[-1]["meta/pre_adapt_return"], abs=1e-6
    )
    assert log[-1]["rollout/ep_len_mean"] == 10
    assert log[-1]["time/total_timesteps"] == 2 * tiny.iteration


def test_dump_logs_needs_no_argument(tiny):
    model = tiny.model()
    model.learn(tiny.iteration, log_interval=None)
    model.dump_logs()


def test_a_rollout_buffer_of_ones_own(tiny):
    class Buffer(RolloutBuffer):
        def __init__(self, *args, mark=None, **kwargs):
            super().__init__(*args, **kwargs)
            self.mark = mark

    model = tiny.model(rollout_buffer_class=Buffer, rollout_buffer_kwargs={"mark": 5})
    model.learn(tiny.iteration)
    assert model.rollout_buffer.mark == 5
    assert model.rollout_buffer.full
    assert np.abs(model.rollout_buffer.advantages).max() > 0


def test_learning_rate_schedule(tiny):
    rates = []
    model = tiny.model(outer_step="adam", learning_rate=lambda left: 1e-2 * left)
    model.learn(
        4 * tiny.iteration, callback=lambda local, _: rates.append(model.policy.optimizer.param_groups[0]["lr"]) or True
    )
    np.testing.assert_allclose(sorted(set(rates)), [0.5e-2, 0.75e-2, 1e-2], rtol=1e-6)


LAKE = {"n_steps": 49, "gamma": 0.8, "gae_lambda": 1.0, "surrogate": "linear", "seed": 0, "n_envs_per_task": 20}


@pytest.mark.parametrize("hypergradient", ["implicit", "implicit_sampling", "first_order"])
@pytest.mark.parametrize("distance", ["kl_meta_task", "kl_task_meta"])
def test_closed_form_on_the_frozen_lake(distance, hypergradient):
    env_id = "bomrl/FrozenLakeHighVariance-v0"
    settings = {"distance": distance, "hypergradient": hypergradient, "discount_states": True, "reg_coef": 0.5}
    model = BOMRL("TabularPolicy", env_id, inner_solver="closed_form", **settings, **LAKE)
    before = model.policy.action_net.weight.detach().clone()
    model.learn(2 * 49 * model.n_envs)
    assert model.n_meta_iterations == 1
    assert not th.equal(model.policy.action_net.weight, before)


def test_closed_form_says_what_it_needs():
    with pytest.raises(ValueError, match="inner_solver='closed_form' needs policy='TabularPolicy', got NormalizedMlp"):
        BOMRL("MlpPolicy", "bomrl/Navigation2D-v0", inner_solver="closed_form", surrogate="linear")
    with pytest.raises(ValueError, match="surrogate='linear', got 'sigmoid'"):
        BOMRL("TabularPolicy", "bomrl/FrozenLakeHighVariance-v0", inner_solver="closed_form")
    with pytest.raises(ValueError, match="does not support: use 'implicit'"):
        BOMRL("MlpPolicy", "bomrl/Navigation2D-v0", inner_solver="closed_form", hypergradient="unrolled")


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**40])
def test_the_unit_of_the_rewards_does_not_matter(tiny, algorithm, unit):
    """With units that are powers of two, to the last bit."""
    runs = []
    for factor in (1.0, unit):
        wrap = lambda factor=factor: gym.wrappers.TransformReward(tiny.GoalEnv(), lambda r: factor * r)  # noqa: E731
        model = tiny.model(DummyVecEnv([wrap] * 4), cls=algorithm)
        runs.append(tiny.params(model.learn(tiny.iteration_of(model))))
    tiny.assert_equal(*runs)
