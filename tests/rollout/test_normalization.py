"""VecNormalize with frozen statistics: the same in the end as one that never stood still."""

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_bomrl.rollout.normalization import FrozenNormalizer

FIELDS = ("mean", "var", "count")


def play(env, normalizer=None, n_steps=12):
    """Reset, then constant steps; with a normalizer that watches."""
    env.seed(0)
    env.reset()
    if normalizer is not None:
        normalizer.observe()
    for _ in range(n_steps):
        *_, dones, _ = env.step(np.full((env.num_envs, 1), 0.1, dtype=np.float32))
        if normalizer is not None:
            normalizer.observe(dones)


def assert_same(a, b):
    for field in FIELDS:
        np.testing.assert_allclose(getattr(a, field), getattr(b, field), rtol=1e-12)


@pytest.mark.parametrize("norm_reward", [True, False])
def test_committed_statistics_are_those_of_vec_normalize(line, norm_reward):
    frozen, plain = (VecNormalize(line.vec(3), gamma=0.9, norm_reward=norm_reward) for _ in range(2))
    normalizer = FrozenNormalizer(frozen)
    before = frozen.obs_rms.mean.copy()
    for _ in range(2):
        normalizer.freeze()
        play(frozen, normalizer)
        np.testing.assert_array_equal(frozen.obs_rms.mean, before)
        normalizer.commit()
        before = frozen.obs_rms.mean.copy()
        play(plain)
    assert_same(frozen.obs_rms, plain.obs_rms)
    assert_same(frozen.ret_rms, plain.ret_rms)
    assert plain.obs_rms.count > 70
    assert frozen.training


def test_observations_are_the_same_function_of_the_state_all_along(line):
    env = VecNormalize(line.vec(1))
    normalizer = FrozenNormalizer(env)
    normalizer.freeze()
    env.seed(0)
    first = env.reset()
    play(env, normalizer)
    env.seed(0)
    np.testing.assert_array_equal(env.reset(), first)


def test_release_forgets(line):
    env = VecNormalize(line.vec(2))
    before = env.obs_rms.mean.copy(), env.obs_rms.count, env.ret_rms.count
    normalizer = FrozenNormalizer(env)
    normalizer.freeze()
    play(env, normalizer)
    normalizer.release()
    normalizer.commit()  # too late: nothing is frozen any more
    np.testing.assert_array_equal(env.obs_rms.mean, before[0])
    assert (env.obs_rms.count, env.ret_rms.count) == before[1:]
    assert env.training


def test_freezing_twice_does_not_lose_the_training_flag(line):
    env = VecNormalize(line.vec(1))
    normalizer = FrozenNormalizer(env)
    normalizer.release()
    assert env.training
    normalizer.freeze()
    normalizer.freeze()
    normalizer.release()
    assert env.training


def test_a_wrapper_that_does_not_train_stays_as_it_is(line):
    env = VecNormalize(line.vec(2), training=False)
    before = env.obs_rms.mean.copy(), env.ret_rms.count
    normalizer = FrozenNormalizer(env)
    normalizer.freeze()
    play(env, normalizer)
    normalizer.commit()
    np.testing.assert_array_equal(env.obs_rms.mean, before[0])
    assert env.ret_rms.count == before[1]
    assert not env.training


@pytest.mark.parametrize("norm_obs", [True, False])
def test_dictionaries(line, norm_obs):
    class DictEnv(line.Env):
        observation_space = spaces.Dict({"a": line.Env.observation_space, "b": spaces.Discrete(3)})

        def _obs(self):
            return {"a": super()._obs(), "b": self.t % 3}

    def make():
        return VecNormalize(DummyVecEnv([DictEnv] * 2), norm_obs=norm_obs, norm_obs_keys=["a"] if norm_obs else None)

    frozen, plain = make(), make()
    normalizer = FrozenNormalizer(frozen)
    normalizer.freeze()
    play(frozen, normalizer)
    normalizer.commit()
    play(plain)
    if norm_obs:
        assert_same(frozen.obs_rms["a"], plain.obs_rms["a"])
    assert_same(frozen.ret_rms, plain.ret_rms)


def test_without_a_wrapper_nothing_happens():
    normalizer = FrozenNormalizer(None)
    normalizer.freeze()
    normalizer.observe()
    normalizer.observe(np.array([True]))
    normalizer.commit()
    normalizer.release()
