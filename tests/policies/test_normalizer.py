"""Running statistics of observations, part of the policy."""

import copy

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_bomrl.policies.extractors import NormalizedFlattenExtractor, update_normalizers

SPACE = spaces.Box(-np.inf, np.inf, (2, 3))
SIZES = (1, 7, 500, 3)


def pieces(offset: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    scale, mean = rng.uniform(0.1, 10, (2, 3)), rng.normal(0, 5, (2, 3)) + offset
    return [(mean + i + scale * rng.normal(size=(n, 2, 3))).astype(np.float32) for i, n in enumerate(SIZES)]


def policy(**kwargs) -> ActorCriticPolicy:
    return ActorCriticPolicy(
        SPACE, spaces.Discrete(2), lambda _: 1e-3, features_extractor_class=NormalizedFlattenExtractor, **kwargs
    )


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_statistics_are_those_of_everything_seen(offset):
    extractor = NormalizedFlattenExtractor(SPACE)
    for piece in pieces(offset):
        extractor.update(th.as_tensor(piece))
    seen = np.concatenate(pieces(offset)).reshape(-1, 6).astype(np.float64)
    assert np.allclose(extractor.mean, seen.mean(0), rtol=1e-6, atol=1e-6)
    assert np.allclose(extractor.var, seen.var(0), rtol=1e-5)
    assert extractor.count == len(seen)


def test_the_first_update_forgets_the_initial_values():
    extractor = NormalizedFlattenExtractor(SPACE)
    extractor.update(th.full((4, 2, 3), 2.0))
    assert th.equal(extractor.mean, th.full((6,), 2.0))
    assert th.equal(extractor.var, th.zeros(6))
    assert th.equal(extractor(th.full((1, 2, 3), 2.0)), th.zeros(1, 6))


def test_many_small_updates_do_not_drift():
    extractor = NormalizedFlattenExtractor(spaces.Box(-1, 1, (1,)))
    x = np.random.default_rng(0).normal(3.0, 0.5, (40_000, 1)).astype(np.float32)
    for part in np.split(x, 400):
        extractor.update(th.as_tensor(part))
    assert np.allclose(extractor.mean, x.astype(np.float64).mean(), rtol=3e-6)
    assert np.allclose(extractor.var, x.astype(np.float64).var(), rtol=3e-5)


def test_no_observations_change_nothing():
    extractor = NormalizedFlattenExtractor(SPACE)
    extractor.update(th.zeros(0, 2, 3))
    assert th.equal(extractor.mean, th.zeros(6))
    assert th.equal(extractor.var, th.ones(6))


def test_observations_are_standardised_and_clipped():
    extractor = NormalizedFlattenExtractor(SPACE, clip=1.5, epsilon=1e-8)
    for piece in pieces():
        extractor.update(th.as_tensor(piece))
    x = pieces()[2]
    seen = np.concatenate(pieces()).reshape(-1, 6).astype(np.float64)
    expected = ((x.reshape(-1, 6) - seen.mean(0)) / seen.std(0)).clip(-1.5, 1.5)
    got = extractor(th.as_tensor(x))
    assert np.allclose(got, expected, atol=1e-5)
    assert got.abs().max() == 1.5
    assert th.equal(NormalizedFlattenExtractor(SPACE)(th.as_tensor(x)), th.as_tensor(x).flatten(1).clamp(-5, 5))


@pytest.mark.parametrize("shared", [True, False])
def test_statistics_belong_to_the_policy(shared):
    one = policy(share_features_extractor=shared)
    parameters = [p.clone() for p in one.parameters()]
    update_normalizers(one, th.as_tensor(pieces()[2]).reshape(1, 5, 100, 2, 3))
    for extractor in (one.pi_features_extractor, one.vf_features_extractor):
        assert extractor.count == 500
        assert np.allclose(extractor.mean, pieces()[2].reshape(-1, 6).mean(0), atol=1e-4)
    assert all(map(th.equal, parameters, one.parameters()))
    twin, other = copy.deepcopy(one), policy(share_features_extractor=shared)
    other.load_state_dict(one.state_dict())
    x = th.as_tensor(pieces()[1])
    for loaded in (twin, other):
        assert th.equal(loaded.pi_features_extractor(x), one.pi_features_extractor(x))
        assert loaded.pi_features_extractor.count == 500


def test_policies_without_a_normalizer_are_left_alone():
    plain = ActorCriticPolicy(SPACE, spaces.Discrete(2), lambda _: 1e-3)
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    update_normalizers(plain, th.randn(4, 2, 3))
    assert all(th.equal(before[k], v) for k, v in plain.state_dict().items())


def test_only_boxes_can_be_standardised():
    with pytest.raises(ValueError, match=r"observation_space must be a Box, got Discrete\(3\)"):
        NormalizedFlattenExtractor(spaces.Discrete(3))
