"""Where observations and actions are few, the policy is evaluated once per collection: the actions must not tell."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_bomrl.policies import TabularPolicy
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.rollout.collector import RolloutCollector

N_STATES, N_ACTIONS, N_STEPS = 3, 4, 60


class RandomStates(gym.Env):
    observation_space, action_space = spaces.Discrete(N_STATES), spaces.Discrete(N_ACTIONS)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.integers(N_STATES), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self.np_random.integers(N_STATES), 0.0, False, False, {}


def collect(monkeypatch, n_envs, logits, deterministic=False):
    """Also counts how often the policy is evaluated."""
    env = DummyVecEnv([RandomStates] * n_envs)
    actor = Actor(TabularPolicy(env.observation_space, env.action_space, lambda _: 1.0))
    calls = []
    evaluate = Actor.__call__
    monkeypatch.setattr(Actor, "__call__", lambda self, *args: calls.append(1) or evaluate(self, *args))
    collector = RolloutCollector(env, actor, np.random.default_rng(0), lambda rollout: rollout)
    params = {"action_net.weight": logits.mT}
    if deterministic:
        steps = collector._steps([None] * len(logits), params, deterministic=True)
        step = next(steps)
        return step.obs.reshape(len(logits), -1), step.actions.reshape(len(logits), -1), len(calls)
    buffer = RolloutBuffer(N_STEPS, env.observation_space, env.action_space, device="cpu", n_envs=n_envs)
    return collector.collect([None] * len(logits), params, buffer), len(calls)


def table(seed=0):
    return th.randn(2, N_STATES, N_ACTIONS, generator=th.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n_envs", "n_calls"), [(2 * 20, 1), (2 * 2, N_STEPS)])
def test_actions_follow_the_policy_and_log_probs_are_theirs(monkeypatch, n_envs, n_calls):
    """With 20 environments per task the table is used; with 2, fewer than states, the policy is asked every step."""
    logits = table()
    rollout, calls = collect(monkeypatch, n_envs, logits)
    assert calls == n_calls
    states, log_policy = rollout.observations.long().reshape(rollout.rewards.shape), logits.log_softmax(-1)
    tasks = th.arange(2)[:, None, None]
    th.testing.assert_close(rollout.log_probs, log_policy[tasks, states, rollout.actions])
    for task in range(2):
        for state in range(N_STATES):
            chosen = rollout.actions[task][states[task] == state]
            expected = log_policy[task, state].exp()
            frequency = th.bincount(chosen, minlength=N_ACTIONS) / len(chosen)
            deviation = (expected * (1 - expected) / len(chosen)).sqrt()
            assert ((frequency - expected).abs() < 4 * deviation).all(), (task, state, frequency, expected)


def test_impossible_actions_are_never_taken(monkeypatch):
    logits = th.full((2, N_STATES, N_ACTIONS), -800.0)  # probability 0 in double precision too
    logits[0, :, 1], logits[1, :, 2] = 0.0, 0.0
    rollout, calls = collect(monkeypatch, 40, logits)
    assert calls == 1
    assert (rollout.actions[0] == 1).all()
    assert (rollout.actions[1] == 2).all()


def test_the_mode_is_taken_where_it_is_asked_for(monkeypatch):
    logits = table(1)
    states, actions, calls = collect(monkeypatch, 40, logits, deterministic=True)
    assert calls == 1
    best = logits.argmax(-1).numpy()
    for task in range(2):
        np.testing.assert_array_equal(actions[task], best[task][states[task].astype(int)])
