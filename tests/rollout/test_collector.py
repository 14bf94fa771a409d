"""The collector against a hand-written loop, one environment at a time."""

from contextlib import nullcontext
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_bomrl.rollout.collector import RolloutCollector
from sb3_bomrl.rollout.steps import Hooks, StopCollection, check_finite

N_STEPS = 13


def identity(rollout):
    return rollout


def collector(env, actor, seed=3):
    return RolloutCollector(env, actor, np.random.default_rng(seed), identity)


def buffer(env):
    return RolloutBuffer(N_STEPS, env.observation_space, env.action_space, device="cpu", n_envs=env.num_envs)


def replay(line, task, seed, actions, n_steps):
    """What one environment does when it is told these actions: per step obs, reward, start, terminated, cut, final."""
    env = line.Env()
    env.set_task(task)
    obs, _ = env.reset(seed=seed)
    rows, is_start = [], True
    for t in range(n_steps):
        new_obs, reward, terminated, truncated, _ = env.step(np.clip(actions[t], -0.5, 0.5))
        is_cut = not terminated and (truncated or t == n_steps - 1)
        rows.append((obs, reward, is_start, terminated, is_cut, new_obs))
        is_start = terminated or truncated
        obs = env.reset()[0] if is_start else new_obs
    return rows


def log_probs(actor, params, task, observations, actions):
    policy = deepcopy(actor.policy)
    policy.load_state_dict({**policy.state_dict(), **{name: value[task] for name, value in params.items()}})
    with th.no_grad():
        return policy.evaluate_actions(observations, actions)[1]


@pytest.mark.parametrize("n_envs", [2, 4, 8])  # two waves, one environment per task, two environments per task
def test_collect_is_the_loop_written_by_hand(line, n_envs):
    tasks = [-0.5, 0.0, 0.5, 1.0]
    env = line.vec(n_envs)
    actor = line.actor(env, log_std_init=-0.5)
    params = line.params(actor, 4)
    rollout = collector(env, actor).collect(tasks, params, buffer(env))

    n_wave = min(n_envs, 4)
    per_task = n_envs // n_wave
    assert rollout.rewards.shape == (4, N_STEPS, per_task)
    assert rollout.mask.all()
    generator = np.random.default_rng(3)
    finals = []
    for task in range(4):
        if task % n_wave == 0:
            seed = int(generator.integers(2**31 - n_envs))
            generator.integers(2**63)
        columns = [
            replay(
                line, tasks[task], seed + (task % n_wave) * per_task + e, rollout.actions[task, :, e].numpy(), N_STEPS
            )
            for e in range(per_task)
        ]
        for e, rows in enumerate(columns):
            obs, rewards, starts, terminated, cut, _ = (np.array(x) for x in zip(*rows, strict=True))
            np.testing.assert_array_equal(rollout.observations[task, :, e], obs)
            np.testing.assert_allclose(rollout.rewards[task, :, e], rewards, rtol=1e-6)
            np.testing.assert_array_equal(rollout.episode_starts[task, :, e], starts)
            np.testing.assert_array_equal(rollout.episode_ends[task, :, e], terminated | cut)
            np.testing.assert_array_equal(rollout.truncated[task, :, e], cut)
        finals += [columns[e][t][5] for t in range(N_STEPS) for e in range(per_task) if columns[e][t][4]]
        expected = log_probs(
            actor, params, task, rollout.observations[task].flatten(0, 1), rollout.actions[task].flatten(0, 1)
        )
        th.testing.assert_close(rollout.log_probs[task].flatten(), expected)
    np.testing.assert_array_equal(rollout.final_observations, np.array(finals))
    # the example shows every kind of ending
    assert (rollout.episode_ends & ~rollout.truncated).any()
    assert rollout.truncated[:, :-1].any()
    assert rollout.truncated[:, -1].any()


def test_actions_out_of_bounds_are_clipped_for_the_environment_but_not_in_the_data(line):
    env = line.vec(2)
    rollout = collector(env, line.actor(env)).collect([0.0, 0.0], line.params(line.actor(env), 2), buffer(env))
    performed = np.concatenate([np.stack(e.actions)[:, None] for e in env.envs], axis=1)
    sampled = rollout.actions.squeeze(2).transpose(0, 1).numpy()
    assert (np.abs(sampled) > 0.5).any()
    np.testing.assert_array_equal(performed, np.clip(sampled, -0.5, 0.5))


def test_actions_of_any_shape_reach_the_environment_in_that_shape(line):
    class MatrixEnv(line.Env):
        action_space = spaces.Box(-1.0, 1.0, (2, 3), np.float32)

        def step(self, action):
            assert action.shape == (2, 3)
            return super().step(action.flatten() * 0.1)

    env = DummyVecEnv([MatrixEnv] * 2)
    actor = line.actor(env)
    rollout = collector(env, actor).collect([0.0], line.params(actor, 1), buffer(env))
    assert rollout.actions.shape == (1, N_STEPS, 2, 6)


def test_a_collection_is_a_function_of_the_generator(line):
    def play(seed, disturb=False):
        env = line.vec(4)
        actor = line.actor(env)
        hooks = Hooks(on_step=lambda step, number: not disturb or float(th.rand(1)) + np.random.rand() >= 0)  # noqa: NPY002
        return collector(env, actor, seed).collect([0.1, 0.2], line.params(actor, 2), buffer(env), hooks)

    for name, a, b in zip(play(0)._fields, play(0), play(0, disturb=True), strict=True):
        assert th.equal(a, b), name
    assert not th.equal(play(0).actions, play(1).actions)
    assert not th.equal(play(0).observations[:, 0], play(1).observations[:, 0])


def test_each_task_is_played_with_its_own_parameters(line):
    env = line.vec(4)
    actor = line.actor(env, log_std_init=-5.0)
    params = line.params(actor, 2)
    params["action_net.bias"] = th.tensor([[-3.0], [3.0]])
    rollout = collector(env, actor).collect([0.0, 0.0], params, buffer(env))
    assert (rollout.actions[0] < -1).all()
    assert (rollout.actions[1] > 1).all()


def test_hooks_see_every_step_and_stop_at_once(line):
    env = line.vec(2)
    actor = line.actor(env)
    calls = []
    hooks = Hooks(
        on_start=lambda: calls.append("start"),
        on_step=lambda step, number: calls.append(number) or True,
        on_end=lambda rollout: calls.append("end"),
    )
    collector(env, actor).collect([0.0, 0.1, 0.2, 0.3], line.params(actor, 4), buffer(env), hooks)
    assert calls == ["start", *range(N_STEPS), "end"] * 2

    env = line.vec(2)
    hooks = Hooks(on_step=lambda step, number: number < 3)
    with pytest.raises(StopCollection):
        collector(env, actor).collect([0.0], line.params(actor, 1), buffer(env), hooks)
    assert [len(e.actions) for e in env.envs] == [4, 4]


def test_waves_do_not_overwrite_each_other(line):
    env = line.vec(1)
    actor = line.actor(env)
    tasks, params, shared = [0.0, 5.0], line.params(actor, 2), buffer(env)
    ends = []
    rollout = collector(env, actor).collect(
        tasks, params, shared, Hooks(on_end=lambda r: ends.append(r.observations.clone()))
    )
    assert th.equal(rollout.observations, th.cat(ends))
    assert not th.equal(rollout.observations[0], rollout.observations[1])


@pytest.mark.parametrize(("n_episodes", "shares"), [(1, [1, 0, 0]), (3, [1, 1, 1]), (5, [2, 2, 1])])
def test_collect_episodes_plays_whole_episodes_in_even_shares(line, n_episodes, shares):
    env = line.vec(6)
    actor = line.actor(env, log_std_init=-1.0)
    rollout = collector(env, actor).collect_episodes([0.0, 0.5], line.params(actor, 2), n_episodes)
    counted = rollout.mask
    np.testing.assert_array_equal((rollout.episode_starts & counted).sum(1), [shares] * 2)
    np.testing.assert_array_equal((rollout.episode_ends & counted).sum(1), [shares] * 2)
    assert not (rollout.truncated & ~counted).any()
    assert len(rollout.final_observations) == int(rollout.truncated.sum())
    for task in range(2):
        for e, share in enumerate(shares):
            # counted steps come first, without gaps, and stop with the last episode of the share
            n = int(counted[task, :, e].sum())
            assert counted[task, :n, e].all()
            assert share == 0 or rollout.episode_ends[task, n - 1, e]


def test_collect_episodes_deterministic_takes_the_mode(line):
    env = line.vec(2)
    actor = line.actor(env)
    params = line.params(actor, 1)
    rollout = collector(env, actor).collect_episodes([0.0], params, 2, deterministic=True)
    policy = deepcopy(actor.policy)
    policy.load_state_dict({**policy.state_dict(), **{name: value[0] for name, value in params.items()}})
    with th.no_grad():
        mean = policy.get_distribution(rollout.observations.flatten(0, 2)).distribution.mean
    th.testing.assert_close(rollout.actions.flatten(0, 2), mean)


def test_collect_episodes_gives_up_on_endless_episodes(line):
    env = line.vec(1, horizon=10**9, wall=np.inf)
    actor = line.actor(env)
    with pytest.raises(ValueError, match=r"in environment 0 \(task 0\.0\) did not end within max_episode_steps=7"):
        collector(env, actor).collect_episodes([0.0], line.params(actor, 1), 1, max_episode_steps=7)


def test_the_limit_is_per_episode(line):
    env = line.vec(1, horizon=5, wall=np.inf)
    actor = line.actor(env)
    rollout = collector(env, actor).collect_episodes([0.0], line.params(actor, 1), 6, max_episode_steps=6)
    assert int(rollout.mask.sum()) == 30


def test_the_limit_is_the_environments_own_unless_it_has_none(line, monkeypatch):
    monkeypatch.setattr("sb3_bomrl.rollout.time_limit.MAX_EPISODE_STEPS", 7)
    for make, ends in ((line.Env, False), (lambda **kwargs: gym.wrappers.TimeLimit(line.Env(**kwargs), 9), True)):
        env = DummyVecEnv([lambda make=make: make(horizon=10**9, wall=np.inf)])
        actor = line.actor(env)
        with nullcontext() if ends else pytest.raises(ValueError, match="max_episode_steps=7"):
            collector(env, actor).collect_episodes([0.0], line.params(actor, 1), 1)


def test_collect_episodes_leaves_vec_normalize_as_it_is(line):
    env = VecNormalize(line.vec(2))
    actor = line.actor(env)
    before = deepcopy((env.obs_rms.mean, env.obs_rms.count, env.ret_rms.var, env.ret_rms.count))
    collector(env, actor).collect_episodes([0.0], line.params(actor, 1), 4)
    for old, new in zip(before, (env.obs_rms.mean, env.obs_rms.count, env.ret_rms.var, env.ret_rms.count), strict=True):
        np.testing.assert_array_equal(old, new)
    assert env.training


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_a_number_that_is_not_finite_is_named(line, what):
    class BrokenEnv(line.Env):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            broken = self.task == 0.5 and self.t == 3
            return (obs * np.nan if broken and what == "observation" else obs, np.inf if broken else reward, *rest)

    env = DummyVecEnv([BrokenEnv] * 4)
    actor = line.actor(env)
    with pytest.raises(FloatingPointError, match=rf"{what} from environment 2 \(task 0\.5\) at step 3 is not finite"):
        collector(env, actor).collect([0.0, 0.5], line.params(actor, 2), buffer(env))


def test_check_finite_looks_into_dictionaries():
    good = {"a": np.zeros((2, 3)), "b": np.zeros((2,), dtype=np.uint8)}
    check_finite("observation", good, [None], 0)
    with pytest.raises(FloatingPointError, match="observation 'a' from environment 1"):
        check_finite("observation", {**good, "a": np.array([[0.0], [np.inf]])}, [None], 0)


def test_image_observations_keep_their_type(line):
    class ImageEnv(line.Env):
        observation_space = spaces.Box(0, 255, (1, 4, 4), np.uint8)

        def _obs(self):
            return np.full((1, 4, 4), self.t, dtype=np.uint8)

    assert isinstance(ImageEnv(), gym.Env)
    env = DummyVecEnv([ImageEnv])
    actor = line.actor(env)
    rollout = collector(env, actor).collect([0.0], line.params(actor, 1), buffer(env))
    assert rollout.observations.dtype == th.uint8
    assert rollout.final_observations.dtype == th.uint8
