"""The default policies: statistics of observations and standard deviations of actions."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN

from sb3_bomrl.policies import (
    NormalizedCombinedExtractor,
    NormalizedFlattenExtractor,
    NormalizedMlpPolicy,
    NormalizedMultiInputPolicy,
)
from sb3_bomrl.policies.extractors import update_normalizers

BOX = spaces.Box(-np.inf, np.inf, (3,))
IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)


TWO = spaces.Discrete(2)


def mlp(observed, acted=TWO, **kwargs):
    return NormalizedMlpPolicy(observed, acted, lambda _: 1e-3, **kwargs)


@pytest.mark.parametrize(
    ("space", "extractor"),
    [(BOX, NormalizedFlattenExtractor), (spaces.Discrete(4), FlattenExtractor), (IMAGE, FlattenExtractor)],
)
def test_vectors_are_standardised(space, extractor):
    assert type(mlp(space).features_extractor) is extractor


def test_another_extractor_may_be_given():
    assert type(mlp(BOX, features_extractor_class=FlattenExtractor).features_extractor) is FlattenExtractor


def test_standard_deviations_follow_the_range_of_the_actions():
    acted = spaces.Box(np.float32([-1, -2, -np.inf, 0]), np.float32([1, 2, 1, 100]))
    assert np.allclose(mlp(BOX, acted).log_std.exp().detach().numpy(), [0.6, 1.2, 1.0, 30.0])
    assert np.allclose(mlp(BOX, acted, log_std_init=-1.0).log_std.detach().numpy(), -1.0)


def test_parts_of_a_dictionary_are_standardised_each_by_its_own_statistics():
    space = spaces.Dict({"image": IMAGE, "speed": BOX, "gear": spaces.Discrete(5)})
    acted = spaces.Box(-2, 2, (1,))
    policy = NormalizedMultiInputPolicy(space, acted, lambda _: 1e-3)
    parts = policy.features_extractor.extractors
    assert isinstance(policy.features_extractor, NormalizedCombinedExtractor)
    assert isinstance(parts["image"], NatureCNN)
    assert isinstance(parts["speed"], NormalizedFlattenExtractor)
    assert type(parts["gear"]) is th.nn.Flatten
    assert np.allclose(policy.log_std.exp().detach().numpy(), 1.2)
    generator = np.random.default_rng(0)
    speed = generator.normal([1.0, -20.0, 300.0], [0.1, 5.0, 40.0], (50, 3))
    update_normalizers(policy, {"speed": th.as_tensor(speed), "image": None, "gear": None})
    assert np.allclose(parts["speed"].mean, speed.mean(0), rtol=1e-5)
    assert np.allclose(parts["speed"].var, speed.var(0), rtol=1e-5)
    assert float(parts["speed"].count) == 50
