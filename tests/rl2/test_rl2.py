"""RL² runs, saves, repeats, and is scored episode by episode."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

import sb3_bomrl
from sb3_bomrl import RL2, TrialWrapper, evaluate_trials, make_trial_vec_env
from sb3_bomrl.plots import plot_adaptation_curves
from sb3_bomrl.rl2 import rl2

SMALL = {
    "n_steps": 40,
    "batch_size": 40,
    "n_epochs": 1,
    "device": "cpu",
    "policy_kwargs": {"net_arch": [8], "lstm_hidden_size": 8},
}


def trials(tiny, n_envs=2, **kwargs):
    return DummyVecEnv([lambda: TrialWrapper(tiny.GoalEnv(**kwargs), 2)] * n_envs)


def make(tiny, env=None, **kwargs):
    return RL2("MlpLstmPolicy", trials(tiny) if env is None else env, **{**SMALL, "seed": 0, **kwargs})


@pytest.mark.parametrize("policy_env", ["id", "env", "vec"])
def test_runs(tiny, policy_env):
    env = {"id": "bomrl/Navigation2D-v0", "env": tiny.GoalEnv(), "vec": None}[policy_env]
    model = make(tiny, env, episodes_per_trial=2 if policy_env == "vec" else 3, n_envs=2)
    before = tiny.params(model)
    model.learn(80)
    assert tiny.differ(tiny.params(model), before)
    assert model.observation_space.shape == (2 + 2 + 2,)
    assert model.env.get_attr("episodes_per_trial") == [model.episodes_per_trial] * model.n_envs
    assert model.episodes_per_trial == (2 if policy_env == "vec" else 3)
    if policy_env == "env":  # the log shows episodes, not trials
        assert [episode["l"] for episode in model.ep_info_buffer] == [10] * len(model.ep_info_buffer)
        assert len(model.ep_info_buffer) == 8


def navigation():
    return make_trial_vec_env("bomrl/Navigation2D-v0", 2, env_kwargs={"horizon": 10})


def test_repeats_saves_and_loads(tiny, tmp_path):
    runs = [make(tiny, navigation()).learn(160) for _ in range(2)]
    tiny.assert_equal(*(tiny.params(model) for model in runs))
    runs[0].save(tmp_path / "rl2")
    loaded = RL2.load(tmp_path / "rl2", env=navigation(), device="cpu")
    tiny.assert_equal(tiny.params(loaded), tiny.params(runs[0]))
    assert loaded.episodes_per_trial == 2
    loaded.learn(80, reset_num_timesteps=False)
    assert RL2.load(tmp_path / "rl2").env is None


def test_the_length_of_trials_is_the_environments(tiny):
    trial = TrialWrapper(tiny.GoalEnv(), 5)
    assert make(tiny, trial).episodes_per_trial == 5
    assert make(tiny).episodes_per_trial == make(tiny, tiny.GoalEnv()).episodes_per_trial == 2
    with pytest.raises(ValueError, match=r"episodes_per_trial must be left out, or be .* of env, 5; got 2"):
        make(tiny, trial, episodes_per_trial=2)
    mixed = DummyVecEnv([lambda n=n: TrialWrapper(tiny.GoalEnv(), n) for n in (3, 2)])
    with pytest.raises(ValueError, match=r"episodes_per_trial must be left out, or be .* of env, 2, 3; got None"):
        make(tiny, mixed)


def still_start(tiny):
    """The walk in the plane, without noise in where it starts."""

    class Fixed(tiny.GoalEnv):
        def reset(self, *, seed=None, options=None):
            _, info = super().reset(seed=seed)
            self.x = np.zeros(2)
            return self.x.astype(np.float32), info

    return Fixed


class Scripted:
    """Goes 0.05 k along both axes at every step of episode k, which it counts in its hidden state."""

    def predict(self, obs, state, episode_start, deterministic):
        n_episodes = np.where(episode_start, 0, 0 if state is None else state) + obs[:, -1]  # 1: one has just ended
        return np.tile(0.05 * n_episodes[:, None], 2).astype(np.float32), n_episodes


@pytest.mark.parametrize("n_envs", [1, 4, 5])
def test_returns_by_number_of_the_episode(tiny, n_envs):
    tasks = [np.array([0.5, 0.5]), np.array([-0.5, 0.0]), np.array([0.0, 0.9])]
    env = DummyVecEnv([lambda: TrialWrapper(still_start(tiny)(), 2)] * n_envs)
    curve = evaluate_trials(Scripted(), env, tasks, n_adaptation_steps=3, n_eval_episodes=2)
    position = 0.2 * 0.05 * np.arange(4)[:, None] * np.arange(1, 11)  # of episode k after step t, on both axes
    for index, task in enumerate(tasks):
        expected = -np.linalg.norm(position[..., None] - task, axis=-1).sum(1)
        np.testing.assert_allclose(curve.returns[:, index], np.tile(expected[:, None], 2), rtol=1e-5)
    assert (curve.lengths == 10).all()
    assert curve.env_steps.tolist() == [[0] * 3, [10] * 3, [20] * 3, [30] * 3]
    assert env.get_attr("episodes_per_trial") == [2] * n_envs


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluation_repeats_leaves_the_global_generator_alone_and_can_be_drawn(tiny, deterministic):
    model = make(tiny)
    env = make_trial_vec_env("bomrl/Navigation2D-v0", 5, env_kwargs={"horizon": 10})
    state = th.random.get_rng_state()
    curves = [
        evaluate_trials(model, env, n_adaptation_steps=1, n_eval_episodes=1, deterministic=deterministic, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert th.equal(th.random.get_rng_state(), state)
    np.testing.assert_array_equal(curves[0].returns, curves[1].returns)
    assert deterministic == np.array_equal(curves[0].returns, curves[2].returns)  # Navigation2D has no noise of its own
    assert len(curves[0].tasks) == 25
    assert plot_adaptation_curves({"RL²": curves[0]}).lines


class LeftOrRight(gym.Env):
    """Episodes of one step; the reward is 1 for the action that is the task."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    task = 0

    def sample_tasks(self, n):
        return self.np_random.integers(0, 2, n).tolist()

    def set_task(self, task):
        self.task = task

    def get_task(self):
        return self.task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(action == self.task), True, False, {}


@pytest.mark.slow
def test_learns_to_try_and_to_remember():
    """The first episode of a trial is a guess. Measured: 0.5 in the first episode, 1.0 in the others."""
    env = DummyVecEnv([lambda: TrialWrapper(LeftOrRight(), 4)] * 16)
    settings = {**SMALL, "n_steps": 32, "batch_size": 512, "n_epochs": 10, "gamma": 0.9, "learning_rate": 1e-2}
    model = RL2("MlpLstmPolicy", env, **settings, seed=0)
    model.learn(10_000)
    curve = evaluate_trials(model, LeftOrRight(), [0, 1], n_adaptation_steps=3, n_eval_episodes=4)
    assert curve.returns[0].mean() == pytest.approx(0.5)
    assert curve.returns[1:].min() == 1.0


def test_what_is_needed_is_said(tiny, monkeypatch):
    with pytest.raises(ValueError, match="env must be a VecEnv of environments in a TrialWrapper"):
        make(tiny, tiny.goal_vec(2))
    with pytest.raises(ValueError, match="episodes_per_trial must be an integer of at least 1, got 0"):
        make(tiny, tiny.GoalEnv(), episodes_per_trial=0)
    with pytest.raises(ValueError, match="n_envs must be an integer of at least 1, got 0"):
        make(tiny, "bomrl/Navigation2D-v0", n_envs=0)
    with pytest.raises(ValueError, match="Policy CnnLstmPolicy unknown"):  # a trial's observation is a vector
        RL2("CnnLstmPolicy", trials(tiny))
    for name, value in (("n_adaptation_steps", -1), ("n_eval_episodes", 0)):
        with pytest.raises(ValueError, match=f"{name} must be an integer of at least .*, got {value}"):
            evaluate_trials(make(tiny), trials(tiny), **{name: value})
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    monkeypatch.delitem(sys.modules, "sb3_bomrl.rl2.rl2")
    with pytest.raises(ImportError, match=r"RL2 needs sb3-contrib: run `pip install 'sb3-bomrl\[contrib\]'`"):
        sb3_bomrl.RL2  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'RL3'"):
        sb3_bomrl.RL3  # noqa: B018


def test_whole_sequences_give_the_numbers_of_single_steps(tiny):
    """sb3-contrib's own way, on a batch of sequences of which some start with a trial and one has a start inside."""
    lstm = th.nn.LSTM(3, 4)
    features, state = th.randn(5 * 6, 3), (th.randn(1, 5, 4), th.randn(1, 5, 4))
    starts = th.zeros(5, 6)
    starts[[0, 2], 0] = 1.0
    for inside in (False, True):
        starts[3, 2] = float(inside)
        (output, last), (expected, expected_last) = (
            policy._process_sequence(features, state, starts.flatten(), lstm)
            for policy in (rl2.MlpLstmPolicy, RecurrentActorCriticPolicy)
        )
        th.testing.assert_close(output, expected)
        th.testing.assert_close(last, expected_last)


def test_training_is_sb3_contribs(tiny, monkeypatch):
    ours = make(tiny, navigation(), n_epochs=3).learn(240)
    monkeypatch.setattr(RL2, "policy_aliases", RecurrentPPO.policy_aliases)
    theirs = make(tiny, navigation(), n_epochs=3).learn(240)
    assert type(theirs.policy) is RecurrentActorCriticPolicy
    assert type(ours.policy) is rl2.MlpLstmPolicy
    for a, b in zip(tiny.params(ours).values(), tiny.params(theirs).values(), strict=True):
        th.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_the_limit_is_per_episode(tiny):
    env, model = trials(tiny), make(tiny)
    curve = evaluate_trials(model, env, [np.ones(2)], 3, 1, max_episode_steps=11)  # episodes have 10 steps
    assert (curve.lengths == 10).all()
    with pytest.raises(ValueError, match=r"in environment 0 .* did not end within max_episode_steps=9 steps"):
        evaluate_trials(model, env, [np.ones(2)], 3, 1, max_episode_steps=9)
    assert env.get_attr("episodes_per_trial") == [2, 2]
