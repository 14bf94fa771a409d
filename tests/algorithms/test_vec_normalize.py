"""VecNormalize around the training environment."""

from copy import deepcopy

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_bomrl import BOMRL, evaluate_adaptation
from sb3_bomrl.export import export_torchscript
from sb3_bomrl.policies import NormalizedFlattenExtractor

FIELDS = ("mean", "var", "count")


class Keep(BaseCallback):
    """Raw observations and rewards that the environments returned, and the statistics in use at every step."""

    def __init__(self):
        super().__init__()
        self.observations, self.rewards, self.dones, self.means, self.is_start = [], [], [], [], []

    def _on_rollout_start(self):
        self.is_start.append(self.n_calls)

    def _on_step(self):
        wrapper = self.model.get_vec_normalize_env()
        self.observations.append(wrapper.get_original_obs().copy())
        self.rewards.append(wrapper.get_original_reward().copy())
        self.dones.append(self.locals["dones"].copy())
        self.means.append(wrapper.obs_rms.mean.copy())
        return True


class Resets(VecNormalize):
    """Remembers the observations of all resets."""

    def reset(self):
        obs = super().reset()
        self.seen = [*getattr(self, "seen", []), self.old_obs.copy()]
        return obs


def test_statistics_stand_still_and_then_are_those_of_all_data(tiny):
    env = Resets(tiny.goal_vec(4))
    model, keep = tiny.model(env), Keep()
    model.learn(3 * tiny.iteration, callback=keep)
    for i in range(3):  # 20 steps per meta-iteration
        assert len({mean.tobytes() for mean in keep.means[20 * i : 20 * i + 20]}) == 1
    assert len({mean.tobytes() for mean in keep.means}) == 3
    # the first reset is SB3's own, before the first phase; its observations are no data
    data = np.concatenate(env.seen[1:] + keep.observations)
    n = len(data)
    assert n == 3 * tiny.iteration + 6 * 4
    prior = 1e-4  # RunningMeanStd starts with this count, mean 0 and variance 1
    mean = data.astype(float).sum(0) / (n + prior)
    np.testing.assert_allclose(env.obs_rms.mean, mean, rtol=1e-6)
    second = (prior + (data.astype(float) ** 2).sum(0)) / (n + prior)
    np.testing.assert_allclose(env.obs_rms.var, second - mean**2, rtol=1e-5)
    assert env.training


def test_reward_statistics_are_those_of_discounted_returns(tiny):
    env = VecNormalize(tiny.goal_vec(4), gamma=0.9)
    keep = Keep()
    tiny.model(env).learn(2 * tiny.iteration, callback=keep)
    returns, seen = np.zeros(4), []
    for number, (rewards, dones) in enumerate(zip(keep.rewards, keep.dones, strict=True)):
        if number in keep.is_start:
            returns = np.zeros(4)
        returns = 0.9 * returns + rewards
        seen.append(returns.copy())
        returns[dones] = 0
    np.testing.assert_allclose(env.ret_rms.mean, np.mean(seen), rtol=1e-4)
    np.testing.assert_allclose(env.ret_rms.var, np.var(seen), rtol=1e-3)
    assert env.ret_rms.count == pytest.approx(2 * tiny.iteration, abs=1e-3)


def test_the_policy_sees_normalised_observations(tiny):
    env = VecNormalize(tiny.goal_vec(4), clip_obs=0.5)
    model = tiny.model(env)
    model.learn(2 * tiny.iteration)
    assert np.abs(model.rollout_buffer.observations).max() == 0.5


def test_a_stopped_iteration_leaves_the_statistics(tiny):
    env = VecNormalize(tiny.goal_vec(4))
    before = env.obs_rms.mean.copy(), env.obs_rms.count, env.ret_rms.count
    tiny.model(env).learn(tiny.iteration, callback=lambda local, _: local["n_steps"] < 5)
    np.testing.assert_array_equal(env.obs_rms.mean, before[0])
    assert (env.obs_rms.count, env.ret_rms.count) == before[1:]
    assert env.training


@pytest.mark.parametrize("training", [True, False])
def test_the_training_flag_stays_as_the_user_set_it(tiny, training):
    env = VecNormalize(tiny.goal_vec(4), training=training)
    count = env.obs_rms.count
    model = tiny.model(env)
    model.learn(0)
    assert env.training == training
    model.learn(tiny.iteration)
    assert env.training == training
    assert (env.obs_rms.count > count) == training


def test_saved_wrappers_go_on_training(tiny, tmp_path):
    env = VecNormalize(tiny.goal_vec(4))
    tiny.model(env).learn(tiny.iteration, callback=CheckpointCallback(7, str(tmp_path), save_vecnormalize=True))
    files = list(tmp_path.glob("*.pkl"))
    assert len(files) == 2
    assert all(VecNormalize.load(str(path), tiny.goal_vec(4)).training for path in files)


def test_eval_callback_with_its_own_wrapper(tiny):
    env = VecNormalize(tiny.goal_vec(4))
    eval_env = VecNormalize(tiny.goal_vec(1), training=False, norm_reward=False)
    model = tiny.model(env)
    model.learn(2 * tiny.iteration, callback=EvalCallback(eval_env, eval_freq=35, n_eval_episodes=2, verbose=0))
    assert eval_env.obs_rms.count == pytest.approx(tiny.iteration + 2 * 4, abs=1e-3)  # after the first iteration


def test_monitor_reports_raw_rewards(tiny):
    env = VecNormalize(tiny.goal_vec(4))
    model, keep = tiny.model(env), Keep()
    model.learn(1, callback=keep)
    np.testing.assert_allclose([info["r"] for info in model.ep_info_buffer], np.sum(keep.rewards[:10], 0), atol=1e-4)


def test_dictionary_observations(tiny):
    space = spaces.Dict({"a": spaces.Box(-1.0, 1.0, (2,)), "b": spaces.Box(-9.0, 9.0, (1,))})
    env = VecNormalize(DummyVecEnv([lambda: tiny.SpaceEnv(space)] * 2))
    tiny.model(env, "MultiInputPolicy").learn(1)
    assert env.obs_rms["b"].var > 5 * env.obs_rms["a"].var.max()


def test_the_normaliser_inside_the_policy_learns_between_iterations(tiny):
    model = tiny.model(policy_kwargs={"net_arch": [8], "features_extractor_class": NormalizedFlattenExtractor})
    seen, data = [], []

    def watch(local, _):
        seen.append(model.policy.features_extractor.mean.clone())
        data.append(local["obs"])
        return True

    model.learn(2 * tiny.iteration, callback=watch)
    assert len({mean.numpy().tobytes() for mean in seen[:20]}) == 1
    assert len({mean.numpy().tobytes() for mean in seen}) == 2
    everything = np.concatenate(data)
    np.testing.assert_allclose(model.policy.features_extractor.mean, everything.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.policy.features_extractor.var, everything.var(0), rtol=1e-4)


def test_statistics_travel_with_the_model(tiny, tmp_path):
    env = VecNormalize(tiny.goal_vec(4))
    tiny.model(env).learn(tiny.iteration).save(tmp_path / "model")
    fresh = VecNormalize(tiny.goal_vec(2))
    BOMRL.load(tmp_path / "model", env=fresh)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(fresh.obs_rms, field), getattr(env.obs_rms, field))
        np.testing.assert_array_equal(getattr(fresh.ret_rms, field), getattr(env.ret_rms, field))


def test_returns_are_those_of_the_rewards_before_normalisation(tiny):
    model = tiny.model(VecNormalize(tiny.goal_vec(4))).learn(tiny.iteration)
    curves = []
    for norm_reward in (False, True):
        env = VecNormalize(tiny.goal_vec(2), training=False, norm_reward=norm_reward)
        env.obs_rms, env.ret_rms = (deepcopy(getattr(model.get_env(), name)) for name in ("obs_rms", "ret_rms"))
        env.ret_rms.var *= 100
        curves.append(evaluate_adaptation(model, env, [np.zeros(2), np.ones(2)], 0, 1, 2).returns)
    np.testing.assert_allclose(*curves, rtol=1e-6)


def test_the_logged_returns_are_those_of_the_rewards_before_normalisation(tiny):
    env = VecNormalize(tiny.goal_vec(4))
    env.ret_rms.var = 100.0
    model, keep = tiny.model(env), Keep()
    rows = tiny.log_rows(model)
    model.learn(tiny.iteration, callback=keep)
    assert rows[0]["meta/pre_adapt_return"] == pytest.approx(np.sum(keep.rewards[:10], 0).mean(), rel=1e-5)
    assert rows[0]["meta/post_adapt_return"] == pytest.approx(np.sum(keep.rewards[10:], 0).mean(), rel=1e-5)


@pytest.mark.filterwarnings("error:env was given")
def test_normalising_rewards_alone_is_nothing_to_the_policy(tiny, tmp_path):
    env = VecNormalize(tiny.goal_vec(4), norm_obs=False)
    model = tiny.model(env).learn(tiny.iteration)
    model.save(tmp_path / "model")
    for loaded_env in (None, tiny.goal_vec(4), VecNormalize(tiny.goal_vec(4), norm_obs=False)):
        loaded = BOMRL.load(tmp_path / "model", env=loaded_env)
        loaded.adapt(tiny.GoalEnv(), n_episodes=1)
    export_torchscript(model, tmp_path / "policy.pt")
    export_torchscript(BOMRL.load(tmp_path / "model"), tmp_path / "policy.pt")
    assert loaded.get_env().ret_rms.var == pytest.approx(env.ret_rms.var)


def test_statistics_of_observations_have_nowhere_to_go(tiny, tmp_path):
    tiny.model(VecNormalize(tiny.goal_vec(4))).save(tmp_path / "model")
    with pytest.warns(UserWarning, match="env was given without VecNormalize of the observations"):
        BOMRL.load(tmp_path / "model", env=VecNormalize(tiny.goal_vec(4), norm_obs=False))


def test_an_environment_without_the_training_environments_inner_wrappers_is_refused(tiny):
    model = tiny.model(VecFrameStack(VecNormalize(tiny.goal_vec(4)), 2))
    with pytest.raises(ValueError, match="env must have VecNormalize where the model's training environment has it"):
        model.adapt(VecFrameStack(tiny.goal_vec(1), 2))
    model.adapt(VecFrameStack(VecNormalize(tiny.goal_vec(1), training=False), 2), n_episodes=1)


def test_statistics_of_single_frames_travel_with_the_model(tiny, tmp_path):
    tiny.model(VecFrameStack(VecNormalize(tiny.goal_vec(4)), 2)).learn(tiny.iteration).save(tmp_path / "model")
    env = VecFrameStack(VecNormalize(tiny.goal_vec(4)), 2)
    BOMRL.load_safely(tmp_path / "model", env=env)
    assert env.venv.obs_rms.count > tiny.iteration
    with pytest.raises(ValueError, match=r"env must normalise observations of shape \(2,\).* got \(4,\)"):
        BOMRL.load(tmp_path / "model", env=VecNormalize(VecFrameStack(tiny.goal_vec(4), 2)))
