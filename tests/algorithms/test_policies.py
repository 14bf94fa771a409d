"""Policies beyond perceptrons, with every algorithm: stacked frames, batch normalisation; gSDE is refused."""

import io

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor
from torch import nn

from sb3_bomrl.core.params import stack
from tests.saving.archives import saved

IMAGES = spaces.Box(0, 255, (36, 36, 1), np.uint8)


class BatchNormExtractor(BaseFeaturesExtractor):
    """Two layers with batch normalisation."""

    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=6)
        self.network = nn.Sequential(
            nn.BatchNorm1d(observation_space.shape[0]), nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Tanh()
        )

    def forward(self, observations):
        return self.network(observations)


def statistics(model):
    return {name: value.clone() for name, value in model.policy.named_buffers()}


def test_stacked_frames(tiny, algorithm):
    def env():
        return VecMonitor(VecFrameStack(DummyVecEnv([lambda: tiny.SpaceEnv(IMAGES, spaces.Discrete(2))] * 2), 3))

    features = {"features_extractor_kwargs": {"features_dim": 8}}
    model = tiny.model(env(), "CnnPolicy", algorithm, n_steps=4, policy_kwargs=features)
    assert model.observation_space.shape == (3, 36, 36)
    before = tiny.params(model)
    model.learn(1)
    after = tiny.params(model)
    assert tiny.differ(before, after)
    assert all(value.isfinite().all() for value in after.values())
    adapted = model.adapt(env(), n_episodes=2)
    assert tiny.differ(tiny.params(adapted), after)
    lengths = evaluate_policy(adapted, adapted.env, n_eval_episodes=2, return_episode_rewards=True)[1]
    assert lengths == [7, 7]


@pytest.mark.parametrize("baseline", ["linear", "value_net"])
def test_batch_normalisation(tiny, algorithm, baseline):
    kwargs = {"policy_kwargs": {"features_extractor_class": BatchNormExtractor, "net_arch": [4]}, "baseline": baseline}
    model = tiny.model(cls=algorithm, **kwargs)
    start, seen = statistics(model), []
    assert len(start) == 6

    def watch(local, _):
        seen.append(statistics(model))
        return True

    before = tiny.params(model)
    model.learn(2 * tiny.iteration_of(model), callback=watch)
    assert tiny.differ(before, tiny.params(model))
    for first in (0, len(seen) // 2):  # they stand still within a meta-iteration
        for now in seen[first : first + len(seen) // 2]:
            tiny.assert_equal(now, seen[first])
    tiny.assert_equal(seen[0], start)
    after = statistics(model)
    for earlier, later in ((start, seen[-1]), (seen[-1], after)):
        assert all(not th.equal(earlier[name], later[name]) for name in earlier)
    assert int(after["features_extractor.network.0.num_batches_tracked"]) == 2 * (model.n_support_phases + 1)


def test_batch_normalisation_is_fixed_where_a_model_only_plays_and_travels_with_it(tiny, algorithm):
    kwargs = {"policy_kwargs": {"features_extractor_class": BatchNormExtractor, "net_arch": [4]}}
    model = tiny.model(cls=algorithm, **kwargs).learn(1)
    before = statistics(model)
    obs = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    together = model.predict(obs, deterministic=True)[0]
    one_by_one = [model.predict(o, deterministic=True)[0] for o in obs]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5, atol=1e-6)
    adapted = model.adapt(np.ones(2), n_episodes=2)
    tiny.assert_equal(statistics(model), before)
    tiny.assert_equal(statistics(adapted), before)
    with pytest.warns(UserWarning, match="only pickle can save policy_kwargs"):
        data = saved(model)
    with pytest.raises(ValueError, match="only unpickling could load: 'policy_kwargs'"):
        algorithm.load_safely(io.BytesIO(data))
    loaded = algorithm.load_safely(io.BytesIO(data), custom_objects=kwargs)
    tiny.assert_equal(tiny.params(loaded), tiny.params(model))
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], together)


@pytest.mark.parametrize("kwargs", [{"use_sde": True}, {"policy_kwargs": {"use_sde": True}}])
def test_gsde_is_refused(tiny, algorithm, kwargs):
    with pytest.raises(ValueError, match=r"use_sde must be False, got True: the noise of gSDE"):
        tiny.model(cls=algorithm, **kwargs)


class FrozenExtractor(BaseFeaturesExtractor):
    """A frozen layer below one that learns."""

    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=6)
        self.frozen = nn.Linear(2, 8).requires_grad_(False)
        self.network = nn.Linear(8, 6)

    def forward(self, observations):
        return self.network(self.frozen(observations).tanh())


@pytest.mark.parametrize("baseline", ["linear", "value_net"])
def test_frozen_layers_stay_bit_for_bit(tiny, algorithm, baseline):
    kwargs = {"policy_kwargs": {"features_extractor_class": FrozenExtractor, "net_arch": [4]}, "baseline": baseline}
    model = tiny.model(cls=algorithm, **kwargs)
    start = tiny.params(model)
    adapted = model.learn(tiny.iteration_of(model)).adapt(tiny.GoalEnv(), n_episodes=1)
    for after in (tiny.params(model), tiny.params(adapted)):
        for name, value in after.items():
            assert th.equal(value, start[name]) or "frozen" not in name
        assert not th.equal(after["action_net.weight"], start["action_net.weight"])


@pytest.mark.parametrize("frozen", [("mlp_extractor.policy_net.0",), ("log_std",), ("action_net", "value_net")])
def test_layers_frozen_after_the_construction_stay_bit_for_bit(tiny, frozen):
    model = tiny.model(baseline="value_net")
    for name, value in model.policy.named_parameters():
        value.requires_grad_(not name.startswith(frozen))
    start = tiny.params(model)
    adapted = model.learn(tiny.iteration).adapt(tiny.GoalEnv(), n_episodes=1)
    for after in (tiny.params(model), tiny.params(adapted)):
        moved = {name for name, value in after.items() if not th.equal(value, start[name])}
        assert moved
        assert not any(name.startswith(frozen) for name in moved)


def test_a_policy_that_is_frozen_altogether_is_refused(tiny):
    model = tiny.model()
    model.policy.requires_grad_(False)
    with pytest.raises(ValueError, match="policy must have a parameter with requires_grad=True"):
        model.learn(1)


class RecurrentExtractor(BaseFeaturesExtractor):
    """A layer that vmap has no rule for."""

    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=6)
        self.gru = nn.GRU(2, 6, batch_first=True)

    def forward(self, observations):
        return self.gru(observations[:, None])[0][:, 0]


def test_what_vmap_cannot_batch_is_computed_task_by_task(tiny, algorithm):
    kwargs = {"features_extractor_class": RecurrentExtractor, "net_arch": [4]}
    model = tiny.model(cls=algorithm, policy_kwargs=kwargs)
    start = tiny.params(model)
    model.learn(tiny.iteration_of(model))
    assert tiny.differ(tiny.params(model), start)
    observations = th.randn(3, 5, 2)
    params = {name: value + 0.1 * th.randn(value.shape) for name, value in stack(model.actor.params(), 3).items()}
    together = model.actor(params, observations).base_dist.loc
    for task in range(3):
        model.actor.load_params({name: value[task] for name, value in params.items()})
        alone = model.policy.get_distribution(observations[task]).distribution.mean
        th.testing.assert_close(together[task], alone)
