"""Advantages of collected rollouts against loops written out."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_bomrl.core.params import stack
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.rollout.collector import RolloutCollector
from sb3_bomrl.rollout.estimation import AdvantageEstimator, default_baseline

GAMMA, LAMBDA = 0.9, 0.8


def collect(env, actor, n_tasks=2, n_steps=13):
    buffer = RolloutBuffer(n_steps, env.observation_space, env.action_space, device="cpu", n_envs=env.num_envs)
    collector = RolloutCollector(env, actor, np.random.default_rng(0), lambda rollout: rollout)
    return collector.collect([0.0, 0.5][:n_tasks], stack(actor.params(), n_tasks), buffer)


def test_value_net_gae_is_the_loop_written_out(line):
    env = line.vec(4)
    actor = line.actor(env)
    rollout = AdvantageEstimator(actor, GAMMA, LAMBDA, "value_net")(collect(env, actor))

    def value(obs):
        with th.no_grad():
            return float(actor.policy.predict_values(obs[None]))

    finals = {
        tuple(i): obs for i, obs in zip(rollout.truncated.nonzero().tolist(), rollout.final_observations, strict=True)
    }
    for task in range(2):
        for e in range(2):
            carried = 0.0
            for t in reversed(range(13)):
                if rollout.truncated[task, t, e]:
                    following, carried = value(finals[task, t, e]), 0.0
                elif rollout.episode_ends[task, t, e]:
                    following, carried = 0.0, 0.0
                else:
                    following = value(rollout.observations[task, t + 1, e])
                own = value(rollout.observations[task, t, e])
                carried = float(rollout.rewards[task, t, e]) + GAMMA * following - own + GAMMA * LAMBDA * carried
                assert float(rollout.advantages[task, t, e]) == pytest.approx(carried, abs=1e-5)


def test_linear_baseline_explains_what_is_linear(line):
    env = line.vec(4)
    actor = line.actor(env)
    rollout = collect(env, actor, n_steps=40)
    linear = rollout._replace(rewards=3.0 * rollout.observations[..., 0] - rollout.observations[..., 1])
    advantages = AdvantageEstimator(actor, 0.0, 1.0, "linear")(linear).advantages
    assert float(advantages.abs().max()) < 1e-2
    unexplained = AdvantageEstimator(actor, 0.0, 1.0, "linear")(rollout).advantages
    assert float(unexplained.abs().max()) > 0.1


def test_linear_baseline_bootstraps_where_an_episode_is_cut(line):
    """A reward of 1 for ever is worth 1/(1−γ) everywhere, however short the episodes that are seen of it."""
    env = line.vec(4, wall=np.inf)
    actor = line.actor(env)
    rollout = collect(env, actor, n_steps=40)
    place_only = th.tensor([1.0, 0.0])  # who saw the time of the cut could explain the rewards in other ways
    forever = rollout._replace(
        rewards=th.ones_like(rollout.rewards),
        observations=rollout.observations * place_only,
        final_observations=rollout.final_observations * place_only,
    )
    values, final_values = AdvantageEstimator(actor, GAMMA, LAMBDA, "linear")._linear(forever)
    np.testing.assert_allclose(values, 1 / (1 - GAMMA), rtol=0.03)
    np.testing.assert_allclose(final_values, 1 / (1 - GAMMA), rtol=0.03)
    advantages = AdvantageEstimator(actor, GAMMA, LAMBDA, "linear")(forever).advantages
    assert float(advantages.abs().max()) < 0.1


@pytest.mark.parametrize("baseline", ["linear", "value_net"])
def test_all_tasks_at_once_is_one_task_at_a_time(line, baseline):
    env = line.vec(4)
    actor = line.actor(env)
    rollout = collect(env, actor)
    estimate = AdvantageEstimator(actor, GAMMA, LAMBDA, baseline)
    together = estimate(rollout).advantages
    owners = rollout.truncated.nonzero()[:, 0]
    for task in range(2):
        alone = rollout._replace(
            **{
                name: getattr(rollout, name)[task : task + 1]
                for name in rollout._fields
                if name != "final_observations"
            },
            final_observations=rollout.final_observations[owners == task],
        )
        th.testing.assert_close(estimate(alone).advantages[0], together[task], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("baseline", ["linear", "value_net"])
def test_masked_steps_change_nothing(line, baseline):
    env = line.vec(2)
    actor = line.actor(env)
    collector = RolloutCollector(env, actor, np.random.default_rng(0), lambda rollout: rollout)
    rollout = collector.collect_episodes([0.0], stack(actor.params(), 1), 3)
    assert not rollout.mask.all()
    estimate = AdvantageEstimator(actor, GAMMA, LAMBDA, baseline)
    expected = estimate(rollout).advantages
    spoiled = rollout._replace(rewards=th.where(rollout.mask, rollout.rewards, 1e6))
    th.testing.assert_close(estimate(spoiled).advantages, expected)
    assert (expected[~rollout.mask] == 0).all()


@pytest.mark.parametrize("baseline", ["linear", "value_net"])
@pytest.mark.parametrize(
    "wall", [-np.inf, 1.0]
)  # -inf: every step terminates, nothing is bootstrapped but nothing fails
def test_dictionary_observations(line, baseline, wall):
    class DictEnv(line.Env):
        observation_space = spaces.Dict({"a": line.Env.observation_space, "b": spaces.Discrete(6)})

        def _obs(self):
            return {"a": super()._obs(), "b": self.t}

    env = DummyVecEnv([lambda: DictEnv(wall=wall)] * 2)
    actor = Actor(MultiInputActorCriticPolicy(env.observation_space, env.action_space, lambda _: 1e-3))
    buffer = DictRolloutBuffer(8, env.observation_space, env.action_space, device="cpu", n_envs=2)
    collector = RolloutCollector(env, actor, np.random.default_rng(0), AdvantageEstimator(actor, 0.9, 0.8, baseline))
    rollout = collector.collect([0.0], stack(actor.params(), 1), buffer)
    assert rollout.advantages.isfinite().all()
    assert rollout.advantages.abs().max() > 0


def test_the_default_is_linear_where_the_system_is_small():
    assert default_baseline(spaces.Box(-1, 1, (27,))) == "linear"
    assert default_baseline(spaces.Discrete(16)) == "linear"
    assert default_baseline(spaces.Box(0, 255, (3, 36, 36), np.uint8)) == "value_net"
    assert default_baseline(spaces.Box(-1, 1, (255,))) == "linear"
    assert default_baseline(spaces.Box(-1, 1, (256,))) == "value_net"
