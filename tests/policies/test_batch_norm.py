"""Batch normalisation: fixed while acting and learning, with statistics that follow the data."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from torch import nn

from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.policies.batch_norm import update_batch_norms
from sb3_bomrl.policies.extractors import update_normalizers

SPACE = spaces.Box(-np.inf, np.inf, (3,))


class Normalized(BaseFeaturesExtractor):
    """Flatten, then batch normalisation."""

    def __init__(self, observation_space, track_running_stats=True, momentum=0.1):
        dim = FlattenExtractor(observation_space).features_dim
        super().__init__(observation_space, dim)
        self.norm = nn.BatchNorm1d(dim, momentum=momentum, track_running_stats=track_running_stats)

    def forward(self, observations):
        return self.norm(observations.flatten(1))


def policy(space=SPACE, cls=ActorCriticPolicy, **kwargs):
    made = cls(space, spaces.Discrete(2), lambda _: 1e-3, features_extractor_class=Normalized, **kwargs)
    made.set_training_mode(False)
    return made


@pytest.mark.parametrize("share", [True, False])
def test_statistics_are_those_of_the_data(share):
    made = policy(share_features_extractor=share, features_extractor_kwargs={"momentum": None})
    x = th.randn(2, 5, 4, 3, generator=th.Generator().manual_seed(0)) * 3 + 2
    update_normalizers(made, x)
    update_normalizers(made, x + 1)
    for extractor in {id(part): part for part in (made.pi_features_extractor, made.vf_features_extractor)}.values():
        th.testing.assert_close(extractor.norm.running_mean, x.flatten(0, 2).mean(0) + 0.5)  # the mean of two updates
        th.testing.assert_close(extractor.norm.running_var, x.flatten(0, 2).var(0))
        assert extractor.norm.num_batches_tracked == 2
    assert not any(module.training for module in made.modules())


def test_a_single_observation_that_is_left_over_is_left_out():
    made = policy(features_extractor_kwargs={"momentum": None})
    x = th.arange(15.0).reshape(5, 3)
    update_batch_norms(made, x, n_at_once=2)
    th.testing.assert_close(made.features_extractor.norm.running_mean, x[:4].mean(0))
    update_batch_norms(made, x[:1])
    assert made.features_extractor.norm.num_batches_tracked == 2


def test_updates_take_nothing_from_the_global_generator_and_keep_the_weights():
    made = policy()
    state, weights = th.random.get_rng_state(), [p.clone() for p in made.parameters()]
    update_batch_norms(made, th.ones(4, 3))
    assert th.equal(th.random.get_rng_state(), state)
    assert all(th.equal(a, b) for a, b in zip(weights, made.parameters(), strict=True))
    assert all(p.grad is None for p in made.parameters())


def test_policies_without_running_statistics_are_refused():
    made = policy(features_extractor_kwargs={"track_running_stats": False})
    with pytest.raises(
        ValueError, match=r"track_running_stats=True, got False in the policy's 'features_extractor\.norm'"
    ):
        Actor(made)


def test_dictionaries():
    class OfDict(Normalized):
        def __init__(self, observation_space):
            super().__init__(observation_space["a"])

        def forward(self, observations):
            return super().forward(observations["a"])

    space = spaces.Dict({"a": SPACE, "b": spaces.Discrete(2)})
    made = MultiInputActorCriticPolicy(space, spaces.Discrete(2), lambda _: 1e-3, features_extractor_class=OfDict)
    made.set_training_mode(False)
    x = th.arange(24.0).reshape(2, 2, 2, 3)
    update_batch_norms(made, {"a": x, "b": th.zeros(2, 2, 2)})
    th.testing.assert_close(made.features_extractor.norm.running_mean, 0.1 * x.flatten(0, 2).mean(0))


def test_the_actor_is_the_policy_with_the_statistics_of_the_moment():
    made = policy()
    actor, obs = Actor(made), th.randn(2, 6, 3, generator=th.Generator().manual_seed(0))
    assert {"features_extractor.norm.weight", "features_extractor.norm.bias"} <= set(actor.names)
    for _ in range(2):
        params = {name: value[None].repeat(2, *[1] * value.ndim) for name, value in actor.params().items()}
        with th.no_grad():
            logits = actor(params, obs).logits
            expected = made.get_distribution(obs.flatten(0, 1)).distribution.logits
        th.testing.assert_close(logits.flatten(0, 1), expected)
        update_batch_norms(made, 5 + obs)
