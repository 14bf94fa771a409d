"""Bad input gets an error that names the argument, the value and what is accepted; bad numbers stop the run."""

from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import CheckpointCallback, ConvertCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_bomrl import EMAML, FOMAML, MAML, ProMP, Reptile, evaluate_adaptation, evaluate_trials


def scaled(params, factor):
    return {name: value * factor for name, value in params.items()}


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"distance": "kl"}, "distance must be one of .*kl_meta_task.* got 'kl'"),
        ({"surrogate": "ppo"}, "surrogate must be one of .*clip.* got 'ppo'"),
        ({"inner_solver": "newton"}, "inner_solver must be one of .*adam.* got 'newton'"),
        ({"hypergradient": "exact"}, "hypergradient must be one of .*implicit.* got 'exact'"),
        ({"outer_step": "sgd"}, "outer_step must be one of .*trpo.* got 'sgd'"),
        ({"baseline": "none"}, "baseline must be one of .*linear.* got 'none'"),
        ({"reg_coef": 0.0}, "reg_coef must be a finite number above 0, got 0.0"),
        ({"reg_coef": -1}, "reg_coef must be a finite number above 0, got -1"),
        ({"reg_coef": float("nan")}, "reg_coef .* got nan"),
        ({"reg_coef": "0.1"}, "reg_coef .* got '0.1'"),
        ({"inner_lr": 0}, "inner_lr .* got 0"),
        ({"inner_max_kl": -1.0}, "inner_max_kl .* got -1.0"),
        ({"inner_max_kl": float("nan")}, "inner_max_kl .* got nan"),
        ({"max_kl": float("inf")}, "max_kl .* got inf"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, got 0"),
        ({"n_steps": 2.5}, "n_steps must be an integer of at least 1, got 2.5"),
        ({"meta_batch_size": 0}, "meta_batch_size must be an integer of at least 1, got 0"),
        ({"n_envs_per_task": 0}, "n_envs_per_task .* got 0"),
        ({"n_inner_steps": 0}, "n_inner_steps .* got 0"),
        ({"n_inner_steps": True}, "n_inner_steps .* got True"),
        ({"hypergradient_cg_max_steps": 0}, "hypergradient_cg_max_steps .* got 0"),
        ({"hypergradient_damping": -1.0}, "hypergradient_damping .* got -1.0"),
        ({"gamma": 1.5}, r"gamma must be a number in \[0, 1\], got 1.5"),
        ({"gae_lambda": -0.1}, r"gae_lambda must be a number in \[0, 1\], got -0.1"),
        ({"batch_size": 0}, "batch_size .* got 0"),
        ({"use_sde": True}, "use_sde must be False, got True"),
        ({"inner_solver": "natural_gradient", "hypergradient": "unrolled"}, "unrolled.*natural_gradient"),
        ({"policy": "MlpLstmPolicy"}, "MlpLstmPolicy"),
        ({"policy": "TabularPolicy"}, "TabularPolicy needs a Discrete observation_space"),
    ],
)
def test_arguments(tiny, kwargs, words):
    with pytest.raises(ValueError, match=words):
        tiny.model(**kwargs)


@pytest.mark.parametrize(
    ("cls", "kwargs", "words"),
    [
        (MAML, {"inner_lr": 0.0}, "inner_lr must be a finite number above 0, got 0.0"),
        (MAML, {"n_adaptation_steps": 0}, "n_adaptation_steps must be an integer of at least 1, got 0"),
        (MAML, {"surrogate": "clip"}, r"surrogate must be one of \('linear', 'log'\), got 'clip'"),
        (MAML, {"outer_step": "interpolation"}, "outer_step must be one of .*trpo.* got 'interpolation'"),
        (FOMAML, {"inner_lr": -1.0}, "inner_lr .* got -1.0"),
        (MAML, {"inner_lr_decay": 0.0}, "inner_lr_decay must be a finite number above 0, got 0.0"),
        (ProMP, {"inner_max_kl": -1.0}, "inner_max_kl must be a finite number above 0, got -1.0"),
        (EMAML, {"credit_coef": -1.0}, "credit_coef must be a finite number of at least 0, got -1.0"),
        (ProMP, {"clip_range": 0.0}, "clip_range .* got 0.0"),
        (ProMP, {"n_epochs": 0}, "n_epochs must be an integer of at least 1, got 0"),
        (ProMP, {"target_kl": 0.0}, "target_kl .* got 0.0"),
        (ProMP, {"init_kl_coef": -0.1}, "init_kl_coef .* got -0.1"),
        (Reptile, {"n_adaptation_steps": 1}, "n_adaptation_steps must be at least 2 for Reptile, got 1"),
        (Reptile, {"interpolation": 1.5}, r"interpolation must be a number in \[0, 1\], got 1.5"),
        (Reptile, {"interpolation": 0.0}, "interpolation must be a finite number above 0, got 0.0"),
        (Reptile, {"outer_step": "sgd"}, "outer_step must be one of .*interpolation.* got 'sgd'"),
    ],
)
def test_arguments_of_the_baselines(tiny, cls, kwargs, words):
    with pytest.raises(ValueError, match=words):
        tiny.model(cls=cls, **kwargs)


@pytest.mark.parametrize("kwargs", [{"meta_batch_size": 0}, {"n_envs_per_task": -2}, {"meta_batch_size": 1.5}])
def test_arguments_that_make_environments(tiny, kwargs):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        tiny.model("bomrl/Navigation2D-v0", **kwargs)


def test_gymnasiums_vectorised_environments(tiny):
    """Wherever an environment may be given, one sentence says what to do."""
    env = gym.make_vec("CartPole-v1", num_envs=2)
    words = r"must be an environment or a VecEnv .*, got Gymnasium's \w+: make the same .*make_meta_vec_env"
    model = tiny.model()
    for use in (
        tiny.model,
        model.set_env,
        model.adapt,
        lambda env: evaluate_adaptation(model, env),
        lambda env: evaluate_trials(model, env, [None]),
    ):
        with pytest.raises(ValueError, match=words):
            use(env)
    env.close()


@pytest.mark.parametrize(("env_id", "n_envs"), [("CartPole-v1", 2 * 4), ("bomrl/Navigation2D-v0", 2 * 20)])
def test_how_many_environments_an_id_makes(tiny, env_id, n_envs):
    assert tiny.model(env_id).n_envs == n_envs
    assert tiny.model(env_id, n_envs_per_task=3).n_envs == 2 * 3


def test_an_environment_that_does_not_exist(tiny):
    with pytest.raises(gym.error.Error, match="NoSuchEnv"):
        tiny.model("NoSuchEnv-v0")


def test_spaces_that_nothing_can_be_done_with(tiny):
    env = DummyVecEnv([lambda: tiny.SpaceEnv(action_space=spaces.Dict({"a": spaces.Discrete(2)}))])
    with pytest.raises(AssertionError, match="only supports"):
        tiny.model(env, meta_batch_size=1)


def test_a_family_without_set_task(tiny):
    class Half(gym.Wrapper):
        def sample_tasks(self, n):
            return list(range(n))

    with pytest.raises(ValueError, match=r"no set_task\(task\)"):
        tiny.model(DummyVecEnv([lambda: Half(tiny.SpaceEnv())] * 2))


@pytest.mark.parametrize("broken", ["observation", "reward"])
@pytest.mark.parametrize("breaks_at", [3, 13, 33])  # in the support phase, the query phase, the second iteration
@pytest.mark.parametrize("normalize", [False, True])
def test_numbers_that_are_not_finite_stop_the_run(tiny, tmp_path, broken, breaks_at, normalize):
    env = tiny.goal_vec(4, breaks_at=breaks_at, broken=broken)
    env = VecNormalize(env) if normalize else env
    model = tiny.model(env, line_search=False)
    good = [tiny.params(model)]
    statistics = []

    def keep(local, _):
        good[0] = tiny.params(model)  # the meta-parameters of the last complete iteration
        if normalize:
            statistics[:] = [env.obs_rms.mean.copy(), env.ret_rms.var.copy()]
        return True

    checkpoints = CheckpointCallback(1, str(tmp_path), save_vecnormalize=normalize)
    with pytest.raises(
        FloatingPointError, match=rf"{broken} from environment 0 .* at step {breaks_at % 10} is not finite"
    ):
        model.learn(10 * tiny.iteration, callback=[ConvertCallback(keep), checkpoints])
    tiny.assert_equal(tiny.params(model), good[0])
    assert model.n_meta_iterations == (1 if breaks_at == 33 else 0)
    for path in tmp_path.glob("*.zip"):
        loaded = type(model).load(path)
        assert all(value.isfinite().all() for value in tiny.params(loaded).values())
    assert len(list(tmp_path.glob("*.zip"))) == breaks_at - 1
    model.save(tmp_path / "last")
    if normalize:
        assert env.training
        np.testing.assert_array_equal(env.obs_rms.mean, statistics[0])
        np.testing.assert_array_equal(env.ret_rms.var, statistics[1])


@pytest.mark.parametrize("name", ["observation", "reward"])
def test_infinity_does_not_hide_behind_the_clipping_of_vec_normalize(tiny, name):
    class Overflows(tiny.GoalEnv):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            return (obs + np.inf, reward, *rest) if name == "observation" else (obs, np.inf, *rest)

    model = tiny.model(VecNormalize(DummyVecEnv([Overflows] * 2)))
    with pytest.raises(FloatingPointError, match=rf"{name} from environment 0 .* at step 1 is not finite"):
        model.learn(1)


@pytest.mark.parametrize("is_dict", [False, True])
def test_a_final_observation_that_is_not_finite_is_named(tiny, is_dict):
    class Ends(tiny.GoalEnv):
        def step(self, action):
            obs, reward, terminated, truncated, info = super().step(action)
            return obs * (np.nan if truncated else 1.0), reward, terminated, truncated, info

    make, policy, name = Ends, "MlpPolicy", "final observation"
    if is_dict:
        space = spaces.Dict({"x": Ends.observation_space})
        make = lambda: gym.wrappers.TransformObservation(Ends(), lambda obs: {"x": obs}, space)  # noqa: E731
        policy, name = "MultiInputPolicy", "final observation 'x'"
    model = tiny.model(DummyVecEnv([make, make]), policy, n_steps=15)
    with pytest.raises(FloatingPointError, match=rf"{name} from environment [01] \(task .*\) at step 10 is not finite"):
        model.learn(1)


def test_a_parameter_that_is_not_finite_is_named(tiny):
    env = tiny.goal_vec(4)
    model = tiny.model(env)
    with th.no_grad():
        model.policy.action_net.weight[0, 0] = np.inf
    with pytest.raises(FloatingPointError, match=r"policy parameter 'action_net\.weight' is not finite"):
        model.learn(10)
    assert all(e.unwrapped.n_steps == 0 for e in env.envs)


@pytest.mark.parametrize("broken", ["adapt", "gradient", "value"])
def test_a_loss_that_is_not_finite_stops_the_run(tiny, broken, monkeypatch):
    model = tiny.model(baseline="value_net" if broken == "value" else "linear", line_search=False)
    before = tiny.params(model)
    words = {
        "adapt": "inner objective of task 1",
        "gradient": "meta-gradient of task 0",
        "value": "loss of the value network",
    }
    if broken == "adapt":
        original = model.adapt_params

        def adapt_params(*args):
            adapted = original(*args)
            return adapted._replace(objective=adapted.objective * th.tensor([1.0, np.nan]))

        monkeypatch.setattr(model, "adapt_params", adapt_params)
    elif broken == "gradient":
        original = model.meta_gradient

        def meta_gradient(*args):
            gradient = original(*args)
            return gradient._replace(per_task=scaled(gradient.per_task, np.inf))

        monkeypatch.setattr(model, "meta_gradient", meta_gradient)
    else:
        with th.no_grad():  # finite, but its square is not
            model.policy.value_net.bias[0] = 1e38
        before = tiny.params(model)
    with pytest.raises(FloatingPointError, match=words[broken]):
        model.learn(10)
    if broken != "value":
        tiny.assert_equal(tiny.params(model), before)
    assert all(value.isfinite().all() for value in tiny.params(model).values())


@pytest.mark.parametrize("broken_call", [2, 3])  # after the first of two epochs, and after the last
def test_an_epoch_of_promp_that_is_not_finite_undoes_the_outer_step(tiny, monkeypatch, broken_call):
    model = tiny.model(cls=ProMP).learn(10)
    before, moments = tiny.params(model), deepcopy(model.policy.optimizer.state_dict()["state"])
    original, calls = model._gradient, []

    def gradient(*args):
        found, kl = original(*args)
        calls.append(tiny.params(model))
        return found._replace(per_task=scaled(found.per_task, np.nan if len(calls) == broken_call else 1.0)), kl

    monkeypatch.setattr(model, "_gradient", gradient)
    with pytest.raises(FloatingPointError, match="meta-gradient of task 0"):
        model.learn(10)
    assert tiny.differ(calls[1], before)  # the first epoch was taken
    tiny.assert_equal(tiny.params(model), before)
    after = model.policy.optimizer.state_dict()["state"]
    assert moments.keys() == after.keys()
    for number, state in moments.items():
        tiny.assert_equal(after[number], state)
